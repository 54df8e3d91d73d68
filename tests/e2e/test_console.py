"""The console in a browser (Debian's Chromium, driven by Playwright): each task from the login to its result, what each role sees, with a keyboard alone and without a script, and what axe-core finds.

`pytest tests/e2e/test_console.py --screenshots` writes the pictures of the manual into docs/screenshots as well."""

import contextlib
import re
import time
import types

import pytest
from axe_playwright_python.sync_playwright import Axe
from kmip.core import enums
from kmip.pie.exceptions import ClientConnectionFailure
from playwright.sync_api import expect, sync_playwright

import kmip_client
import support

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SCREENSHOTS = support.TOP / "docs" / "screenshots"
# Longer than a page waits before it looks again.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scene(ministack, tmp_path_factory):
    """A node, and AWS behind a gate that holds it back."""
    folder = tmp_path_factory.mktemp("console")
    recorder = support.Recorder(folder, ministack)
    node = support.Node(folder, [recorder.ca])
    scene = types.SimpleNamespace(node=node, recorder=recorder, kms=ministack, folder=folder, base="https://127.0.0.1:%d" % node.port)
    yield scene
    recorder.gate.set()
    node.stop()
    recorder.close()


@contextlib.contextmanager
def visit(browser, scene, width=1280, scheme="light", script=True, allowed=()):
    """A browser window of its own. Whatever is asked of another host, refused by the policy or written to the console as an error fails the test; `allowed` are errors that belong to it."""
    context = browser.new_context(ignore_https_errors=True, viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script, base_url=scene.base)
    wrong = []
    context.on("request", lambda request: request.url.startswith((scene.base + "/", "blob:" + scene.base)) or wrong.append("asked elsewhere: " + request.url))
    context.on("console", lambda message: message.type == "error" and not any(re.search(one, message.text) for one in allowed) and wrong.append(message.text))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    page = context.new_page()
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert wrong == []


