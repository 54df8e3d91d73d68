"""The Debian package under a systemd of its own: a small Debian is booted (systemd-nspawn), apt installs the package in it, and the service goes through an operator's life, with the emulator as AWS and PyKMIP as storage.

The machine shares this one's network, so that emulator and clients need not be in it; ports are free ones. The tests follow on each other, in their order.
"""

import contextlib
import json
import re
import shutil
import socket
import ssl
import types

import pytest
from cryptography import x509

import apart
import kmip_client
import manual_scene
import support

SETTINGS, STATE, SEAL_KEY = "etc/keystead/keystead.toml", "var/lib/keystead", "etc/keystead/seal.key"


class Service(support.Node):
    """The node that systemd runs in the machine."""

    def __init__(self, machine, folder, kms):
        self.machine, self.folder, self.kms = machine, folder, kms
        self.port, self.ekmip_port = support.free_ports(2)
        self.ca_file, self.password = folder / "ca.pem", ""
        shutil.copy(support.package(), machine.root / "mnt/keystead.deb")

    @property
    def ca(self):
        return self.ca_file

    def session(self):
        session = super().session()
        session.auth = ("admin", self.password)
        return session

    def write_settings(self, file, more=""):
        """The settings of the manual's page, on loopback and with ports that are free, and a CA that vouches for the emulator."""
        [settings] = manual_scene.blocks("first-hour.md", "toml")
        settings = settings.replace("0.0.0.0:8443", "127.0.0.1:%d" % self.port).replace("0.0.0.0:5696", "127.0.0.1:%d" % self.ekmip_port)
        ca = self.machine.root / "etc/aws-ca.pem"
        ca.write_bytes(self.kms.ca.read_bytes())
        ca.chmod(0o644)
        aws = '[aws_kms]\nallow_endpoints = ["127.0.0.0/8"]\nmin_poll_interval = "5s"\nextra_ca = "/etc/aws-ca.pem"\n'
        file.write_text(settings + aws + more)

    def configure(self, more=""):
        self.write_settings(self.machine.root / SETTINGS, more)

    def systemctl(self, *words):
        return self.machine.run("systemctl", *words)

    def shows(self, name):
        return self.systemctl("show", "--value", "--property", name, "keystead").strip()

    def state(self):
        return self.machine.try_run("systemctl", "is-active", "keystead").stdout.strip()

    def enters(self, *command):
        """A command in the machine that sees files as the service does."""
        return self.machine.try_run("nsenter", "--target", self.shows("MainPID"), "--mount", *command)

    def process(self):
        """The folder in /proc of the service's process."""
        return self.machine.root / "proc" / self.shows("MainPID")

    def journal(self):
        """The entries of the service and about it, in their order."""
        lines = self.machine.run("journalctl", "--unit", "keystead", "--output", "json", "--quiet").splitlines()
        return [json.loads(line) for line in lines]

    def healthy(self):
        return self.session().get("https://127.0.0.1:%d/healthz" % self.port, timeout=5).ok

    def certificate(self):
        """The certificate that the REST API shows."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.port), 10) as plain, context.wrap_socket(plain) as stream:
            return x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))

    def reads(self, key):
        """Whether storage gets its key, with the value that it had. After a start, the KEK comes from AWS a moment after readiness."""
        def read():
            with contextlib.suppress(kmip_client.KmipOperationFailure), kmip_client.pykmip(self, key.certificate) as client:
                return client.get(key.uid).value
        return support.wait_until("the key", read) == key.value


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = apart.Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def service(machine, tmp_path_factory, ministack):
    return Service(machine, tmp_path_factory.mktemp("service"), ministack)


@pytest.fixture(scope="module")
def key(service, tmp_path_factory):
    """A key of svm1 that storage has made."""
    certificate = kmip_client.Certificate(service, "svm1", tmp_path_factory.mktemp("storage"))
    with kmip_client.pykmip(service, certificate) as client:
        uid = client.create(kmip_client.enums.CryptographicAlgorithm.AES, 256, name="kept")
        return types.SimpleNamespace(certificate=certificate, uid=uid, value=client.get(uid).value)


def test_a_first_hour(service, machine, ministack):
    """The manual's page, from the package to a key. What `sudo` does is done in the machine; the other commands run here, with the program that was installed there."""
    folder = machine.root / "mnt/operator"
    folder.mkdir()
    scene = manual_scene.Scene(folder, ministack)
    (scene.bin / "keystead").unlink()
    (scene.bin / "keystead").symlink_to(machine.root / "usr/bin/keystead")
    (machine.root / "mnt/keystead.deb").rename(folder / "keystead_0_any.deb")
    # Between the installation and the first start, the operator edits the settings.
    service.write_settings(folder / "settings")
    scene.command("sudo", """
        if [ "$1 $2" = "systemctl enable" ]; then cp %s/settings %s/%s; fi
        exec %s env --chdir=/mnt/operator "$@"
        """ % (folder, machine.root, SETTINGS, " ".join(machine.inside())))
    scene.file("pykmip.conf", "[client]\n")
    scene.replace(":8443", ":%d" % service.port)
    scene.replace("port=5696", "port=%d" % service.ekmip_port)
    said = scene.shell("\n".join(scene.as_here(block) for block in manual_scene.blocks("first-hour.md")), "first-hour.md")
    assert "everything in it can be recovered" in said, said
    (folder / "keystead.deb").rename(machine.root / "mnt/keystead.deb")
    assert "look at /etc/keystead/keystead.toml" in said and "Active: active (running)" in said and "32 bytes" in said, said
    assert service.shows("UnitFileState") == "enabled"
    service.ca_file.write_text((scene.folder / "ca.pem").read_text())
    service.password = (scene.folder / "password").read_text().strip()


