"""The container image: packaging/Containerfile is built and run by podman, as its comment says, with a read-only root, without capabilities.

Images of others are not fetched: the Debian that `scripts/test-env --debian` unpacks stands for both base images. In that of Rust, cargo looks at what it was given and hands out the program that the other tests run.
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess

import pytest

import apart
import kmip_client
import support

FILE = support.TOP / "packaging/Containerfile"
BASE, RUST = "docker.io/library/debian:bookworm-slim", "docker.io/library/rust:1.95-bookworm"
CARGO = """#!/bin/sh
# As it is asked to: with what it needs in the context, and nothing that has no place in an image.
set -eux
test "$*" = "build --locked --release -p keystead"
test -f Cargo.toml && test -f Cargo.lock && test -f .cargo/config.toml && test -f crates/keystead/src/main.rs
test "$(ls -A)" = "$(printf '%s\\n' .cargo Cargo.lock Cargo.toml crates scripts)"
# The compiler that etcd's client needs, with what its definitions include, as crates/store's build calls it.
printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto"; message A { optional google.protobuf.FileOptions a = 1; }' >/tmp/a.proto
scripts/protoc --proto_path=/tmp --descriptor_set_out=/tmp/a --include_imports /tmp/a.proto
mkdir -p target/release
cp /opt/keystead target/release/keystead
"""
SETTINGS = """
[cluster]
address = "127.0.0.1:%(port)d"
[ekmip]
address = "127.0.0.1:%(ekmip_port)d"
[aws_kms]
allow_endpoints = ["127.0.0.0/8"]
min_poll_interval = "5s"
extra_ca = "/etc/keystead/aws-ca.pem"
[seal]
file = "/run/secrets/seal.key"
"""


class Engine:
    """podman, apart from this machine's: its images, containers and volumes are in memory."""

    def __init__(self, folder):
        self.folder = folder
        # podman writes a little to other places as well. Names are looked up with this machine's resolver, which may be described in /run. Where version 1 of the control groups has a
        # version 2 beside it, crun takes the first alone.
        self.apart = apart.Apart("engine", folder, """
            mkdir {0}/memory {0}/tmp
            mount -t tmpfs -o size=6G tmpfs {0}/memory
            mkdir {0}/memory/storage {0}/memory/lib {0}/memory/work
            mount -t overlay -o lowerdir=/var/lib,upperdir={0}/memory/lib,workdir={0}/memory/work overlay /var/lib
            resolver=$(readlink -f /etc/resolv.conf)
            cp "$resolver" {0}/resolv.conf
            mount -t tmpfs tmpfs /run
            mount -t tmpfs tmpfs /var/tmp
            ! mountpoint --quiet /sys/fs/cgroup/unified || umount --lazy /sys/fs/cgroup/unified
            [ -e "$resolver" ] || install -D {0}/resolv.conf "$resolver"
            """.format(folder))
        (folder / "storage.conf").write_text('[storage]\ndriver = "overlay"\ngraphroot = "%s/memory/storage"\nrunroot = "/run/containers/storage"\n' % folder)
        self.environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"), "TMPDIR": str(folder / "tmp")}

    def podman(self, *words, **options):
        return apart.run(*self.apart.inside("podman", "--cgroup-manager=cgroupfs", "--events-backend=file", *words), env=self.environment, **options)

    def close(self):
        self.apart.close()