def login(page, name="admin", password=support.PASSWORD):
    page.goto("/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="SVMs")).to_be_visible()


def fill_enable(page, scene, key=None):
    """The form of an enabling; the endpoint is folded away."""
    page.get_by_label("Region").fill(support.REGION)
    page.get_by_label("Key", exact=True).fill(key or scene.kms.key_id)
    page.get_by_label("Access key id").fill(scene.kms.access_key_id)
    page.get_by_label("Secret access key").fill(scene.kms.secret)
    if not page.get_by_label("Host optional", exact=True).first.is_visible():
        page.get_by_text("Endpoint and its certificate").click()
    page.get_by_label("Host optional", exact=True).first.fill("127.0.0.1")
    page.get_by_label("Port optional", exact=True).first.fill(str(scene.recorder.port))


def enable_body(scene, svm, **changes):
    return scene.kms.body(svm, port=scene.recorder.port, **changes)


def of_page(page, scene):
    """The KMIP client whose certificate a page shows."""
    folder = scene.folder / "client-of-console"
    folder.mkdir()
    files = types.SimpleNamespace(cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem", config=folder / "pykmip.conf")
    for field, file in (("private_key", files.key), ("certificate", files.cert), ("ca_certificate", files.ca)):
        file.write_text(page.locator("#" + field).input_value())
    files.config.write_text("[client]\n")
    return files


def test_a_day_of_a_key_administrator(browser, scene):
    node = scene.node
    with visit(browser, scene, allowed=[r"status of 4\d\d"]) as page:
        # A wrong password is told, and what was typed stays, but for the password.
        page.goto("/")
        expect(page).to_have_url(scene.base + "/console/login")
        page.get_by_label("Name").fill("admin")
        page.get_by_label("Password").fill("not the password")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("Name or password is wrong")
        expect(page.get_by_label("Name")).to_have_value("admin")
        expect(page.get_by_label("Password")).to_have_value("")
        login(page)

        # An SVM is made, and is enabled after a check; a check that finds something in the way keeps what was typed, the secret too.
        page.get_by_role("link", name="New SVM").click()
        page.get_by_label("Name").fill("tenant1")
        page.get_by_role("button", name="Make the SVM").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("no key manager")
        page.get_by_role("link", name="Enable AWS KMS").click()
        fill_enable(page, scene, key="alias/nowhere")
        page.get_by_role("button", name="Check only").click()
        expect(page.locator("#check")).to_contain_text("describe key failed")
        expect(page.locator("#check")).to_contain_text("What to do:")
        expect(page.get_by_label("Secret access key")).to_have_value(scene.kms.secret)
        page.get_by_label("Key", exact=True).fill(scene.kms.key_id)
        page.get_by_role("button", name="Check only").click()
        expect(page.locator("#check")).to_contain_text("The check has passed.")
        page.get_by_label("Region").fill("nowhere")
        page.get_by_role("button", name="Check and enable").click()
        expect(page.locator("#f-region-error")).to_contain_text("code 262247")
        expect(page.get_by_label("Access key id")).to_have_value(scene.kms.access_key_id)
        expect(page.get_by_label("Secret access key")).to_have_value("")
        fill_enable(page, scene)
        page.get_by_role("button", name="Check and enable").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("available")
        expect(page.locator("#keks")).to_contain_text("version 1")
        expect(page.locator("#nodes")).to_contain_text("reachable")
        expect(page.locator("#audit")).to_contain_text("POST /api/security/aws-kms")

        # A certificate is made, shown once, and used.
        page.get_by_role("link", name="New client certificate").click()
        page.get_by_label("Common name").fill("array-7")
        page.get_by_role("button", name="Make and show").click()
        client = of_page(page, scene)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download key.pem").click()
        assert download.value.suggested_filename == "array-7-key.pem"
        assert open(download.value.path()).read() == client.key.read_text()
        with kmip_client.pykmip(node, client) as kmip:
            key = kmip.create(enums.CryptographicAlgorithm.AES, 256)
            assert len(kmip.get(key).value) == 32
        page.get_by_role("link", name="I have them").click()
        expect(page.get_by_text("1 × AES-256")).to_be_visible()

        # A new KEK, whose progress is seen while AWS is slow, without a reload.
        page.get_by_role("link", name="New KEK").click()
        expect(page.get_by_text("Every key of it (1 key) is wrapped again")).to_be_visible()
        scene.recorder.gate.clear()
        page.get_by_role("button", name="Make a new KEK").click()
        jobs = page.locator("#jobs")
        expect(jobs).to_contain_text("unwrapping the KEK with the customer key in use (1 of 3)")
        assert jobs.get_by_role("progressbar").first.evaluate("bar => [bar.value, bar.max]") == [0, 3]
        marked = page.evaluate("document.body.dataset.marked = 'yes'")
        scene.recorder.gate.set()
        expect(jobs.get_by_role("row", name="New version of the KEK")).to_contain_text("success")
        expect(page.locator("#keks")).to_contain_text("version 2")
        expect(page.locator("#news")).to_contain_text("New version of the KEK: success")
        assert page.evaluate("document.body.dataset.marked") == marked, "it was not loaded anew"
        with kmip_client.pykmip(node, client) as kmip:
            assert len(kmip.get(key).value) == 32

        # Another customer key, while AWS takes longer than the page waits: what has become of it appears by itself. The job can be held meanwhile.
        other = scene.kms.new_key()
        page.get_by_role("link", name="New customer key").click()
        page.get_by_label("New customer key").fill(other)
        scene.recorder.gate.clear()
        page.get_by_role("button", name="Wrap the KEK by the new key").click()
        expect(page.locator("#jobs").get_by_role("row", name="New customer key")).to_contain_text("running")
        address = page.url
        page.locator("#jobs").get_by_role("link", name="New customer key").click()
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("link", name="Let it go on").click()
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        # One that waits for it is paused, and cancelled.
        config = node.call("GET", "/security/aws-kms?svm.name=tenant1").json()["records"][0]["uuid"]
        waiting = node.call("POST", "/security/aws-kms/%s/restore" % config).json()["job"]["uuid"]
        page.goto("/console/jobs/" + waiting)
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("queued")
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("button", name="Cancel the job").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("failure")
        page.goto(address)
        marked = page.evaluate("document.body.dataset.marked = 'again'")
        scene.recorder.gate.set()
        expect(page.locator("#customer-key")).to_contain_text(other)
        expect(page.locator("#configuration")).to_contain_text(other)
        assert page.evaluate("document.body.dataset.marked") == marked, "it was not loaded anew"
        page.get_by_role("link", name="Restore").click()
        page.get_by_role("button", name="Load the KEKs").click()
        expect(page.locator("#jobs").get_by_role("row", name="Load KEKs").first).to_contain_text("success")

        # Another access key and another period; what was not changed is not sent. An access key that AWS does not know changes nothing.
        page.get_by_role("link", name="Change", exact=True).click()
        expect(page.get_by_label("Access key id")).to_have_value(scene.kms.access_key_id)
        page.get_by_text("How soon a revocation counts").click()
        page.get_by_label("Poll every").fill("17")
        page.get_by_label("Access key id").fill("AKIANOBODYKNOWSIT000")
        page.get_by_label("Secret access key").fill("of nobody, and long enough for one of AWS")
        page.get_by_role("button", name="Change", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("Nothing was changed.")
        page.get_by_label("Access key id").fill(scene.kms.access_key_id)
        page.get_by_role("button", name="Change", exact=True).click()
        expect(page.get_by_text("every 17 min")).to_be_visible()
        expect(page.locator("#audit")).to_contain_text("PATCH /api/security/aws-kms")

        # What was typed outlives the session.
        page.get_by_role("link", name="Change", exact=True).click()
        page.get_by_text("How soon a revocation counts").click()
        page.get_by_label("Poll every").fill("23")
        page.context.clear_cookies()
        page.get_by_role("button", name="Change", exact=True).click()
        expect(page.get_by_text("Your session has ended, and nothing was sent.")).to_be_visible()
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Log in again").click()
        again = opened.value
        again.get_by_label("Name").fill("admin")
        again.get_by_label("Password").fill(support.PASSWORD)
        again.get_by_role("button", name="Log in").click()
        expect(again.get_by_role("heading", level=1)).to_contain_text("Change AWS KMS of tenant1")
        again.close()
        expect(page.get_by_label("Poll every")).to_have_value("23")
        page.get_by_role("button", name="Change", exact=True).click()
        expect(page.get_by_text("every 23 min")).to_be_visible()

        # The certificate is revoked, and is good for nothing then.
        page.get_by_role("link", name="Revoke array-7").click()
        expect(page.get_by_text("gets no key of tenant1 any more")).to_be_visible()
        page.get_by_role("button", name="Revoke array-7").click()
        expect(page.locator("#list").get_by_role("row", name="array-7")).to_contain_text("revoked")
        with pytest.raises((ClientConnectionFailure, OSError)):
            with kmip_client.pykmip(node, client) as kmip:
                kmip.get(key)

        # What is gone is told as that, and not as a node that does not answer.
        passing = node.svm("passing")
        with visit(browser, scene, allowed=[r"status of 404"]) as other:
            login(other)
            other.goto("/console/svms/" + passing)
            assert node.call("DELETE", "/svm/svms/%s?return_timeout=30" % passing).status_code == 200
            look_again(other)
            expect(other.get_by_role("alert")).to_contain_text("This is not there any more")

        # It is disabled; not while keys are stored under it.
        page.goto("/console/")
        page.get_by_role("link", name="tenant1").click()
        page.get_by_role("link", name="Disable").click()
        expect(page.get_by_text("Stored under it: 1 key.")).to_be_visible()
        page.get_by_role("button", name="Disable AWS KMS").click()
        expect(page.get_by_role("alert")).to_contain_text("65537106")
        with kmip_client.pykmip(node, kmip_client.Certificate(node, "tenant1", scene.folder)) as kmip:
            kmip.destroy(key)
        page.get_by_role("button", name="Disable AWS KMS").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("no key manager")

        # The state appears by itself, whoever has changed it.
        node.enabled(enable_body(scene, "tenant1"))
        expect(page.get_by_role("heading", level=1)).to_contain_text("available")

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        page.goto("/console/jobs")
        expect(page).to_have_url(re.compile("/console/login"))


def test_accounts_and_what_they_see(browser, scene):
    node = scene.node
    with contextlib.suppress(AssertionError):
        node.svm("tenant1")
    node.svm("tenant2")
    with visit(browser, scene, allowed=[r"status of 4\d\d"]) as page:
        login(page)
        page.get_by_role("link", name="Accounts").click()
        for name, role, svm in (("reader", "readonly", ""), ("tenant", "vsadmin", "tenant1")):
            page.get_by_role("link", name="New account").click()
            page.get_by_label("Name").fill(name)
            page.get_by_label("Role").select_option(role)
            page.get_by_label("SVM").fill(svm)
            page.get_by_label("Password", exact=True).fill("short" if name == "reader" else support.PASSWORD)
            page.get_by_role("button", name="Make the account").click()
            if name == "reader":
                # What is wrong stands beside the field; the rest of what was typed stays.
                expect(page.locator("#f-password-error")).to_be_visible()
                expect(page.get_by_label("Role")).to_have_value("readonly")
                page.get_by_label("Password", exact=True).fill(support.PASSWORD)
                page.get_by_role("button", name="Make the account").click()
            expect(page.get_by_role("row", name=name)).to_contain_text(role)
        for name, sees in (("reader", ["tenant1", "tenant2"]), ("tenant", ["tenant1"])):
            with visit(browser, scene, allowed=[r"status of 4\d\d", r"ERR_INTERNET_DISCONNECTED"]) as other:
                login(other, name)
                assert other.locator("#svms tbody a").all_inner_texts() == sees
                expect(other.get_by_role("link", name="New SVM")).to_have_count(0)
                other.get_by_role("link", name="tenant1").click()
                expect(other.get_by_role("link", name="New client certificate")).to_have_count(1 if name == "tenant" else 0)
                assert other.goto("/console/accounts/new").status == 403
                # One's own password, with the one in use.
                other.goto("/console/password")
                for current, new in (("wrong", "another password"), (support.PASSWORD, "another password")):
                    other.get_by_label("Password in use").fill(current)
                    other.get_by_label("New password", exact=True).fill(new)
                    other.get_by_label("New password once more").fill(new)
                    other.get_by_role("button", name="Change the password").click()
                    if current == "wrong":
                        expect(other.locator("#f-current-error")).to_contain_text("It is wrong.")
                expect(other.get_by_role("heading", name="SVMs")).to_be_visible()
                # A page that cannot be kept up to date says so, and goes on when it can.
                if name == "reader":
                    for is_away in (True, False):
                        other.context.set_offline(is_away)
                        look_again(other)
                        expect(other.get_by_text("This page is not up to date")).to_be_visible(visible=is_away)
                # Locked, it is out with the next request.
                if name == "tenant":
                    page.get_by_role("link", name="Lock tenant").click()
                    page.get_by_role("button", name="Lock tenant").click()
                    expect(page.get_by_role("row", name="tenant vsadmin")).to_contain_text("locked")
                    look_again(other)
                    expect(other.get_by_text("this page is not up to date any more")).to_be_visible()
                    other.get_by_role("link", name="Log in again").click()
                    expect(other.get_by_text("Your session has ended")).to_be_visible()
        page.get_by_role("link", name="Password of tenant").click()
        for new, repeated in (("a third password", "another"), ("a third password", "a third password")):
            page.get_by_label("New password", exact=True).fill(new)
            page.get_by_label("New password once more").fill(repeated)
            page.get_by_role("button", name="Set the password").click()
            if repeated == "another":
                expect(page.locator("#f-repeated-error")).to_be_visible()
        expect(page.get_by_role("heading", name="Accounts")).to_be_visible()
        page.get_by_role("button", name="Unlock tenant").click()
        expect(page.get_by_role("row", name="tenant vsadmin")).to_contain_text("open")
        with visit(browser, scene) as other:
            login(other, "tenant", "a third password")
        page.get_by_role("link", name="Delete tenant").click()
        page.get_by_role("button", name="Delete tenant").click()
        expect(page.get_by_role("row", name="tenant vsadmin")).to_have_count(0)


def look_again(page):
    """Has a page look at once what is new, as when somebody comes back to it."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def focus(page, text):
    """Goes on with Tab until something with that text, or that label, has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        seen = page.evaluate("(e => [e.textContent, e.labels?.[0]?.textContent].filter(Boolean).join(' '))(document.activeElement)")
        if re.fullmatch(text, seen.strip()):
            visible = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert visible != "none", text
            return
    raise AssertionError("no way to " + text)


def test_with_a_keyboard_alone(browser, scene):
    scene.node.svm("keyboard")
    with visit(browser, scene) as page:
        page.goto("/")
        page.keyboard.type("admin")
        page.keyboard.press("Tab")
        page.keyboard.type(support.PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for link, leads_to in (("keyboard", "**/console/svms/*"), ("Enable AWS KMS", "**/enable")):
            focus(page, link)
            page.keyboard.press("Enter")
            page.wait_for_url(leads_to)
        for label, value in (("Region", support.REGION), ("Key", scene.kms.key_id), ("Access key id", scene.kms.access_key_id), ("Secret access key", scene.kms.secret)):
            focus(page, label)
            page.keyboard.type(value)
        focus(page, "Endpoint and its certificate")
        page.keyboard.press("Enter")
        for label, value in (("Host optional", "127.0.0.1"), ("Port optional", str(scene.recorder.port))):
            focus(page, label)
            page.keyboard.type(value)
        focus(page, "Check only")
        page.keyboard.press("Enter")
        expect(page.locator("#check")).to_contain_text("The check has passed.")
        focus(page, "Check and enable")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("available")


def test_without_a_script(browser, scene):
    scene.node.svm("scriptless")
    with visit(browser, scene, script=False) as page:
        login(page)
        page.get_by_role("link", name="scriptless").click()
        page.get_by_role("link", name="Enable AWS KMS").click()
        fill_enable(page, scene)
        page.get_by_role("button", name="Check only").click()
        expect(page.locator("#check")).to_contain_text("The check has passed.")
        expect(page.get_by_label("Host optional", exact=True).first).to_have_value("127.0.0.1")
        page.get_by_label("Secret access key").fill(scene.kms.secret)
        page.get_by_role("button", name="Check and enable").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("available")
        page.get_by_role("link", name="New client certificate").click()
        page.get_by_label("Common name").fill("host-1")
        with page.expect_download() as download:
            page.get_by_role("button", name="Make and download").click()
        assert download.value.suggested_filename == "host-1.pem"
        assert open(download.value.path()).read().count("-----BEGIN ") == 3


def test_axe_finds_nothing_in_both_schemes_at_both_widths(browser, scene, pytestconfig):
    node = scene.node
    node.svm("an-svm-whose-name-has-as-many-letters-as-it-may")
    uuid = node.svm("axe")
    node.enabled(enable_body(scene, "axe"))
    client = kmip_client.Certificate(node, "axe", scene.folder)
    job = node.call("GET", "/cluster/jobs?svm.name=axe").json()["records"][0]["uuid"]
    owner = node.call("GET", "/security/accounts?name=admin").json()["records"][0]["owner"]["uuid"]
    svm = "svms/" + uuid
    pages = ["", "?state=none", "svms/new", svm + "?check=true", svm + "/rekey-internal", svm + "/rekey-external", svm + "/change", svm + "/restore", svm + "/disable", svm + "/clients", svm + "/clients/new", "%s/clients/%s/revoke" % (svm, client.uuid),
             "svms/%s/enable" % node.call("GET", "/svm/svms?name=an-svm*").json()["records"][0]["uuid"], "jobs", "jobs/" + job, "jobs/%s/cancel" % job, "accounts/%s/admin/password" % owner, "events", "audit", "nodes", "accounts", "accounts/new", "accounts/%s/admin/lock" % owner, "password", "nonsense"]
    axe, found = Axe(), []

    def look(page, what):
        found = []
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "dark"), (360, "light")):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=scheme)
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                found.append("%s at %d: %d pixels too wide" % (what, width, wide))
            for violation in axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]:
                found.append("%s at %d, %s: %s: %s" % (what, width, scheme, violation["id"], [node["html"][:200] for node in violation["nodes"][:3]]))
        return found

    with visit(browser, scene, allowed=[r"status of 404", r"status of 409"]) as page:
        page.goto("/console/login")
        found += look(page, "login")
        login(page)
        for path in pages:
            page.goto("/console/" + path)
            # What is folded away is looked at too.
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            found += look(page, path)
        page.goto("/console/svms/new")
        page.get_by_label("Name").fill("axe")
        page.get_by_role("button", name="Make the SVM").click()
        found += look(page, "a form with an error")
        assert found == []
        # What is wrong would be found.
        page.evaluate("""() => { const image = document.createElement("img"); image.width = 2000; document.getElementById("main").append(image); }""")
        found = " ".join(look(page, "an image"))
        assert "image-alt" in found and "an image at 360" in found and "too wide" in found
    if pytestconfig.getoption("--screenshots"):
        pictures(browser, scene)


