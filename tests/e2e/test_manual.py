"""The manual: every command in it runs, in the order of its page, with the real program, the emulator, etcd and PyKMIP; every link leads somewhere; and its tables are those of the program."""

import json
import os
import re
import shutil
import subprocess

import pytest

import kmip_client
import pykmip_server
import support
from manual_scene import MANUAL, Scene, blocks, here

# The commands of these run elsewhere: beside what else is tested there.
ELSEWHERE = {"command-line.md": "crates/keystead/tests", "console.md": "tests/e2e/test_console.py"}
EXAMPLES = support.TOP / "examples" / "prometheus"


@pytest.fixture
def scene(tmp_path, ministack):
    folder = tmp_path / "scene"
    folder.mkdir()
    scene = Scene(folder, ministack)
    yield scene
    scene.end()


@pytest.fixture
def node(start_node, ministack):
    return start_node(ministack.ca)


def test_backup(scene, node, ministack, tmp_path):
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
    with kmip_client.pykmip(node, kmip_client.Certificate(node, "svm1", tmp_path)) as client:
        client.create(kmip_client.enums.CryptographicAlgorithm.AES, 256)
    # The last block is for a machine with the package, whose service has been started by mistake.
    new = scene.machine("new").settings(ministack)
    scene.shell(scene.on("new", "systemctl start keystead\n"))
    said = scene.node(node).run("backup.md")
    assert said.count("everything in it can be recovered") == 2 and said.count("records restored") == 2, said
    assert new.file("/etc/keystead/seal.key").read_text() == (node.folder / "data" / "seal.key").read_text()


def test_revocation(scene, node, ministack):
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
    scene.node(node).run("revocation.md")
    config = node.call("GET", "/security/aws-kms?svm.name=svm1&fields=polling_period,keystead.max_unverified,keystead.access_error_grace").json()["records"][0]
    assert config["polling_period"] == 1 and config["keystead"]["max_unverified"] and config["keystead"]["access_error_grace"], config


