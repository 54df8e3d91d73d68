"""The manual: every command in it runs, in the order of its page, with the real program, the emulator and PyKMIP; and every link leads somewhere."""

import os
import re
import shutil
import subprocess
import textwrap

import pytest

import kmip_client
import pykmip_server
import support

MANUAL = support.TOP / "docs" / "manual"
# The commands of these run elsewhere: beside what else is tested there.
ELSEWHERE = {"first-hour.md": "tests/e2e/test_systemd.py", "command-line.md": "crates/keystead/tests", "metrics.md": "tests/e2e/test_metrics.py", "console.md": "tests/e2e/test_console.py"}


def blocks(page, kind="sh"):
    """The blocks of a page of one kind, in their order."""
    found = re.findall(r"^( *)```%s\n(.*?)^ *```$" % kind, (MANUAL / page).read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(indent + text if not text.startswith(indent) else text) for indent, text in found]


class Scene:
    """A folder in which commands run as a person would type them."""

    def __init__(self, folder, kms):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        (self.bin / "keystead").symlink_to(support.program())
        self.command("python3", 'exec "%s" "$@"\n' % (support.TOP / ".venv/bin/python"))
        (folder / "secret").write_text(kms.secret + "\n")
        (folder / "passphrase").write_text("a passphrase for the manual\n")
        self.variables = {
            "PATH": "%s:%s" % (self.bin, os.environ["PATH"]), "HOME": str(folder), "KEY": kms.key_id, "AWS_ACCESS_KEY_ID": kms.access_key_id, "AWS_HOST": "127.0.0.1",
            "AWS_PORT": str(kms.port)}

    def node(self, node):
        password = self.folder / "node-password"
        password.write_text(support.PASSWORD + "\n")
        self.variables.update(
            KEYSTEAD_ENDPOINT="127.0.0.1:%d" % node.port, KEYSTEAD_CA=str(node.ca), KEYSTEAD_PASSWORD_FILE=str(password), DATA=str(node.folder / "data"), CONFIG=str(node.config),
            EKMIP="127.0.0.1:%d" % node.ekmip_port)
        return self

    def command(self, name, text):
        (self.bin / name).write_text("#!/bin/bash\nset -e\n" + textwrap.dedent(text))
        (self.bin / name).chmod(0o755)

    def run(self, page, change=lambda text: text):
        """All blocks of a page, in one shell. What it prints is given back."""
        text = change("\n".join(blocks(page)))
        assert text.strip(), "%s has no commands" % page
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, "%s\n%s\n%s" % (text, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def scene(tmp_path, ministack):
    folder = tmp_path / "scene"
    folder.mkdir()
    return Scene(folder, ministack)


@pytest.fixture
def node(start_node, ministack):
    return start_node(ministack.ca)


def test_backup(scene, node, ministack, tmp_path):
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
    with kmip_client.pykmip(node, kmip_client.Certificate(node, "svm1", tmp_path)) as client:
        client.create(kmip_client.enums.CryptographicAlgorithm.AES, 256)
    said = scene.node(node).run("backup.md")
    assert said.count("everything in it can be recovered") == 2 and "records restored" in said, said


def test_revocation(scene, node, ministack):
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
    scene.node(node).run("revocation.md")
    config = node.call("GET", "/security/aws-kms?svm.name=svm1&fields=polling_period,keystead.max_unverified,keystead.access_error_grace").json()["records"][0]
    assert config["polling_period"] == 1 and config["keystead"]["max_unverified"] and config["keystead"]["access_error_grace"], config


def test_moving_in(scene, node, ministack, tmp_path):
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
        scene.node(node).variables["SOURCE"] = source.address
        scene.run("moving-in.md")
        assert '"moved": 1' in re.sub(r"\s+", " ", (scene.folder / "moved.json").read_text())
    finally:
        source.stop()


def test_every_page_with_commands_has_a_test():
    mine = (support.TOP / "tests/e2e/test_manual.py").read_text()
    for page in MANUAL.glob("*.md"):
        if blocks(page.name):
            where = ELSEWHERE.get(page.name)
            files = [support.TOP / where] if where and where.endswith(".py") else list((support.TOP / where).glob("*.rs")) if where else []
            assert '.run("%s"' % page.name in mine or any(page.name in file.read_text() for file in files), "the commands of %s are run by no test" % page.name


def anchor(heading):
    """As GitHub names it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_links_lead_somewhere():
    pages = [support.TOP / name for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]] + list((support.TOP / "docs").rglob("*.md"))
    broken = []
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:|mailto:", link):
                continue
            path, _, fragment = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append("%s: %s" % (page.relative_to(support.TOP), link))
            elif fragment and fragment not in {anchor(heading) for heading in re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)}:
                broken.append("%s: %s, which has no such heading" % (page.relative_to(support.TOP), link))
    assert broken == [], "\n".join(broken)