class Container(support.Node):
    """The node in a container."""

    def __init__(self, engine, folder, kms):
        self.engine, self.folder, self.kms = engine, folder, kms
        self.port, self.ekmip_port = support.free_ports(2)
        self.ca_file, self.password = folder / "ca.pem", ""
        (folder / "keystead.toml").write_text(SETTINGS % {"port": self.port, "ekmip_port": self.ekmip_port})
        engine.podman("secret", "create", "seal.key", "-", input="5a" * 32 + "\n")

    @property
    def ca(self):
        return self.ca_file

    def session(self):
        session = super().session()
        session.auth = ("admin", self.password)
        return session

    def start(self):
        """The command of the file's comment; its ports are published by sharing this machine's network, on ports that are free."""
        command = re.search(r"^# podman run (.*) \\\n#  *(.*) keystead$", FILE.read_text(), re.MULTILINE)
        words = shlex.split(" ".join(command.groups()).replace("./keystead.toml", str(self.folder / "keystead.toml")))
        assert words[-4:] == ["-p", "8443:8443", "-p", "5696:5696"] and "--read-only" in words and "--cap-drop=all" in words, words
        [secret] = re.findall(r"--secret (seal\.key\S*)[,)]", FILE.read_text())
        network = ["--network=host", "--env=KEYSTEAD_LISTEN=127.0.0.1:%d" % self.port, "--env=KEYSTEAD_EKMIP_LISTEN=127.0.0.1:%d" % self.ekmip_port]
        # podman gives a read-only container places to write; docker does not.
        # Of limits what root here may give, also of those that podman sets where nothing is said.
        root = pathlib.Path("/proc/self")
        limits = ["--ulimit=%s=%d" % (name, apart.grants(root, text, 1048576)) for name, text in [("nofile", "Max open files"), ("nproc", "Max processes")]]
        locked = "memlock=%d" % apart.grants(root, "Max locked memory", 268435456)
        words[words.index("memlock=268435456")] = locked
        here = ["--read-only-tmpfs=false", "--cgroups=disabled", "--volume=%s:/etc/keystead/aws-ca.pem:ro" % self.kms.ca, "--secret=" + secret]
        self.engine.podman("run", *words[:-4], *network, *limits, *here, "keystead")
        inspected = self.engine.podman("inspect", "--format", "{{.State.Pid}}", "keystead")
        self.pid = inspected.strip()
        support.wait_until("keystead in a container", self.answers)

    def answers(self):
        done = subprocess.run(self.engine.apart.inside("cat", "/proc/%s/root/var/lib/keystead/ca.pem" % self.pid), capture_output=True, text=True, timeout=60, check=False)
        self.ca_file.write_text(done.stdout)
        if done.returncode or not done.stdout:
            state = self.engine.podman("inspect", "--format", "{{.State.Status}}", "keystead").strip()
            assert state == "running", self.engine.podman("logs", "keystead", stderr=subprocess.STDOUT)
            return False
        return self.session().get("https://127.0.0.1:%d/healthz" % self.port, timeout=5).ok

    def executes(self, *command):
        return self.engine.podman("exec", "keystead", *command)

    def take_away(self):
        self.engine.podman("stop", "--time", "30", "keystead")
        ended = self.engine.podman("inspect", "--format", "{{.State.ExitCode}}", "keystead").strip()
        self.engine.podman("rm", "keystead")
        return ended

    def reads(self, certificate, uid):
        """After a start, the KEK comes from AWS a moment after readiness."""
        def read():
            with contextlib.suppress(kmip_client.KmipOperationFailure), kmip_client.pykmip(self, certificate) as client:
                return client.get(uid).value
        return support.wait_until("the key", read)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def image(engine):
    """What `podman build` makes of the repository."""
    context = engine.folder / "rust"
    context.mkdir()
    (context / "cargo").write_text(CARGO)
    (context / "cargo").chmod(0o755)
    apart.run("strip", "--strip-unneeded", "-o", context / "keystead", support.program())
    (context / "Containerfile").write_text("FROM %s\nCOPY cargo /usr/local/bin/cargo\nCOPY keystead /opt/keystead\n" % BASE)
    run = subprocess.run(
        engine.apart.inside("sh", "-c", 'tar --create --directory="$1" . | podman import --quiet - "$2"', "import", str(apart.TREE), BASE),
        env=engine.environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    engine.podman("build", "--network=host", "--pull=never", "--tag", RUST, context)
    return engine.podman("build", "--network=host", "--pull=never", "--layers=false", "--jobs=2", "--file", FILE, "--tag", "keystead", support.TOP)


def test_the_image_has_the_program_and_little_else(engine, image):
    [config] = json.loads(engine.podman("image", "inspect", "--format", "[{{json .Config}}]", "keystead"))
    assert (config["User"], config["Entrypoint"], list(config["Volumes"]), config["StopSignal"]) == ("keystead", ["/usr/bin/keystead"], ["/var/lib/keystead"], "SIGTERM"), config
    assert set(config["ExposedPorts"]) == {"8443/tcp", "5696/tcp"}, config
    said = engine.podman("run", "--rm", "--network=none", "--cgroups=disabled", "--entrypoint=/bin/sh", "keystead", "-c", "id; ls -la /var/lib/keystead; ls -d /src /opt/keystead; keystead --version")
    assert "uid=967(keystead) gid=967(keystead)" in said and "/src" not in said and "/opt/keystead" not in said and re.search(r"^keystead \d", said, re.MULTILINE), said


def test_it_serves_and_keeps_its_keys_in_the_volume(engine, image, ministack, tmp_path):
    node = Container(engine, tmp_path, ministack)
    node.start()
    node.password = node.executes("cat", "/var/lib/keystead/admin-password").strip()
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
    certificate = kmip_client.Certificate(node, "svm1", tmp_path)
    with kmip_client.pykmip(node, certificate) as client:
        uid = client.create(kmip_client.enums.CryptographicAlgorithm.AES, 256)
        value = client.get(uid).value

    status = dict(re.findall(r"^(\w+):\t(.*)$", apart.run(*engine.apart.inside("cat", "/proc/%s/status" % node.pid)), re.MULTILINE))
    assert set(status["Uid"].split()) == {"967"} and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}, status
    assert int(status["VmLck"].split()[0]) >= 8, status
    for path in ["/tmp/x", "/etc/keystead/x", "/run/x"]:
        with pytest.raises(AssertionError, match="Read-only file system"):
            node.executes("touch", path)
    # The seal key is not where the store is.
    assert "seal.key" not in node.executes("ls", "-A", "/var/lib/keystead").split()
    assert " WARN" not in engine.podman("logs", "keystead", stderr=subprocess.STDOUT)

    assert node.take_away() == "0"
    node.start()
    assert node.reads(certificate, uid) == value
    assert node.take_away() == "0"
