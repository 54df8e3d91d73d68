"""Places apart from this machine, for what would change it: a Debian that boots by itself, and one in which images are built and run. Both need root.

What is mounted in such a place is seen there alone, and whatever runs in it ends with the process that holds it, which ends with the test, however that ends. The network is this machine's.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess

import support

# What `scripts/test-env --debian` unpacks.
TREE = support.TOP / ".cache/debian"


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], text=True, check=False, **{"timeout": 300, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})
    assert done.returncode == 0, "%s: %s%s" % (" ".join(str(part) for part in command), done.stdout, done.stderr)
    return done.stdout


def children(pid):
    """The processes that a process has started."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        # Some end while the folder is read.
        with contextlib.suppress(OSError):
            if "\nPPid:\t%d\n" % pid in status.read_text():
                found.append(int(status.parent.name))
    return found


def limit(process, name):
    """The hard limit of a process, by its folder in /proc; infinite where there is none."""
    return float(re.search(r"^%s +\S+ +(\S+) " % name, (process / "limits").read_text(), re.MULTILINE).group(1).replace("unlimited", "inf"))


def grants(process, name, wanted):
    """The limit that a process can give to others that want so much. Only who has CAP_SYS_RESOURCE (24) gives more than it has itself; on some machines not even root has it."""
    capabilities = int(re.search(r"^CapEff:\t(\w+)$", (process / "status").read_text(), re.MULTILINE).group(1), 16)
    return wanted if capabilities >> 24 & 1 else int(min(wanted, limit(process, name)))


class Apart:
    """A mount and a process namespace. `setup` is a script that runs in it first."""

    def __init__(self, name, folder, setup):
        assert os.geteuid() == 0, "this test mounts and boots: it needs root"
        assert TREE.is_dir(), "%s is missing: scripts/test-env --debian makes it" % TREE
        # Who holds it takes in what others leave behind, as a first process must.
        script = setup + "\ntouch %s/ready\ntrap '' CHLD\nexec sleep infinity" % folder
        unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-euc", script]
        self.folder, self.name = folder, name
        self.holder = support.Process(name, ["setpriv", "--pdeathsig", "KILL", *unshare], folder)
        try:
            support.wait_until(name, (folder / "ready").exists, self.holder.child, self.holder.log)
            [self.first] = children(self.holder.child.pid)
        except BaseException:
            self.close()
            raise

    def inside(self, *command):
        """The command, as it is run in here."""
        return ["nsenter", "--target", str(self.first), "--mount", "--pid", *command]

    def close(self):
        self.holder.stop(signal.SIGKILL)


class ControlGroups:
    """Groups that a machine's systemd divides, in the hierarchies by which systemd tells services apart: version 2's, and where there is one, version 1's `name=systemd`."""

    def __init__(self, name):
        self.folders = []
        mounts = [line.split()[1:4] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "name=systemd"):
                continue
            places = [place for place, kind, options in mounts if (kind == "cgroup2" if controllers == "" else kind == "cgroup" and controllers in options.split(","))]
            # Version 1 alone is a kernel's that mounts no version 2.
            for place in places[:1]:
                folder = pathlib.Path(place + path) / name
                folder.mkdir()
                self.folders.append(folder)
        assert self.folders, "no control groups are mounted: systemd does not boot without"

    def close(self):
        """Once all processes in them have ended; a killed one may take a moment."""
        for top in self.folders:
            support.wait_until("the end of all in %s" % top, lambda top=top: not any((folder / "cgroup.procs").read_text() for folder in [top, *top.rglob("*/")] if folder.is_dir()))
            for folder in sorted(top.rglob("*/"), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            top.rmdir()


class Machine:
    """A Debian of its own that systemd has booted (systemd-nspawn). It is in memory, and gone when it ends."""

    def __init__(self, folder):
        root = "%s/machine/root" % folder
        self.apart = Apart("apart", folder, """
            mount -t tmpfs tmpfs /run
            mkdir {folder}/machine
            mount -t tmpfs -o size=2G tmpfs {folder}/machine
            cd {folder}/machine
            mkdir root changes work
            mount -t overlay -o lowerdir={tree},upperdir=changes,workdir=work overlay root
            """.format(folder=folder, tree=TREE))
        self.process = self.groups = None
        try:
            self.groups = ControlGroups("keystead-test-%d" % self.apart.first)
            # A machine whose host has no systemd registers nowhere. The service locks memory; nspawn lets only those do so who may lock any amount.
            nspawn = [
                "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--directory=" + root, "--machine=keystead", "--resolv-conf=off", "--timezone=off",
                "--link-journal=no", "--console=read-only", "--system-call-filter=@memlock",
            ]
            join = "".join("echo $$ >%s/cgroup.procs\n" % group for group in self.groups.folders)
            self.process = support.Process("machine", ["sh", "-euc", join + 'exec "$@"', "nspawn", *self.apart.inside(*nspawn)], folder)
            self.leader = support.wait_until("a machine", self.find_leader, self.process.child, self.process.log)
            self.root = pathlib.Path("/proc/%d/root" % self.leader)
            support.wait_until("the machine", lambda: self.try_run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"), self.process.child, self.process.log)
        except BaseException:
            self.close()
            raise

    def find_leader(self):
        """The machine's first process: nspawn's child that is the first in its namespace."""
        for nspawn in children(self.process.child.pid):
            for child in children(nspawn):
                with contextlib.suppress(OSError):
                    status = pathlib.Path("/proc/%d/status" % child).read_text()
                    if status.partition("\nNSpid:")[2].split("\n")[0].split()[-1] == "1" and "\nName:\tsystemd\n" in "\n" + status:
                        return child
        return None

    def inside(self, *command):
        """The command, as root runs it in the machine."""
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"]
        return ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd", *environment, *[str(part) for part in command]]

    def run(self, *command, **options):
        return run(*self.inside(*command), **options)

    def try_run(self, *command):
        return subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=300, check=False)

    def close(self):
        self.apart.close()
        if self.process:
            self.process.stop(signal.SIGKILL)
        if self.groups:
            self.groups.close()
