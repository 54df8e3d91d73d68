"""PyKMIP's own server in a process of its own, on loopback, with its certificates, policy and database in a folder; and a client of it."""

import contextlib
import datetime
import ipaddress
import json
import os
import pathlib
import signal
import socket
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kmip.core import enums
from kmip.pie.client import ProxyKmipClient

import support

# PyKMIP's policies name operations; one that is not named is refused to all. This one lets a key be used, but not given out.
POLICIES = {"kept": {"preset": {kind: {operation: "ALLOW_OWNER" for operation in ("LOCATE", "GET_ATTRIBUTES", "GET_ATTRIBUTE_LIST", "ACTIVATE", "REVOKE", "DESTROY")} | {"GET": "DISALLOW_ALL"}
                                for kind in ("SYMMETRIC_KEY", "SECRET_DATA")}}}


class Pki:
    """A CA, and certificates of it in files: PyKMIP wants those of clients to name their use and their owner."""

    def __init__(self, folder):
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of the source")])
        self.ca = folder / "source-ca.pem"
        self.ca.write_bytes(self._signed(self.name, self.key.public_key(), (x509.BasicConstraints(ca=True, path_length=0), True)))

    def issue(self, name, usage):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        cert, private = self.folder / (name + ".pem"), self.folder / (name + ".key")
        cert.write_bytes(self._signed(subject, key.public_key(), (names, False), (x509.ExtendedKeyUsage([usage]), False)))
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return cert, private

    def _signed(self, subject, public_key, *extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public_key).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Server:
    """The server, from its start to its stop."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.pki, self.port, self.process = Pki(self.folder), support.free_port(), None
        self.cert, self.key = self.pki.issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
        self.client_cert, self.client_key = self.pki.issue("owner", ExtendedKeyUsageOID.CLIENT_AUTH)
        (self.folder / "policies").mkdir()
        (self.folder / "policies" / "policies.json").write_text(json.dumps(POLICIES))
        settings = {
            "hostname": "127.0.0.1", "port": self.port, "certificate_path": self.cert, "key_path": self.key, "ca_path": self.pki.ca, "auth_suite": "TLS1.2",
            "policy_path": self.folder / "policies", "enable_tls_client_auth": "True", "logging_level": "INFO", "database_path": self.folder / "source.db"}
        self.config = self.folder / "server.conf"
        self.config.write_text("[server]\n" + "".join("%s=%s\n" % setting for setting in settings.items()))
        self.start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def start(self):
        program = pathlib.Path(sys.executable).with_name("pykmip-server")
        self.process = support.Process("pykmip", [program, "-f", self.config, "-l", self.folder / "server.log"], self.folder)

        def listens():
            with socket.create_connection(("127.0.0.1", self.port), 5):
                return True
        support.wait_until("PyKMIP's server", listens, self.process.child, self.process.log)

    def stop(self):
        """With SIGKILL, it and its children: on SIGTERM it waits for its connections."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.child.pid, signal.SIGKILL)
        self.process.child.wait(30)

    @contextlib.contextmanager
    def client(self, version=enums.KMIPVersion.KMIP_1_4):
        config = self.folder / "client.conf"
        config.write_text("[client]\n")
        client = ProxyKmipClient(
            hostname="127.0.0.1", port=self.port, cert=str(self.client_cert), key=str(self.client_key), ca=str(self.pki.ca), config_file=str(config), kmip_version=version)
        with client:
            yield client
