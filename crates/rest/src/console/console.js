// What pages do beyond HTML: they keep themselves up to date, say what has changed, keep what was typed when a session has ended, and save what is shown once. All else works without this.
"use strict";

(() => {
  const main = document.getElementById("main");
  const news = document.getElementById("news");
  const offline = document.getElementById("offline");
  // What nobody has asked for does not keep a session alive.
  const background = { headers: { "X-Keystead-Background": "true" }, credentials: "same-origin", cache: "no-store", redirect: "error" };
  let seconds = Number(main?.dataset.refresh ?? 0);
  let timer = 0;
  let running = false;

  // What is told of, by the text before its colon: "svm1" of "svm1: blocked".
  const told = (from) => new Map([...from.querySelectorAll("[data-say]")].map((each) => [each.dataset.say.replace(/: [^:]*$/, ""), each.dataset.say]));

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
      const answer = await fetch(location.href, background);
      if (answer.status === 401) return ended();
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      // Before what is new leaves the page that it came in.
      const [before, now] = [told(document), told(page)];
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (fresh) replace(old, fresh);
      }
      const changed = [...now].filter(([what, say]) => before.has(what) && before.get(what) !== say).map(([, say]) => say);
      if (changed.length) news.textContent = changed.slice(0, 3).join(". ");
      seconds = Number(page.getElementById("main")?.dataset.refresh ?? seconds);
      offline.hidden = true;
    } catch {
      offline.textContent = "This page is not up to date: the node does not answer. It is tried again.";
      offline.hidden = false;
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
    offline.replaceChildren(`Your session has ended, and ${what}. `, link);
    offline.hidden = false;
    if (isElsewhere) offline.scrollIntoView({ block: "nearest" });
  }

  // Whether a form can be sent: by somebody without a session it would be lost, with what was typed. Its token is that of the session of now.
  async function hasSession() {
    try {
      const answer = await fetch(location.href, background);
      if (answer.status === 401) {
        ended("nothing was sent. Log in again in another window, and then send this once more", true);
        return false;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const token = page.querySelector("input[name=csrf_token]")?.value;
      if (token) for (const each of document.querySelectorAll("input[name=csrf_token]")) each.value = token;
      offline.hidden = true;
      return true;
    } catch {
      offline.textContent = "The node does not answer, and nothing was sent. Try it again.";
      offline.hidden = false;
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

  // "Check" shows what it finds beside the form, which keeps the secret that was typed.
  for (const form of document.querySelectorAll("form[data-check]")) {
    form.addEventListener("submit", async (event) => {
      const button = event.submitter;
      if (button?.value !== "check") return;
      event.preventDefault();
      button.disabled = true;
      const place = document.getElementById(form.dataset.check);
      try {
        if (!await hasSession()) return;
        const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, button)), credentials: "same-origin", cache: "no-store" });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const found = page.getElementById(place.id);
        if (!found) { location.assign(answer.url); return; }
        place.replaceChildren(...found.childNodes);
        for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
        for (const wrong of page.querySelectorAll("[aria-invalid]")) document.getElementById(wrong.id)?.setAttribute("aria-invalid", "true");
        place.querySelector("[tabindex]")?.focus();
        place.scrollIntoView({ block: "nearest" });
      } catch {
        place.textContent = "The node does not answer. Nothing was done.";
      } finally {
        button.disabled = false;
      }
    });
  }

  // A form is sent once.
  for (const form of document.querySelectorAll("form[method=post]:not([action='/console/login'])")) {
    form.addEventListener("submit", async (event) => {
      const button = event.submitter;
      if (form.dataset.check && button?.value === "check") return;
      if (form.dataset.goes) { delete form.dataset.goes; return; }
      event.preventDefault();
      if (form.dataset.sent && button?.value !== "file") return;
      form.dataset.sent = "true";
      if (await hasSession()) {
        form.dataset.goes = "true";
        form.requestSubmit(button);
      } else {
        delete form.dataset.sent;
      }
    });
  }
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
