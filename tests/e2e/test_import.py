"""`keystead ekmip import` from PyKMIP's own server: what is there comes over once, the same, and is read back by PyKMIP from Keystead."""

import datetime
import json
import os
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kmip.core import enums
from kmip.core.factories.attributes import AttributeFactory
from kmip.pie import objects as pie

import kmip_client
import pykmip_server
import support

AES = enums.CryptographicAlgorithm.AES
ENCRYPT = [enums.CryptographicUsageMask.ENCRYPT, enums.CryptographicUsageMask.DECRYPT]
FACTORY = AttributeFactory()
STATES = {"PreActive": enums.State.PRE_ACTIVE, "Active": enums.State.ACTIVE, "Deactivated": enums.State.DEACTIVATED, "Compromised": enums.State.COMPROMISED}


@pytest.fixture
def node(start_node):
    """A node whose SVM keeps keys with the onboard key manager."""
    node = start_node()
    node.svm("svm1")
    answer = node.call("POST", "/security/key-managers?return_timeout=30", {"onboard": {"passphrase": "a passphrase that is long enough for it"}})
    assert answer.status_code == 201, answer.text
    return node


@pytest.fixture
def certificate(node, tmp_path):
    return kmip_client.Certificate(node, "svm1", tmp_path)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    server = pykmip_server.Server(folder)
    yield server
    server.stop()


class Import:
    """One run of the program."""

    def __init__(self, node, certificate, source, folder, *more):
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        command = [
            support.program(), "ekmip", "import", "--source", source.address, "--source-ca", source.pki.ca, "--source-cert", source.client_cert, "--source-key", source.client_key,
            "--destination", "127.0.0.1:%d" % node.ekmip_port, "--destination-ca", certificate.ca, "--destination-cert", certificate.cert, "--destination-key", certificate.key,
            "--report", report, *more]
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        self.code, self.said = ended.returncode, ended.stdout + ended.stderr
        self.text = report.read_text() if report.exists() else ""
        self.report = json.loads(self.text) if self.text else None

    @property
    def totals(self):
        return {outcome: count for outcome, count in self.report["totals"].items() if count}

    def entry(self, source_id):
        [entry] = [entry for entry in self.report["objects"] if entry["source_id"] == source_id]
        return entry


