"""Where the commands of the manual run: a folder for the person who types them, and folders that stand for machines.

What would change a machine is stood in for: `apt` and `systemctl` do their work in a machine's folder, where the service is started as the unit of the package says, and paths of the manual lead there.
"""

import contextlib
import os
import re
import shutil
import subprocess
import textwrap
import time
from pathlib import Path

import support

MANUAL = support.TOP / "docs" / "manual"
# Places of a machine that the manual names.
PLACES = ["/etc/keystead", "/etc/systemd", "/usr/local/sbin", "/var/backups", "/var/lib/keystead"]


def blocks(page, kind="sh"):
    """The blocks of a page of one kind, in their order."""
    found = re.findall(r"^( *)```%s\n(.*?)^ *```$" % kind, (MANUAL / page).read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


SYSTEMCTL = """
import os, pathlib, re, signal, socket, subprocess, sys, time

root = pathlib.Path(os.environ["SCENE"]) / os.environ["MACHINE"]
pid = root / "pid"


def there(path):
    return str(root) + path


def stop():
    if not pid.exists():
        return
    number = int(pid.read_text())
    pid.unlink()
    try:
        os.kill(number, signal.SIGTERM)
        for _ in range(600):
            os.kill(number, 0)
            time.sleep(0.05)
    except ProcessLookupError:
        return
    sys.exit("the service does not end")


def start():
    unit = pathlib.Path(there("/usr/lib/systemd/system/keystead.service")).read_text()
    command = re.sub("(^| )/", lambda found: found.group(1) + there("/"), re.search("^ExecStart=(.*)$", unit, re.MULTILINE).group(1)).split()
    # LoadCredential=, StateDirectory= and Type=notify.
    name, source = re.search("^LoadCredential=(.*):(.*)$", unit, re.MULTILINE).groups()
    pathlib.Path(there("/credentials")).mkdir(mode=0o700, exist_ok=True)
    pathlib.Path(there("/credentials/" + name)).write_text(pathlib.Path(there(source)).read_text())
    pathlib.Path(there("/var/lib/keystead")).mkdir(parents=True, exist_ok=True)
    notify = pathlib.Path(there("/notify"))
    notify.unlink(missing_ok=True)
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(notify))
    ready.settimeout(0.1)
    with open(there("/log"), "ab") as log:
        surroundings = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": there("/credentials"), "NOTIFY_SOCKET": str(notify)}
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=surroundings, start_new_session=True)
    pid.write_text(str(child.pid))
    for _ in range(600):
        try:
            assert b"READY=1" in ready.recv(4096)
            return
        except TimeoutError:
            if child.poll() is not None:
                break
    sys.exit("the service is not ready: " + pathlib.Path(there("/log")).read_text()[-3000:])


asked = " ".join(sys.argv[1:])
if asked in ("stop keystead", "disable --now keystead"):
    stop()
elif asked in ("start keystead", "enable --now keystead"):
    start()
elif asked in ("restart keystead", "try-restart keystead"):
    stop()
    start()
elif asked == "status keystead":
    os.kill(int(pid.read_text()), 0)
elif asked.startswith("start ") and asked.endswith(".service"):
    unit = pathlib.Path(there("/etc/systemd/system/" + asked.split()[1])).read_text()
    subprocess.run(re.search("^ExecStart=(.*)$", unit, re.MULTILINE).group(1).split(), check=True)
elif asked.startswith("enable --now ") and asked.endswith(".timer"):
    assert "OnCalendar=" in pathlib.Path(there("/etc/systemd/system/" + asked.split()[2])).read_text()
else:
    assert asked == "daemon-reload", asked
"""


class Machine:
    """A folder that stands for a machine with the package: settings, a seal key as the package makes it, the unit, and no data yet."""

    def __init__(self, scene, name):
        self.name, self.root = name, scene.folder / name
        self.port, self.ekmip_port = support.free_ports(2)
        self.file("/etc/keystead/seal.key").write_text(os.urandom(32).hex() + "\n")
        self.file("/etc/keystead/seal.key").chmod(0o600)
        self.file("/etc/keystead/first-password").write_text(support.PASSWORD + "\n")
        self.file("/usr/bin/keystead").symlink_to(support.program())
        shutil.copy(support.TOP / "packaging/keystead.service", self.file("/usr/lib/systemd/system/keystead.service"))
        self.file("/usr/local/sbin/x")
        self.file("/etc/systemd/system/x")
        self.file("/var/lib/x")
        self.file("/var/backups/x")

    def file(self, path):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    @property
    def config(self):
        return self.file("/etc/keystead/keystead.toml")

    def settings(self, kms, extra=""):
        """What an operator writes into the file, with addresses that are free here. `extra` has sections of its own."""
        self.config.write_text(here("""
            listen = "127.0.0.1:%d"
            ekmip_listen = "127.0.0.1:%d"
            node_name = "%s"
            admin_password_file = "/etc/keystead/first-password"
            [seal]
            credential = "seal.key"
            file = "/etc/keystead/seal.key"
            [aws_kms]
            allow_endpoints = ["127.0.0.0/8", "localhost"]
            min_poll_interval = "5s"
            extra_ca = "%s"
            """ % (self.port, self.ekmip_port, self.name, kms.ca) + textwrap.dedent(extra), self.root))
        return self


def here(text, root):
    """Places of a machine, in its folder."""
    for place in PLACES:
        text = text.replace(place, str(root) + place)
    return text


class Scene:
    """A folder in which commands run as a person would type them."""

    def __init__(self, folder, kms):
        self.folder, self.bin, self.kms, self.machines = folder, folder / "bin", kms, {}
        self.bin.mkdir()
        self.replaced = []
        (self.bin / "keystead").symlink_to(support.program())
        python = support.TOP / ".venv/bin/python"
        # An environment that is asked for is there already.
        self.command("python3", """
            if [ "$1 $2" = "-m venv" ]; then
                mkdir -p "$3/bin"
                ln -s %(bin)s/python3 "$3/bin/python"
                printf '#!/bin/sh\\ntest "$*" = "install --quiet PyKMIP"\\n' > "$3/bin/pip"
                chmod 755 "$3/bin/pip"
                exit
            fi
            exec "%(python)s" "$@"
            """ % {"bin": self.bin, "python": python})
        (self.bin / "systemctl.py").write_text(SYSTEMCTL)
        self.command("systemctl", 'exec "%s" "%s" "$@"\n' % (python, self.bin / "systemctl.py"))
        self.command("sudo", 'exec "$@"\n')
        # Owners need root, and a user that is not there.
        self.command("install", """
            kept=()
            while [ $# -gt 0 ]; do
                case $1 in -o | -g) shift 2 ;; *) kept+=("$1"); shift ;; esac
            done
            exec /usr/bin/install "${kept[@]}"
            """)
        self.command("apt", 'test "$1 $2" = "install ./keystead.deb"\nsystemctl try-restart keystead\n')
        self.file("secret", kms.secret + "\n")
        self.file("passphrase", "a passphrase for the manual\n")
        self.variables = {"PATH": "%s:%s" % (self.bin, os.environ["PATH"]), "HOME": str(folder), "SCENE": str(folder), "MACHINE": "node1"}
        # The tenant of the manual.
        self.replace("alias/tenant1 ", kms.key_id + " ")
        self.replace("AKIAIOSFODNN7EXAMPLE", kms.access_key_id)

    def file(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o600)

    def replace(self, old, new):
        """What stands in the manual, and what it is here."""
        self.replaced.append((old, new))

    def machine(self, name):
        self.machines[name] = Machine(self, name)
        return self.machines[name]

    def log_in(self, port, ca, password=support.PASSWORD):
        """What a person has after the first hour."""
        self.file("password", password + "\n")
        login = 'user = "admin:%s"\ncacert = "%s"\nsilent\nshow-error\nfail-with-body\n' % (password, ca)
        self.file("admin.curl", login)
        self.variables.update(KEYSTEAD_ENDPOINT="localhost:%d" % port, KEYSTEAD_CA=str(ca), KEYSTEAD_PASSWORD_FILE="password")
        return self

    def node(self, node):
        self.variables.update(DATA=str(node.folder / "data"), CONFIG=str(node.config))
        self.replace("keystead1.example.com:5696", "127.0.0.1:%d" % node.ekmip_port)
        return self.log_in(node.port, node.ca)

    def command(self, name, text):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text("#!/bin/bash\nset -e\n" + textwrap.dedent(text))
        (self.bin / name).chmod(0o755)

    def as_here(self, text):
        for old, new in self.replaced:
            text = text.replace(old, new)
        # AWS is an emulator with an address of its own.
        return re.sub(r"^( *keystead security key-manager external aws enable .*)$", r"\1 --host 127.0.0.1 --port %d" % self.kms.port, text, flags=re.MULTILINE)

    def on(self, machine, text):
        """Text of the manual, for one machine."""
        return "export MACHINE=%s\n%s" % (machine, here(text, self.folder / machine))

    def run(self, page, change=lambda text: text):
        """All blocks of a page, in one shell. What it prints is given back."""
        parts = []
        for block in blocks(page):
            named = re.match(r"# on (\w+)\n", block)
            parts.append(self.on(named.group(1) if named else "node1", self.as_here(block)))
        return self.shell(change("\n".join(parts)), page)

    def shell(self, text, what="commands"):
        assert text.strip(), "%s has no commands" % what
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        logs = "".join("%s: %s\n" % (log, log.read_text()[-2000:]) for log in self.folder.glob("*/log")) if done.returncode else ""
        assert done.returncode == 0, "%s\n%s\n%s\n%s" % (text, done.stdout, done.stderr, logs)
        return done.stdout

    def end(self):
        """Ends the services of the machines, and waits for their ends."""
        for pid in self.folder.glob("*/pid"):
            number = int(pid.read_text())
            for signal in (15, 9):
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    os.kill(number, signal)
                    wait_for_the_end(number, 30)
                    break


def wait_for_the_end(number, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        # One that has ended and was not waited for is there still, as a zombie.
        stat = Path("/proc/%d/stat" % number)
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.05)
    raise TimeoutError(number)