def test_moving_in(scene, node, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    source = pykmip_server.Server(folder)
    try:
        old = scene.folder / "old"
        old.mkdir()
        for name, path in [("ca.pem", source.pki.ca), ("client.pem", source.client_cert), ("client.key", source.client_key)]:
            shutil.copy(path, old / name)
        with source.client() as client:
            client.create(kmip_client.enums.CryptographicAlgorithm.AES, 256, name="old volume")
        scene.replace("old-kmip.example.com:5696", source.address)
        scene.node(node).run("moving-in.md")
        assert '"moved": 1' in re.sub(r"\s+", " ", (scene.folder / "moved.json").read_text())
    finally:
        source.stop()


def test_settings_and_events(scene, node):
    said = scene.node(node).run("settings.md")
    assert '"min_poll_interval":"30s"' in scene.shell(blocks("settings.md")[0]).replace(" ", ""), said
    said = scene.run("events.md")
    catalogue = {record["name"]: record["severity"] for record in node.call("GET", "/support/ems/messages?fields=*").json()["records"]}
    written = dict(re.findall(r"^\| `([\w.]+)` \| (\w+) \|", (MANUAL / "events.md").read_text(), re.MULTILINE))
    assert written == catalogue


def test_metrics(scene, node):
    answer = node.call("POST", "/security/accounts", {"name": "prometheus", "password": support.PASSWORD, "role": {"name": "readonly"}})
    assert answer.status_code == 201, answer.text
    scene.file("prometheus.password", support.PASSWORD + "\n")
    shutil.copy(node.ca, scene.folder / "ca.pem")
    scene.replace("node1.example.com:8443", "localhost:%d" % node.port)
    assert "keystead_build_info{" in scene.run("metrics.md")


def test_watching(scene, ministack):
    [settings] = blocks("watching.md", "toml")
    machine = scene.machine("node1")
    shutil.copy(ministack.ca, machine.file("/etc/keystead/collector-ca.pem"))
    machine.settings(ministack, settings.replace("collector.example.com:6514", "localhost:%d" % support.free_port()))
    scene.shell(scene.on("node1", "systemctl start keystead\nkeystead backup keygen --out identity > recipient\n"))
    said = scene.log_in(machine.port, machine.file("/var/lib/keystead/ca.pem")).run("watching.md")
    assert "the chain is whole" in said, said
    [backup] = machine.file("/var/backups/keystead/x").parent.glob("*.backup")
    assert "can be recovered" in scene.shell("keystead backup verify %s --identity-file identity" % backup)


def test_tasks(scene, ministack, tmp_path):
    machine = scene.machine("node1").settings(ministack)
    scene.shell(scene.on("node1", "systemctl start keystead\n"))
    scene.log_in(machine.port, machine.file("/var/lib/keystead/ca.pem"))
    scene.replace("alias/tenant1-new", ministack.new_key())
    second = ministack.client("iam").create_access_key(UserName="keystead")["AccessKey"]
    scene.replace("AKIAI44QH8DHBEXAMPLE", second["AccessKeyId"])
    scene.file("new-secret", second["SecretAccessKey"] + "\n")
    scene.replace('hostname="keystead1.example.com", port=5696', 'hostname="localhost", port=%d' % machine.ekmip_port)
    # The list that is set here must still let the emulator through.
    scene.replace('"10.1.2.3:443"', '"127.0.0.0/8"')
    scene.replace("vpce-0a1b2c3d.kms.us-east-1.vpce.amazonaws.com", "127.0.0.1")
    shutil.copy(ministack.ca, scene.folder / "endpoint-ca.pem")
    shutil.copy(support.Certificates(tmp_path, "tenant").ca, scene.folder / "tenant-ca.pem")
    operator = support.Certificates(tmp_path, "automation", names=())
    for old, new in [(operator.ca, "operators-ca.pem"), (operator.cert, "automation.pem"), (operator.key, "automation.key")]:
        shutil.copy(old, scene.folder / new)
    (scene.folder / "automation.key").chmod(0o600)
    scene.file("proxy-password", "proxy-secret\n")
    with support.tinyproxy(tmp_path, "keystead", "proxy-secret") as (proxy, access):
        scene.replace("--proxy-host proxy.example.com --proxy-port 3128", "--proxy-host 127.0.0.1 --proxy-port %d" % proxy)
        said = scene.run("tasks.md")
        assert "CONNECT" in access.read_text()
    assert "32 bytes" in said and "the SVM svm1 is deleted" in said, said


def etcd(folder, ca):
    """An etcd of one member that wants client certificates."""
    client, peer = support.free_ports(2)
    server = support.Certificates(folder, "etcd", authority=ca)
    url = "https://127.0.0.1:%d" % client
    files = ["--trusted-ca-file", ca.ca, "--cert-file", server.cert, "--key-file", server.key]
    process = support.Process("etcd", [
        "etcd", "--data-dir", folder / "etcd", "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", "http://127.0.0.1:%d" % peer,
        "--initial-advertise-peer-urls", "http://127.0.0.1:%d" % peer, "--initial-cluster", "default=http://127.0.0.1:%d" % peer, "--client-cert-auth", "--logger", "zap", *files], folder)
    support.wait_until("etcd", lambda: support.accepts(client), process.child, process.log)
    return process, url


def test_nodes(scene, ministack, tmp_path):
    ca = support.Certificates(tmp_path, "etcd-clients")
    client, following = [support.Certificates(tmp_path, name, names=(), authority=ca) for name in ("client", "next-client")]
    member, url = etcd(tmp_path, ca)
    try:
        first, second, third = [scene.machine(name) for name in ("node1", "node2", "node3")]
        for path, name in [(ca.ca, "etcd-ca.pem"), (client.cert, "etcd-client.pem"), (client.key, "etcd-client.key")]:
            shutil.copy(path, first.file("/etc/keystead/" + name))
            first.file("/etc/keystead/" + name).chmod(0o600)
        first.settings(ministack, """
            [store]
            backend = "etcd"
            endpoints = ["%s"]
            ca = "/etc/keystead/etcd-ca.pem"
            certificate = "/etc/keystead/etcd-client.pem"
            key = "/etc/keystead/etcd-client.key"
            """ % url)
        second.settings(ministack)
        third.settings(ministack)
        shutil.copy(following.cert, scene.folder / "next-client.pem")
        shutil.copy(following.key, scene.folder / "next-client.key")
        # A cluster of two nodes, with a tenant.
        place = "--data-dir /var/lib/keystead --config /etc/keystead/keystead.toml --passphrase-file passphrase\n"
        scene.shell(
            scene.on("node1", "systemctl start keystead\nkeystead cluster invite --out node3.invitation " + place)
            + scene.on("node3", "rm /etc/keystead/seal.key\nkeystead cluster join node3.invitation %ssystemctl start keystead\n" % place))
        scene.log_in(first.port, first.file("/var/lib/keystead/ca.pem")).shell(scene.as_here(
            "keystead vserver create --vserver svm1\n"
            "keystead security key-manager external aws enable --vserver svm1 --region us-east-1 --key-id alias/tenant1 --access-key-id AKIAIOSFODNN7EXAMPLE --secret-access-key-file secret\n"))
        said = scene.run("nodes.md")
    finally:
        member.stop()
    assert "the node node2 is no node of the cluster any more" in said and "Vserver svm1: passed" in said, said
    assert not second.file("/var/lib/keystead/x").parent.joinpath("node-uuid").exists()
    keys = [machine.file("/etc/keystead/seal.key").read_text() for machine in (first, third)]
    assert keys[0] == keys[1] and keys[0].count("\n") == 1


def test_a_first_hour(scene, ministack):
    """From the package, which is unpacked into the folder of the machine."""
    package = subprocess.run([support.TOP / "scripts/deb"], env={**os.environ, "KEYSTEAD_PROGRAM": str(support.program()), "COMPRESSION": "none"}, capture_output=True, text=True, timeout=300)
    assert package.returncode == 0, package.stderr
    package = support.TOP / package.stdout.split()[-1]
    shutil.copy(package, scene.folder / package.name)
    machine = scene.machine("node1")
    for file in ("usr/bin/keystead", "usr/lib/systemd/system/keystead.service", "etc/keystead/seal.key"):
        (machine.root / file).unlink()
    (scene.bin / "keystead").unlink()
    scene.variables["PATH"] = "%s/usr/bin:%s" % (machine.root, scene.variables["PATH"])
    # The settings of the page, with ports that are free, and a CA that vouches for the emulator.
    [settings] = blocks("first-hour.md", "toml")
    settings = settings.replace("0.0.0.0:8443", "127.0.0.1:%d" % machine.port).replace("0.0.0.0:5696", "127.0.0.1:%d" % machine.ekmip_port)
    scene.file("settings", here(settings, machine.root) + '[aws_kms]\nallow_endpoints = ["127.0.0.0/8"]\nextra_ca = "%s"\n' % ministack.ca)
    scene.command("apt", """
        test "$1 $2" = "install ./keystead.deb"
        dpkg-deb --extract "$2" %(root)s
        od -An -tx1 -N32 /dev/urandom | tr -d ' \\n' > %(root)s/etc/keystead/seal.key
        chmod 600 %(root)s/etc/keystead/seal.key
        cp settings %(root)s/etc/keystead/keystead.toml
        """ % {"root": machine.root})
    (scene.folder / "pykmip.conf").write_text("[client]\n")
    scene.replace(":8443", ":%d" % machine.port)
    scene.replace("port=5696", "port=%d" % machine.ekmip_port)
    said = scene.run("first-hour.md")
    assert "32 bytes" in said and "everything in it can be recovered" in said, said
    # What is shipped leads to what is shipped.
    shipped = machine.root / "usr/share/doc/keystead"
    assert broken_links(shipped) == [], "\n".join(broken_links(shipped))


def test_every_page_with_commands_has_a_test():
    mine = (support.TOP / "tests/e2e/test_manual.py").read_text()
    for page in MANUAL.glob("*.md"):
        if blocks(page.name):
            where = ELSEWHERE.get(page.name)
            files = [support.TOP / where] if where and where.endswith(".py") else list((support.TOP / where).glob("*.rs")) if where else []
            assert '.run("%s"' % page.name in mine or any(page.name in file.read_text() for file in files), "the commands of %s are run by no test" % page.name


def refused(settings):
    """What the program says of a configuration file that it does not take."""
    done = subprocess.run([support.program(), "serve", "--config", "/dev/stdin"], input=settings, capture_output=True, text=True, timeout=30, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 1, done
    return done.stderr


def keys_of_the_manual():
    """The keys of settings.md, by section, and those that are marked as the cluster's."""
    sections, cluster = {}, set()
    text = (MANUAL / "settings.md").read_text()
    for part in re.split(r"^### ", text[text.index("### Top of the file"):text.index("## Of each SVM")], flags=re.MULTILINE)[1:]:
        section = "" if part.startswith("Top") else re.match(r"`\[([\w.]+)\]`", part).group(1)
        # A key may have a second name.
        rows = re.findall(r"^\| ((?:(?:, )?`\w+`)+)( [∀↻])? \| .* \| .* \| .+ \|$", part, re.MULTILINE)
        rows = [(name, mark) for names, mark in rows for name in re.findall(r"\w+", names)]
        sections[section] = [name for name, _ in rows]
        cluster |= {"%s.%s" % (section, name) for name, mark in rows if mark == " ∀"}
    return sections, cluster


def members(schema):
    """The members of a schema of the OpenAPI document, by their dotted names."""
    for name, inner in schema["properties"].items():
        if inner.get("properties"):
            yield from ("%s.%s" % (name, one) for one in members(inner))
        elif name != "_links":
            yield name


def test_settings_are_those_of_the_program():
    """A key that is not known is refused with the names of those that are."""
    sections, cluster = keys_of_the_manual()
    for section, keys in sections.items():
        why = refused(("[%s]\n" % section if section else "") + "nonsense = 1\n")
        known = set(re.findall(r"`(\w+)`", why)) - {"nonsense"}
        inner = {name.partition(".")[2] if section else name.partition(".")[0] for name in sections if name.startswith(section + "." if section else "")} - {""}
        assert set(keys) == known - inner, "[%s]: %s" % (section, why)
        assert len(keys) == len(set(keys))
    schemas = json.loads((support.TOP / "docs/openapi.json").read_text())["components"]["schemas"]
    assert cluster == set(members(schemas["ekmip_settings"]))
    text = (MANUAL / "settings.md").read_text()
    written = set(re.findall(r"^\| `([\w.]+)` \|", text[text.index("## Of each SVM"):], re.MULTILINE))
    shown = {"state", "amazon_reachability", "ekmip_reachability", "scope", "svm", "uuid", "keystead.bound", "keystead.check", "keystead.nodes"}
    assert written == {name for name in members(schemas["aws_kms_post"]) if name not in shown and name.partition(".")[0] not in shown}


def test_flags_are_those_of_the_program():
    text = (MANUAL / "settings.md").read_text()
    written = set(re.findall(r"`(--[a-z-]+|KEYSTEAD_\w+)`", text[text.index("## Flags"):text.index("## The configuration file")]))
    help_text = subprocess.run([support.program(), "serve", "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    known = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+) <", help_text, re.MULTILINE)) | set(re.findall(r"\[env: (KEYSTEAD_\w+)=", help_text))
    assert written == known | {"KEYSTEAD_ADMIN_PASSWORD"}


def test_every_alert_has_its_scenario():
    alerts = {name.removeprefix("Keystead") for name in re.findall(r"- alert: (\w+)", (EXAMPLES / "keystead.rules.yml").read_text())}
    named = {}
    for page in ("failure-scenarios.md", "metrics.md", "watching.md"):
        last = re.findall(r"^\|.*\| ([A-Z]\w+(?:, [A-Z]\w+)*) \|$", (MANUAL / page).read_text(), re.MULTILINE)
        named[page] = {one for cell in last for one in cell.split(", ")}
        assert named[page] <= alerts, "%s: %s" % (page, named[page] - alerts)
    assert named["failure-scenarios.md"] == alerts
    assert named["metrics.md"] | {"ScrapeFails"} == alerts


def anchor(heading):
    """As GitHub names it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(top):
    pages = [top / name for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]] + list((top / "docs").rglob("*.md"))
    broken = []
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:|mailto:", link):
                continue
            path, _, fragment = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append("%s: %s" % (page.relative_to(top), link))
            elif fragment and fragment not in {anchor(heading) for heading in re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)}:
                broken.append("%s: %s, which has no such heading" % (page.relative_to(top), link))
    return broken


def test_links_lead_somewhere():
    assert broken_links(support.TOP) == [], "\n".join(broken_links(support.TOP))


def test_kmip_results_are_those_of_the_program():
    """The codes that become a Result Reason of their own are named in its row."""
    numbers = dict(re.findall(r"^    (\w+) = (\d+),", (support.TOP / "crates/manager/src/error.rs").read_text(), re.MULTILINE))
    source = (support.TOP / "crates/ekmip/src/reason.rs").read_text()
    page = (MANUAL / "errors.md").read_text()
    arms = re.findall(r"((?:Code::\w+(?: \| )?)+) => \{?\s*ResultReason::(\w+)", source)
    assert {reason for _, reason in arms} == {"PermissionDenied", "CryptographicFailure"}
    for codes, reason in arms:
        row = re.search(r"^\| %s \|.*$" % re.sub(r"(?<!^)(?=[A-Z])", " ", reason), page, re.MULTILINE).group()
        # An account's rights are no matter of a KMIP client.
        missing = [code for code in re.findall(r"Code::(\w+)", codes) if code != "PermissionDenied" and not re.search(r"\b%s\b" % numbers[code], row)]
        assert missing == [], (reason, missing)
