"""The Debian package: what is in it, that it installs as Debian wants it, that systemd takes its unit, and that the program runs from it under the unit's settings.

How it fares under a systemd that runs is in test_systemd.py.
"""

import os
import re
import socket
import subprocess

import pytest

import support


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package():
    """The package, of the program that the other tests run."""
    return support.package()


@pytest.fixture(scope="module")
def root(package, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    run("dpkg-deb", "--extract", package, root)
    return root


def test_it_has_what_an_operator_looks_for(package, root):
    for path in [
        "usr/bin/keystead",
        "usr/lib/systemd/system/keystead.service",
        "etc/keystead/keystead.toml",
        "usr/share/man/man1/keystead.1.gz",
        "usr/share/bash-completion/completions/keystead",
        "usr/share/zsh/vendor-completions/_keystead",
        "usr/share/fish/vendor_completions.d/keystead.fish",
        "usr/share/doc/keystead/copyright",
    ]:
        assert (root / path).is_file(), path
    fields = run("dpkg-deb", "--field", package)
    version = run(root / "usr/bin/keystead", "--version").split()[1]
    assert f"Version: {version}\n" in fields and re.search(r"Depends: libc6 \(>= 2\.\d+\)", fields), fields
    listed = run("dpkg-deb", "--contents", package)
    assert all(line.split()[1] == "root/root" for line in listed.splitlines()), listed
    for script in ["postinst", "prerm", "postrm"]:
        text = run("dpkg-deb", "--info", package, script)
        assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0, script


def test_it_installs_and_keeps_the_keys_when_it_is_taken_away(package, tmp_path):
    """In a place of its own, with the scripts' commands looked at: this machine gets no user and no service."""
    root, log = tmp_path / "root", tmp_path / "log"
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ["adduser", "systemctl"]:
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n')
        (commands / name).chmod(0o755)
    run("dpkg-deb", "--extract", package, root)
    run("dpkg-deb", "--control", package, tmp_path / "control")

    def script(name, *arguments):
        text = (tmp_path / "control" / name).read_text().replace("/etc/keystead", f"{root}/etc/keystead").replace("/var/lib/keystead", f"{root}/var/lib/keystead")
        return run("sh", "-c", text, name, *arguments, env={"PATH": f"{commands}:{os.environ['PATH']}"})

    script("postinst", "configure", "")
    key = root / "etc/keystead/seal.key"
    text = key.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}\n", text) and key.stat().st_mode & 0o777 == 0o600
    assert "--system --group" in log.read_text()
    script("postinst", "configure", "0.0.1")
    assert key.read_text() == text, "an upgrade leaves the seal key alone"
    script("prerm", "remove")
    assert "stays" in script("postrm", "purge") and key.read_text() == text


def test_systemd_takes_the_unit(root, tmp_path):
    unit = root / "usr/lib/systemd/system/keystead.service"
    # It names the program by its place on the machine, where it is not installed.
    here = tmp_path / "keystead.service"
    here.write_text(unit.read_text().replace("/usr/bin/keystead", str(root / "usr/bin/keystead")))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True, timeout=60)
    complaints = [line for line in verified.stderr.splitlines() if "keystead.service" in line]
    assert complaints == [], verified.stderr
    broken = tmp_path / "broken.service"
    broken.write_text(here.read_text().replace("ProtectSystem=strict", "ProtectSystem=rather"))
    assert "protect system" in subprocess.run(["systemd-analyze", "verify", "--man=no", broken], capture_output=True, text=True, timeout=60).stderr
    report = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    exposure = float(re.search(r"Overall exposure level for keystead\.service: ([\d.]+)", report).group(1))
    assert exposure < 2.0, report


def test_the_program_says_when_it_is_ready(root, tmp_path):
    """As the unit starts it: the seal key is a credential, and readiness is waited for."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "seal.key").write_text("5a" * 32 + "\n")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(60)
    settings = (root / "etc/keystead/keystead.toml").read_text().replace(":8443", ":0").replace(":5696", ":0")
    (tmp_path / "keystead.toml").write_text(settings)
    surroundings = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(tmp_path / "notify"), "CREDENTIALS_DIRECTORY": str(credentials)}
    program = subprocess.Popen(
        [root / "usr/bin/keystead", "serve", "--config", tmp_path / "keystead.toml", "--data-dir", tmp_path / "data"],
        env=surroundings,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert b"READY=1" in notify.recv(4096)
        program.terminate()
        assert b"STOPPING=1" in notify.recv(4096)
        assert program.wait(60) == 0
    finally:
        program.kill()
        said = program.stderr.read()
    assert not (tmp_path / "data" / "seal.key").exists(), said


def test_the_journal_gets_entries_with_their_fields(root, tmp_path):
    said = run("unshare", "--mount", support.TOP / ".venv/bin/python", support.TOP / "tests/e2e/journal.py", root / "usr/bin/keystead", tmp_path)
    [entry] = [line for line in said.splitlines() if "are served" in line]
    assert "'PRIORITY': '5'" in entry and "'F_NODE'" in entry and "'SYSLOG_IDENTIFIER': 'keystead'" in entry, said
    assert "lines: 0" in said, said