def test_it_is_active_once_it_answers(service):
    entries = service.journal()
    messages = [str(entry["MESSAGE"]) for entry in entries]
    [served] = [number for number, message in enumerate(messages) if "are served" in message]
    [started] = [number for number, message in enumerate(messages) if message.startswith("Started keystead.service")]
    assert served < started, messages
    # A start that fails is told to whoever starts it, and tried again: here another has the port.
    service.systemctl("stop", "keystead")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", service.ekmip_port))
        other.listen()
        failed = service.machine.try_run("systemctl", "start", "keystead")
        assert failed.returncode != 0 and service.state() in ("activating", "failed"), failed
        assert any("--ekmip-listen 127.0.0.1:%d" % service.ekmip_port in str(entry["MESSAGE"]) for entry in service.journal())
    support.wait_until("the service", lambda: service.state() == "active")
    assert service.healthy()


def test_it_runs_as_the_unit_says(service, key):
    status = dict(re.findall(r"^(\w+):\t(.*)$", (service.process() / "status").read_text(), re.MULTILINE))
    uid = service.machine.run("id", "--user", "keystead").strip()
    assert uid != "0" and set(status["Uid"].split()) == {uid}, status
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}, status
    # The KEK of svm1 and the seal key, at the least.
    assert int(status["VmLck"].split()[0]) >= 8, status
    assert service.shows("LimitMEMLOCK") == "268435456"
    assert apart.limit(service.process(), "Max core file size") == 0
    assert apart.limit(service.process(), "Max locked memory") == apart.grants(service.machine.root / "proc/1", "Max locked memory", 268435456)
    for path in ["/usr/bin/other", "/etc/keystead/keystead.toml", "/var/lib/other", "/boot/other"]:
        refused = service.enters("touch", path)
        assert refused.returncode != 0 and "Read-only file system" in refused.stderr, refused
    assert service.enters("touch", "/var/lib/keystead/by-the-test").returncode == 0
    (service.machine.root / STATE / "by-the-test").unlink()
    (service.machine.root / "root/of-root").touch()
    seen = service.machine.run("nsenter", "--target", service.shows("MainPID"), "--mount", "ls", "/dev", "/proc", "/root", "/home").split()
    assert "self" in seen and not {"meminfo", "console", "of-root"} & set(seen), seen


