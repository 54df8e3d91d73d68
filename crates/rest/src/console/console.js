// What pages do beyond HTML: they keep themselves up to date, say what has changed, keep what was typed when a session has ended, and save what is shown once. All else works without this.
"use strict";

(() => {
  const main = document.getElementById("main");
  const news = document.getElementById("news");
  const offline = document.getElementById("offline");
  // What nobody has asked for does not keep a session alive.
  const background = { headers: { "X-Keystead-Background": "true" }, credentials: "same-origin", cache: "no-store", redirect: "error" };
  // How long a node may take: one that says nothing is as good as one that is away.
  const PATIENCE = 15_000;
  const ask = (address) => fetch(address, { ...background, signal: AbortSignal.timeout(PATIENCE) });
  let seconds = Number(main?.dataset.refresh ?? 0);
  let timer = 0;
  let running = false;

  // What is told of, by what it is of, or else by the text before its colon: "svm1" of "svm1: blocked".
  const told = (from) => new Map([...from.querySelectorAll("[data-say]")].map((each) => [each.dataset.key ?? each.dataset.say.replace(/: [^:]*$/, ""), each.dataset.say]));

  // What is read out in a pause; the same words again, too.
  function say(text) {
    news.textContent = "";
    setTimeout(() => { news.textContent = text; }, 50);
  }

  // An alert is read out when it changes: the same one is not put there again.
  function warn(...what) {
    const text = what.map((each) => each.textContent ?? each).join("");
    if (offline.hidden || offline.textContent !== text) offline.replaceChildren(...what);
    offline.hidden = false;
  }

  function replace(old, fresh) {
    if (old.innerHTML === fresh.innerHTML) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const place = focused && [...old.querySelectorAll("a, button, input, summary")].indexOf(focused);
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    old.replaceChildren(...fresh.childNodes);
    old.querySelectorAll("details").forEach((each, at) => { each.open = open[at] ?? each.open; });
    if (focused) {
      const now = [...old.querySelectorAll("a, button, input, summary")];
      const same = now.find((each) => each.href === focused.href && each.textContent === focused.textContent);
      (same ?? now[place] ?? main).focus({ preventScroll: true });
    }
  }

  async function refresh() {
    if (running || document.hidden) return;
    running = true;
    try {
      const answer = await ask(location.href);
      if (answer.status === 401) return ended();
      if (answer.status === 404) { seconds = 0; return warn("This is not there any more: it was deleted, or its time is over."); }
      if (!answer.ok) return warn(`This page is not up to date: the node answers with HTTP ${answer.status}. It is tried again.`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (who(page) !== who(document)) { seconds = 0; return warn(`This browser is logged in as ${who(page)} by now. Load the page again.`); }
      // Before what is new leaves the page that it came in.
      const [before, now] = [told(document), told(page)];
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (fresh) replace(old, fresh);
      }
      const changed = [...now].filter(([what, say]) => before.has(what) && before.get(what) !== say).map(([, say]) => say);
      if (changed.length) say(changed.slice(0, 3).join(". ") + (changed.length > 3 ? `. And ${changed.length - 3} more` : ""));
      seconds = Number(page.getElementById("main")?.dataset.refresh ?? seconds);
      offline.hidden = true;
    } catch {
      warn("This page is not up to date: the node does not answer. It is tried again.");
    } finally {
      running = false;
    }
  }

  function ended(what = "this page is not up to date any more", isElsewhere = false) {
    clearTimeout(timer);
    seconds = 0;
    const link = document.createElement("a");
    link.href = `/console/login?ended=true&next=${encodeURIComponent(location.pathname + location.search)}`;
    link.textContent = "Log in again";
    if (isElsewhere) link.target = "_blank";
    warn(`Your session has ended, and ${what}. `, link);
    if (isElsewhere) offline.scrollIntoView({ block: "nearest" });
  }

  // Who is logged in, as a page says it.
  const who = (from) => from.querySelector(".who > span")?.textContent;

  // Whether a form can be sent: by somebody without a session it would be lost, with what was typed. Its token is that of the session of now, which must be of the same account.
  async function hasSession() {
    try {
      const answer = await ask("/console/password");
      if (answer.status === 401) {
        ended("nothing was sent. Log in again in another window, and then send this once more", true);
        return false;
      }
      if (!answer.ok) {
        warn(`The node answers with HTTP ${answer.status}, and nothing was sent. Try it again.`);
        return false;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (who(page) !== who(document)) {
        warn(`This browser is logged in as ${who(page)} by now, and nothing was sent. Load the page again.`);
        return false;
      }
      const token = page.querySelector("input[name=csrf_token]")?.value;
      if (token) for (const each of document.querySelectorAll("input[name=csrf_token]")) each.value = token;
      offline.hidden = true;
      return true;
    } catch {
      warn("The node does not answer, and nothing was sent. Try it again.");
      return false;
    }
  }

  function plan() {
    clearTimeout(timer);
    if (seconds > 0) timer = setTimeout(async () => { await refresh(); plan(); }, seconds * 1000);
  }

  document.addEventListener("visibilitychange", async () => {
    if (seconds > 0 && !document.hidden) { await refresh(); plan(); }
  });
  plan();

  // What is wrong with each field, as the page of an answer says it, without what was typed.
  function mark(form, page) {
    for (const old of form.querySelectorAll(".error")) old.remove();
    for (const field of form.querySelectorAll("[id][name]")) {
      const said = page.getElementById(field.id);
      for (const name of ["aria-invalid", "aria-describedby"]) {
        if (said?.hasAttribute(name)) field.setAttribute(name, said.getAttribute(name)); else field.removeAttribute(name);
      }
      const error = page.getElementById(`${field.id}-error`);
      if (!error) continue;
      field.after(error);
      const folded = field.closest("details");
      if (folded) folded.open = true;
    }
  }

  // "Check" shows what it finds beside the form, which keeps the secret that was typed.
  for (const form of document.querySelectorAll("form[data-check]")) {
    form.addEventListener("submit", async (event) => {
      const button = event.submitter;
      if (button?.value !== "check") return;
      event.preventDefault();
      if (button.getAttribute("aria-disabled") === "true") return;
      button.setAttribute("aria-disabled", "true");
      const place = document.getElementById(form.dataset.check);
      try {
        if (!await hasSession()) return;
        say("The check has begun.");
        const sent = { method: "POST", body: new URLSearchParams(new FormData(form, button)), credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(12 * PATIENCE) };
        const answer = await fetch(form.action, sent);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const found = page.getElementById(place.id);
        if (!found) { location.assign(answer.url); return; }
        place.replaceChildren(...found.childNodes);
        mark(form, page);
        place.querySelector("[tabindex]")?.focus();
        place.scrollIntoView({ block: "nearest" });
      } catch {
        warn("The node does not answer. Nothing was done.");
      } finally {
        button.removeAttribute("aria-disabled");
      }
    });
  }

  // A form is sent once, wherever on the page it came from. After a file the page stays; and so it does where somebody stops the sending: then it can be sent again.
  const FREE = ["/console/login", "/console/logout"];
  document.addEventListener("submit", async (event) => {
    const [form, button] = [event.target, event.submitter];
    if (form.method !== "post" || FREE.includes(form.getAttribute("action"))) return;
    if (form.dataset.check && button?.value === "check") return;
    if (form.dataset.goes) { delete form.dataset.goes; return; }
    event.preventDefault();
    if (form.dataset.sent) return warn("This was sent, and the node has not answered yet.");
    form.dataset.sent = "true";
    const may = await hasSession();
    // The page may have looked again meanwhile.
    const now = form.isConnected ? form : [...document.forms].find((each) => each.action === form.action);
    if (!may || !now) { delete form.dataset.sent; return; }
    now.dataset.sent = now.dataset.goes = "true";
    now.requestSubmit(now === form ? button : undefined);
    const isFile = button?.value === "file";
    if (isFile) say("The file is being made.");
    setTimeout(() => { delete now.dataset.sent; }, isFile ? 3_000 : 4 * PATIENCE);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const form of document.forms) { delete form.dataset.sent; delete form.dataset.goes; }
  });
  addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

  // What is shown once is saved from here: it never is part of an address.
  for (const button of document.querySelectorAll("button[data-download]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([document.getElementById(button.dataset.download).value], { type: "application/x-pem-file" }));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