def pictures(browser, scene):
    """The pictures of the manual, of SVMs that are made for them: three in use, one of them refused by its tenant."""
    node = scene.node
    for record in node.call("GET", "/security/aws-kms").json()["records"]:
        node.call("DELETE", "/security/aws-kms/%s?return_timeout=30" % record["uuid"])
    for record in node.call("GET", "/svm/svms").json()["records"]:
        node.call("DELETE", "/svm/svms/%s?return_timeout=30" % record["uuid"])
    blocked = node.svm("accounting")
    for name, comment in {"archive": "cold data", "databases": "PostgreSQL, MongoDB", "vmware-prod": "vSphere, cluster 2"}.items():
        node.call("PATCH", "/svm/svms/%s?return_timeout=10" % node.svm(name), {"comment": comment})
    main = node.enabled(enable_body(scene, "vmware-prod", encryption_context="tenant=vmware-prod"))
    with kmip_client.pykmip(node, kmip_client.Certificate(node, "vmware-prod", scene.folder)) as kmip:
        for bits in (256, 256, 256, 128):
            kmip.create(enums.CryptographicAlgorithm.AES, bits)
    assert node.call("POST", main + "/rekey-internal?return_timeout=30").status_code == 201
    node.enabled(enable_body(scene, "databases"))
    revoked = scene.kms.new_key()
    node.enabled(enable_body(scene, "accounting", key_id=revoked, polling_period=1, keystead={"access_error_grace": "0s"}))
    scene.kms.client("kms").disable_key(KeyId=revoked)
    deadline = time.monotonic() + 150
    while node.call("GET", "/svm/svms/%s?fields=keystead.state" % blocked).json()["keystead"]["state"] != "blocked":
        assert time.monotonic() < deadline, "the key is not refused"
        time.sleep(1)
    svm = node.call("GET", "/svm/svms?name=vmware-prod").json()["records"][0]["uuid"]
    empty = node.call("GET", "/svm/svms?name=archive").json()["records"][0]["uuid"]
    for name, path, width, height, scheme in (
            ("overview", "", 1280, 620, "light"), ("overview-dark", "", 1280, 620, "dark"), ("svm", "svms/" + svm, 1280, 1500, "light"), ("enable", "svms/%s/enable" % empty, 1280, 1000, "light"),
            ("svm-narrow", "svms/" + svm, 360, 900, "light")):
        with visit(browser, scene, width=width, scheme=scheme) as page:
            page.set_viewport_size({"width": width, "height": height})
            login(page)
            page.goto("/console/" + path)
            if name == "enable":
                fill_enable(page, scene)
                page.get_by_role("button", name="Check only").click()
                expect(page.locator("#check")).to_contain_text("The check has passed.")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            page.evaluate("scrollTo(0, 0)")
            SCREENSHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SCREENSHOTS / (name + ".png"))
