"""What the end-to-end tests run: a Keystead node, emulators of AWS KMS, proxies. Everything listens on loopback, and everything is stopped by its own process id."""

import contextlib
import datetime
import hashlib
import http.client
import http.server
import ipaddress
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import time

import boto3
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOP = pathlib.Path(__file__).resolve().parents[2]
REGION = "us-east-1"
PASSWORD = "correct horse battery"
PATIENCE = 60


def free_port():
    return free_ports(1)[0]


def free_ports(count):
    """Ports that are free now, no two of them the same: below those that the kernel gives to connections (ip_local_port_range), of which any may be taken before a server listens there."""
    with contextlib.ExitStack() as stack:
        found = []
        for port in random.sample(range(12_000, 32_000), 2_000):
            if len(found) == count:
                return found
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
        raise AssertionError("no %d ports are free" % count)


def wait_until(what, ready, process=None, log=None):
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError, requests.RequestException, http.client.HTTPException):
            result = ready()
            if result:
                return result
        if process is not None and process.poll() is not None:
            raise AssertionError("%s has ended: %s" % (what, log.read_text()[-3000:] if log else ""))
        assert time.monotonic() < deadline, "%s: not within %d s" % (what, PATIENCE)
        time.sleep(0.05)


class Process:
    """A child with a log of its own."""

    def __init__(self, name, command, folder, environment=None):
        self.log = folder / (name + ".log")
        with open(self.log, "ab") as log:
            try:
                self.child = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=folder, start_new_session=True)
            except FileNotFoundError:
                raise AssertionError("%s cannot be started, as %s is missing: make build builds keystead, scripts/test-env installs the rest" % (name, command[0])) from None

    def stop(self, how=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(10)
        return self.child.returncode


class Certificates:
    """A CA and a certificate of it, by default one of 127.0.0.1 and localhost. `authority` signs instead, where given; `self_signed` is the certificate's own CA, and with `is_ca` says so of itself."""

    def __init__(self, folder, name, names=("127.0.0.1", "localhost"), authority=None, expired=False, self_signed=False, is_ca=False):
        now = datetime.datetime.now(datetime.timezone.utc)
        ends = now - datetime.timedelta(hours=1) if expired else now + datetime.timedelta(days=2)

        def build(subject, issuer, public_key, signer, ends, extensions):
            builder = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
                .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
                .public_key(public_key)
                .serial_number(x509.random_serial_number())
                .not_valid_before(ends - datetime.timedelta(days=3))
                .not_valid_after(ends)
            )
            for extension, critical in extensions:
                builder = builder.add_extension(extension, critical)
            return builder.sign(signer, hashes.SHA256())

        def general(name):
            try:
                return x509.IPAddress(ipaddress.ip_address(name))
            except ValueError:
                return x509.DNSName(name)

        pem = serialization.Encoding.PEM
        self.name, self.names = name + " CA", tuple(names)
        self.ca, self.cert, self.key = folder / (name + "-ca.pem"), folder / (name + ".pem"), folder / (name + ".key")
        key = ec.generate_private_key(ec.SECP256R1())
        if authority:
            self.ca_key, self.ca, self.name = authority.ca_key, authority.ca, authority.name
        elif self_signed:
            self.ca_key, self.ca, self.name = key, self.cert, name
        else:
            self.ca_key = ec.generate_private_key(ec.SECP256R1())
            constraints = [(x509.BasicConstraints(ca=True, path_length=0), True)]
            self.ca.write_bytes(build(self.name, self.name, self.ca_key.public_key(), self.ca_key, now + datetime.timedelta(days=2), constraints).public_bytes(pem))
        extensions = [(x509.BasicConstraints(ca=is_ca, path_length=None), True)]
        if names:
            extensions.append((x509.SubjectAlternativeName([general(one) for one in names]), False))
        self.cert.write_bytes(build(name, self.name, key.public_key(), self.ca_key, ends, extensions).public_bytes(pem))
        self.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