def test_the_seal_key_is_a_credential(service):
    root, here = service.machine.root, ["setpriv", "--reuid=keystead", "--regid=keystead", "--clear-groups"]
    text = (root / SEAL_KEY).read_text()
    refused = service.machine.try_run(*here, "cat", "/" + SEAL_KEY)
    assert refused.returncode != 0 and "Permission denied" in refused.stderr, refused
    credential = "/run/credentials/keystead.service/seal.key"
    assert service.enters(*here, "cat", credential).stdout == text
    refused = service.enters(*here, "sh", "-c", "echo >%s" % credential)
    assert refused.returncode != 0, refused
    # It is nowhere in what the service keeps.
    found = service.machine.try_run("grep", "--recursive", "--files-with-matches", "--fixed-strings", text.strip(), "/" + STATE)
    assert found.returncode == 1 and (root / STATE / "ca.pem").exists(), found
    assert service.machine.run("stat", "--format", "%U %a", "/" + STATE).split() == ["keystead", "700"]


def test_the_journal_has_fields(service):
    entries = [entry for entry in service.journal() if entry.get("_SYSTEMD_UNIT") == "keystead.service" and entry.get("_COMM") == "keystead"]
    assert any("F_NODE" in entry and "are served" in entry["MESSAGE"] for entry in entries), entries
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"keystead"} and all(entry["_TRANSPORT"] in ("journal", "stdout") for entry in entries), entries


def test_an_entry_has_one_message(service):
    """A field of the same name would be a second, and journalctl shows those that it pleases: it then gives a list."""
    assert [entry["MESSAGE"] for entry in service.journal() if not isinstance(entry["MESSAGE"], str)] == []


def test_a_reload_shows_a_new_certificate(service, tmp_path):
    # Without a certificate of the operator's own there is nothing to read again, and it goes on.
    before = service.shows("MainPID")
    service.systemctl("reload", "keystead")
    assert service.healthy() and service.shows("MainPID") == before
    folder = service.machine.root / "etc/keystead/tls"
    folder.mkdir()

    def bring(name):
        made = support.Certificates(tmp_path, name)
        for source, target in [(made.cert, "fullchain.pem"), (made.key, "privkey.pem")]:
            (folder / target).write_bytes(source.read_bytes())
        service.machine.run("chown", "root:keystead", "/etc/keystead/tls/privkey.pem")
        service.machine.run("chmod", "640", "/etc/keystead/tls/privkey.pem")
        return x509.load_pem_x509_certificate(made.cert.read_bytes())

    first = bring("first")
    service.configure('[rest]\ncertificate = "/etc/keystead/tls/fullchain.pem"\nkey = "/etc/keystead/tls/privkey.pem"\n')
    service.systemctl("restart", "keystead")
    assert service.certificate() == first
    second, pid = bring("second"), service.shows("MainPID")
    service.systemctl("reload", "keystead")
    support.wait_until("the new certificate", lambda: service.certificate() == second)
    assert service.shows("MainPID") == pid
    service.configure()
    service.systemctl("restart", "keystead")
    assert service.healthy()


def test_the_key_outlives_restarts_and_kills(service, key):
    assert service.reads(key)
    service.systemctl("restart", "keystead")
    assert service.reads(key)
    killed = service.shows("MainPID")
    service.systemctl("kill", "--kill-whom=main", "--signal=KILL", "keystead")
    support.wait_until("the next start", lambda: service.state() == "active" and service.shows("MainPID") not in ("0", killed))
    assert service.shows("NRestarts") == "1" and service.reads(key)


def test_the_seal_key_is_replaced(service, key):
    """As README says it: a credential is what the file was when the service started."""
    file = service.machine.root / SEAL_KEY
    old, new = file.read_text(), "a5" * 32 + "\n"
    file.write_text(old + new)
    service.systemctl("restart", "keystead")
    answer = service.call("POST", "/security/ekmip/seal/rotate?return_timeout=60")
    assert answer.status_code == 201, answer.text
    file.write_text(new)
    service.systemctl("restart", "keystead")
    assert service.reads(key)