def certificate_der():
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moved")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    return builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def key(name, length=256):
    return pie.SymmetricKey(AES, length, os.urandom(length // 8), masks=ENCRYPT, name=name)


def fill(client):
    """One of each, in each state. Answers what was made: identifier, object, state."""
    made = []

    def register(one, state="PreActive"):
        uid = client.register(one)
        if state in ("Active", "Deactivated"):
            client.activate(uid)
        if state == "Deactivated":
            client.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, uid)
        if state == "Compromised":
            client.revoke(enums.RevocationReasonCode.KEY_COMPROMISE, uid)
        made.append((uid, one, state))

    for state in STATES:
        register(key("key " + state), state)
    register(key("small", 128), "Active")
    register(pie.SymmetricKey(enums.CryptographicAlgorithm.TRIPLE_DES, 192, os.urandom(24), masks=ENCRYPT, name="des"))
    register(pie.SecretData(b"a pass-phrase", enums.SecretDataType.PASSWORD, name="secret"), "Active")
    register(pie.OpaqueObject(b"\x00anything\xff", enums.OpaqueDataType.NONE, name="opaque"), None)
    register(pie.X509Certificate(certificate_der(), name="certificate"))
    for uid in client.create_key_pair(enums.CryptographicAlgorithm.RSA, 2048, public_name="public", private_name="private", public_usage_mask=[enums.CryptographicUsageMask.VERIFY],
                                      private_usage_mask=[enums.CryptographicUsageMask.SIGN]):
        made.append((uid, client.get(uid), "PreActive"))
    uid = client.create(AES, 192, name="made there", cryptographic_usage_mask=ENCRYPT)
    made.append((uid, client.get(uid), "PreActive"))
    return made


def secrets(made):
    return [form for _, one, _ in made for form in (one.value.hex(), one.value.hex().upper())]


def read_back(client, imported, made):
    """What PyKMIP reads from Keystead is what it has put into its own server."""
    for uid, one, state in made:
        entry = imported.entry(uid)
        there = client.get(entry["destination_id"])
        assert (type(there), there.value) == (type(one), one.value), entry
        if not isinstance(one, (pie.OpaqueObject, pie.SecretData, pie.X509Certificate)):
            assert (there.cryptographic_algorithm, there.cryptographic_length, there.key_format_type) == (one.cryptographic_algorithm, one.cryptographic_length, one.key_format_type), entry
        _, attributes = client.get_attributes(entry["destination_id"], ["Name", "State", "Cryptographic Usage Mask"])
        values = {attribute.attribute_name.value: attribute.attribute_value for attribute in attributes}
        assert values["Name"].name_value.value == entry["names"][0]
        assert [values["State"].value if "State" in values else None] == [STATES.get(state)], entry
        if isinstance(one, pie.SymmetricKey):
            assert values["Cryptographic Usage Mask"].value == 12
        assert client.locate(attributes=[FACTORY.create_attribute(enums.AttributeType.NAME, entry["names"][0])]) == [entry["destination_id"]]
    assert len(client.locate()) == len(made)


@pytest.mark.parametrize("version", [None, "1.0", "1.2", "1.4"])
def test_everything_comes_over_once(node, certificate, source, tmp_path, version):
    with source.client() as client:
        made = fill(client)
    arguments = ["--source-version", version] if version else []

    rehearsed = Import(node, certificate, source, tmp_path, *arguments, "--dry-run")
    assert (rehearsed.code, rehearsed.totals) == (0, {"would_move": len(made)}), rehearsed.said
    with kmip_client.pykmip(node, certificate) as client:
        assert client.locate() == []

    first = Import(node, certificate, source, tmp_path, *arguments)
    assert (first.code, first.totals, first.report["complete"]) == (0, {"moved": len(made)}, True), first.said
    assert first.report["source"]["protocol_version"] == (version or "2.0")
    assert all(not entry["notes"] for entry in first.report["objects"]), first.text
    with kmip_client.pykmip(node, certificate) as client:
        read_back(client, first, made)

    again = Import(node, certificate, source, tmp_path, *arguments)
    assert (again.code, again.totals) == (0, {"already_there": len(made)}), again.said
    assert {entry["source_id"]: entry["destination_id"] for entry in again.report["objects"]} == {entry["source_id"]: entry["destination_id"] for entry in first.report["objects"]}
    with kmip_client.pykmip(node, certificate) as client:
        read_back(client, again, made)
    for secret in secrets(made):
        for text in (first.said, first.text, again.said, again.text, rehearsed.text, node.process.log.read_text()):
            assert secret not in text


def test_what_cannot_be_moved_is_said_and_the_rest_goes_on(node, certificate, source, tmp_path):
    with source.client() as client:
        twins = [client.register(key("twin")) for _ in range(2)]
        fine = client.register(key("fine"))
        hidden = key("hidden")
        hidden.operation_policy_name = "kept"
        hidden = client.register(hidden)
        large = client.register(pie.OpaqueObject(bytes(300 * 1024), enums.OpaqueDataType.NONE, name="too large"))
        client.destroy(client.register(key("gone")))
        sensitive = client.register(key("sensitive"))
    with source.client(enums.KMIPVersion.KMIP_2_0) as client:
        client.set_attribute(sensitive, attribute_name="Sensitive", attribute_value=True)
    imported = Import(node, certificate, source, tmp_path, "--source-version", "1.4")
    assert imported.code == 3, imported.said
    outcomes = {entry["source_id"]: (entry["outcome"], entry["reason"] and (entry["reason"]["at"], entry["reason"]["code"])) for entry in imported.report["objects"]}
    assert outcomes.pop(fine) == outcomes.pop(sensitive) == ("moved", None), "PyKMIP gives out what is sensitive"
    assert outcomes.pop(hidden) == ("not_moved", ("source", "PermissionDenied"))
    assert outcomes.pop(large) == ("not_moved", ("destination", "InvalidField"))
    assert sorted(outcomes.pop(twin)[0] for twin in twins) == ["moved", "not_moved"]
    [refused] = [imported.entry(twin) for twin in twins if imported.entry(twin)["outcome"] == "not_moved"]
    assert refused["reason"]["code"] == "NameTaken" and "--drop-taken-names" in refused["reason"]["advice"]
    assert not outcomes, "what is destroyed is not listed"

    renamed = Import(node, certificate, source, tmp_path, "--source-version", "1.4", "--drop-taken-names")
    entry = renamed.entry(refused["source_id"])
    assert entry["outcome"] == "moved" and entry["names"] == [] and entry["notes"][0]["attribute"] == "Name", renamed.text


def test_a_selection_and_another_run_for_the_rest(node, certificate, source, tmp_path):
    with source.client() as client:
        ids = [client.register(key("volume %d" % number)) for number in range(4)]
        secret = client.register(pie.SecretData(b"words", enums.SecretDataType.PASSWORD, name="secret"))
    some = Import(node, certificate, source, tmp_path, "--name", "volume 1", "--name", "volume 2")
    assert (some.code, [entry["source_id"] for entry in some.report["objects"]]) == (0, ids[1:3]), some.said
    keys = Import(node, certificate, source, tmp_path, "--object-type", "SymmetricKey")
    assert keys.totals == {"moved": 2, "already_there": 2}, keys.text
    rest = Import(node, certificate, source, tmp_path)
    assert rest.totals == {"moved": 1, "already_there": 4} and rest.entry(secret)["outcome"] == "moved", rest.text


def test_a_source_that_goes_away_is_waited_for_and_then_named(node, certificate, source, tmp_path):
    with source.client() as client:
        client.register(key("volume"))
    source.stop()
    gone = Import(node, certificate, source, tmp_path, "--retries", "1")
    assert gone.code == 1 and source.address in gone.said and gone.report["error"] and not gone.report["complete"], gone.said
    source.start()
    assert Import(node, certificate, source, tmp_path).totals == {"moved": 1}