class Kms:
    """An emulator of AWS KMS behind TLS, with a key and an access key. `plain`: its port without TLS, where it has one."""

    def __init__(self, port, ca, key_id, key_arn, access_key_id, secret, clients, plain=None):
        self.plain = plain
        self.port, self.ca, self.key_id, self.key_arn = port, ca, key_id, key_arn
        self.access_key_id, self.secret, self.client = access_key_id, secret, clients

    def body(self, svm, **changes):
        body = {
            "svm": {"name": svm}, "region": REGION, "key_id": self.key_id, "access_key_id": self.access_key_id, "secret_access_key": self.secret,
            "host": "127.0.0.1", "port": self.port,
        }
        body.update(changes)
        return {name: value for name, value in body.items() if value is not None}

    def new_key(self):
        return self.client("kms").create_key()["KeyMetadata"]["KeyId"]


def clients(port, ca, access_key_id, secret):
    def client(service):
        return boto3.client(service, region_name=REGION, endpoint_url="https://127.0.0.1:%d" % port, verify=str(ca), aws_access_key_id=access_key_id, aws_secret_access_key=secret)
    return client


@contextlib.contextmanager
def ministack(folder):
    """ministack checks signatures and policies; the user may do just what the contract lists."""
    certificates, port = Certificates(folder, "ministack"), free_port()
    environment = dict(os.environ, GATEWAY_PORT=str(port), AUTH="true", USE_SSL="1", MINISTACK_SSL_CERT=str(certificates.cert), MINISTACK_SSL_KEY=str(certificates.key))
    process = Process("ministack", [TOP / ".venv-ministack/bin/ministack"], folder, environment)
    try:
        wait_until("ministack", lambda: requests.get("https://127.0.0.1:%d/_ministack/health" % port, verify=str(certificates.ca), timeout=5).ok, process.child, process.log)
        root = clients(port, certificates.ca, "test", "test")
        key = root("kms").create_key()["KeyMetadata"]
        iam = root("iam")
        iam.create_user(UserName="keystead")
        statement = {"Effect": "Allow", "Action": ["kms:DescribeKey", "kms:Encrypt", "kms:Decrypt"], "Resource": "*"}
        iam.put_user_policy(UserName="keystead", PolicyName="keystead", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        access = iam.create_access_key(UserName="keystead")["AccessKey"]
        yield Kms(port, certificates.ca, key["KeyId"], key["Arn"], access["AccessKeyId"], access["SecretAccessKey"], root)
    finally:
        # It keeps nothing, and takes half a minute over SIGTERM.
        process.stop(signal.SIGKILL)


@contextlib.contextmanager
def moto(folder):
    """moto behind stunnel, as Keystead speaks TLS alone. moto binds blobs to context and key, and rotates keys; it does not check signatures."""
    certificates, port, plain = Certificates(folder, "moto"), free_port(), free_port()
    server = Process("moto", [TOP / ".venv/bin/moto_server", "-H", "127.0.0.1", "-p", plain], folder)
    tunnel = None
    try:
        wait_until("moto", lambda: requests.get("http://127.0.0.1:%d/moto-api/" % plain, timeout=5).ok, server.child, server.log)
        tunnel = stunnel(folder, "moto-tls", (certificates, port, plain))
        root = clients(port, certificates.ca, "AKIAMOTOMOTOMOTOMOTO", "moto secret")
        key = root("kms").create_key()["KeyMetadata"]
        yield Kms(port, certificates.ca, key["KeyId"], key["Arn"], "AKIAMOTOMOTOMOTOMOTO", "moto secret", root, plain)
    finally:
        if tunnel:
            tunnel.stop()
        server.stop()


def accepts(port):
    """Whether somebody listens there; for wait_until."""
    socket.create_connection(("127.0.0.1", port), 5).close()
    return True


def stunnel(folder, name, *fronts):
    """TLS in front of what speaks none. Each front: its certificates, the port that it accepts on, and the one that it leads to."""
    configuration = folder / (name + ".conf")
    services = [
        "[tls%d]\naccept = 127.0.0.1:%d\nconnect = 127.0.0.1:%d\ncert = %s\nkey = %s\n" % (number, accept, connect, certificates.cert, certificates.key)
        for number, (certificates, accept, connect) in enumerate(fronts)
    ]
    configuration.write_text("foreground = yes\npid =\n" + "".join(services))
    process = Process(name, ["/usr/bin/stunnel4", configuration], folder)
    try:
        wait_until(name, lambda: all(accepts(accept) for _, accept, _ in fronts), process.child, process.log)
    except BaseException:
        process.stop()
        raise
    return process


@contextlib.contextmanager
def tinyproxy(folder, user, password, ports=()):
    """An http proxy that wants a login; it refuses a wrong one with 401. `ports`: the only ones that it leads to, with 403 for others; all where there are none."""
    port, configuration = free_port(), folder / "tinyproxy.conf"
    access = folder / "tinyproxy-access.log"
    configuration.write_text(
        'Port %d\nListen 127.0.0.1\nTimeout 60\nLogFile "%s"\nLogLevel Info\nMaxClients 20\nAllow 127.0.0.1\nBasicAuth %s %s\n' % (port, access, user, password)
        + "".join("ConnectPort %d\n" % one for one in ports))
    process = Process("tinyproxy", ["tinyproxy", "-d", "-c", configuration], folder)
    try:
        wait_until("tinyproxy", lambda: accepts(port), process.child, process.log)
        yield port, access
    finally:
        process.stop()


@contextlib.contextmanager
def squid(folder, user, password, ports):
    """An http proxy that wants a login; it refuses a wrong one with 407. `ports`: the only ones that it leads to, with 403 for others."""
    port = free_port()
    # It will not run as root, and who it runs as then cannot enter the folders of root's tests.
    own = pathlib.Path(tempfile.mkdtemp(prefix="keystead-squid-"))
    access, logins, configuration = own / "access.log", own / "logins", own / "squid.conf"
    # basic_ncsa_auth takes a plain MD5 too, which needs neither htpasswd nor a module that Python has dropped.
    logins.write_text("%s:%s\n" % (user, hashlib.md5(password.encode()).hexdigest()))
    configuration.write_text("""
http_port 127.0.0.1:%d
cache_effective_user nobody
visible_hostname localhost
pid_filename none
netdb_filename none
pinger_enable off
cache deny all
cache_log %s
access_log stdio:%s
coredump_dir %s
shutdown_lifetime 0 seconds
auth_param basic program /usr/lib/squid/basic_ncsa_auth %s
auth_param basic children 1
acl users proxy_auth REQUIRED
acl SSL_ports port %s
http_access deny !SSL_ports
http_access allow users
http_access deny all
""" % (port, own / "cache.log", access, own, logins, " ".join(map(str, ports))))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for one in (own, logins):
            os.chown(one, nobody.pw_uid, nobody.pw_gid)
    process = None
    try:
        # -n: a name of its own for what it shares with other squids of the machine.
        process = Process("squid", ["/usr/sbin/squid", "-N", "-n", "keystead%d" % port, "-f", configuration], folder)
        wait_until("squid", lambda: accepts(port), process.child, process.log)
        yield port, access
    finally:
        if process:
            process.stop()
        shutil.rmtree(own)


class Recorder:
    """A TLS proxy in front of an emulator that writes down what AWS is asked, and holds it back while `gate` is closed. Headers pass unchanged, so that signatures stay valid."""

    def __init__(self, folder, kms):
        certificates = Certificates(folder, "recorder")
        calls = self.calls = []
        gate = self.gate = threading.Event()
        gate.set()
        upstream = ssl.create_default_context(cafile=str(kms.ca))

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                calls.append((self.headers["X-Amz-Target"].rpartition(".")[2], json.loads(body)))
                gate.wait(PATIENCE)
                connection = http.client.HTTPSConnection("127.0.0.1", kms.port, context=upstream, timeout=30)
                connection.putrequest("POST", self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                payload = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port, self.ca = self.server.server_address[1], certificates.ca
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Detour:
    """An http proxy that leads every CONNECT to one port here, whatever host is asked for: AWS's own names are reached without a change of the machine's."""

    def __init__(self, port):
        self.asked = []
        asked = self.asked

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                asked.append(self.rfile.readline().split()[1].decode())
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                with socket.create_connection(("127.0.0.1", port)) as upstream:
                    back = threading.Thread(target=self.copy, args=(upstream, self.connection), daemon=True)
                    back.start()
                    self.copy(self.connection, upstream)
                    back.join(10)

            @staticmethod
            def copy(source, target):
                with contextlib.suppress(OSError):
                    while data := source.recv(65536):
                        target.sendall(data)
                    target.shutdown(socket.SHUT_WR)

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def program():
    """The program that is tested."""
    return pathlib.Path(os.environ.get("KEYSTEAD_BIN") or TOP / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/keystead").resolve()


def package():
    """The Debian package, of the program that is tested."""
    done = subprocess.run(
        [TOP / "scripts/deb"], env={**os.environ, "KEYSTEAD_PROGRAM": str(program()), "COMPRESSION": "none"}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return TOP / done.stdout.split()[-1]


class Node:
    """A Keystead node: the program, over the wire."""

    def __init__(self, folder, cas, extra="", variables=None):
        self.folder, self.port, self.variables = folder, free_port(), variables or {}
        bundle = folder / "aws-ca.pem"
        bundle.write_bytes(b"".join(pathlib.Path(ca).read_bytes() for ca in cas))
        self.config = folder / "keystead.toml"
        self.config.write_text('[aws_kms]\nallow_endpoints = ["127.0.0.0/8", "localhost"]\nmin_poll_interval = "5s"\n%s%s' % ('extra_ca = "%s"\n' % bundle if cas else "", extra))
        self.ekmip_port = free_port()
        self.process = None
        self.start()

    @property
    def ca(self):
        return self.folder / "data" / "ca.pem"

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYSTEAD_", "AWS_"))}
        environment.update(self.variables, KEYSTEAD_ADMIN_PASSWORD=PASSWORD)
        self.process = Process("keystead", [
            program(), "serve", "--data-dir", self.folder / "data", "--listen", "127.0.0.1:%d" % self.port, "--ekmip-listen", "127.0.0.1:%d" % self.ekmip_port, "--config", self.config,
        ], self.folder, environment)
        wait_until("keystead", lambda: self.ca.exists() and self.session().get("https://127.0.0.1:%d/healthz" % self.port, timeout=5).ok, self.process.child, self.process.log)

    def session(self):
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.ca)
        session.auth = ("admin", PASSWORD)
        return session

    def call(self, method, path, body=None, **kwargs):
        return self.session().request(method, "https://127.0.0.1:%d/api%s" % (self.port, path), json=body, timeout=150, **kwargs)

    def svm(self, name):
        answer = self.call("POST", "/svm/svms?return_timeout=30&return_records=true", {"name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()["records"][0]["uuid"]

    def enable(self, body):
        return self.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", body)

    def enabled(self, body):
        answer = self.enable(body)
        assert answer.status_code == 201, answer.text
        return "/security/aws-kms/" + answer.json()["records"][0]["uuid"]

    def job(self, answer):
        """Waits for the job of a 202 answer, as a client does."""
        assert answer.status_code == 202, answer.text
        path = answer.json()["job"]["_links"]["self"]["href"][len("/api"):]

        def ended():
            job = self.call("GET", path).json()
            return job if job["state"] in ("success", "failure") else None
        return wait_until("the job", ended)

    def stop(self, how=signal.SIGTERM):
        return self.process.stop(how)