def test_a_backup_is_taken_of_the_service(service):
    """As the manual says it for a machine with the package: root shows the command the seal key as systemd shows it to the service."""
    page = (support.TOP / "docs/manual/backup.md").read_text()
    [command] = re.findall(r"`sudo (keystead backup --data-dir [^`]*)`", page)
    (service.machine.root / "mnt/passphrase").write_text("a passphrase for the backup\n")
    said = service.machine.run(*command.split(), "--out", "/mnt/backup", "--passphrase-file", "/mnt/passphrase")
    assert "a backup of the cluster" in said, said
    owners = service.machine.run("find", "/" + STATE, "-printf", "%u\\n").split()
    assert set(owners) == {"keystead"}, owners


def test_it_makes_no_system_call_that_the_unit_refuses(service, key):
    """What is refused is an error to the program, and might be hidden by it: for once it is killed for that, and does all of it again."""
    folder = service.machine.root / "etc/systemd/system/keystead.service.d"
    folder.mkdir()
    (folder / "kill.conf").write_text("[Service]\nSystemCallErrorNumber=kill\nRestart=no\n")
    service.systemctl("daemon-reload")
    service.systemctl("restart", "keystead")
    pid = service.shows("MainPID")
    assert service.reads(key)
    service.svm("svm2")
    service.enabled(service.kms.body("svm2"))
    certificate = kmip_client.Certificate(service, "svm2", key.certificate.folder)
    with kmip_client.pykmip(service, certificate) as client:
        client.destroy(client.create(kmip_client.enums.CryptographicAlgorithm.AES, 256))
    service.systemctl("reload", "keystead")
    assert service.healthy() and service.shows("MainPID") == pid
    service.systemctl("stop", "keystead")
    assert service.shows("Result") == "success"
    # The control: a call that the program needs, refused in that way, ends it.
    (folder / "refuse.conf").write_text("[Service]\nSystemCallFilter=~bind\n")
    service.systemctl("daemon-reload")
    assert service.machine.try_run("systemctl", "start", "keystead").returncode != 0 and service.shows("ExecMainStatus") == "31"
    shutil.rmtree(folder)
    service.systemctl("daemon-reload")
    service.systemctl("reset-failed", "keystead")
    service.systemctl("start", "keystead")


def test_an_upgrade_restarts_it_and_a_purge_keeps_the_keys(service, key):
    machine = service.machine
    install = ["apt-get", "install", "--yes", "--reinstall", "/mnt/keystead.deb"]
    before, seal_key = service.shows("MainPID"), (machine.root / SEAL_KEY).read_text()
    machine.run(*install)
    assert service.state() == "active" and service.shows("MainPID") != before and service.reads(key)
    machine.run("apt-get", "remove", "--yes", "keystead")
    assert service.state() == "inactive" and not (machine.root / "usr/bin/keystead").exists()
    said = machine.run("apt-get", "purge", "--yes", "keystead")
    assert "/var/lib/keystead stays" in said and "/etc/keystead/seal.key stays" in said, said
    assert not (machine.root / SETTINGS).exists() and (machine.root / SEAL_KEY).read_text() == seal_key
    machine.run(*install)
    assert service.state() == "inactive" and (machine.root / SEAL_KEY).read_text() == seal_key
    service.configure()
    service.systemctl("start", "keystead")
    assert service.reads(key)


def test_nothing_was_worth_a_warning(service):
    """Beside what the tests have done to it on purpose."""
    wanted = ["--ekmip-listen"]
    told = [entry for entry in service.journal() if entry.get("_COMM") == "keystead" and int(entry["PRIORITY"]) <= 4]
    assert [entry["MESSAGE"] for entry in told if not any(one in entry["MESSAGE"] for one in wanted)] == []
