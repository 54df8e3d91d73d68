"""Real KMIP clients, unmodified: PyKMIP at every version, libmongocrypt, and the flows of well-known products."""

import contextlib
import os
import socket
import ssl

import bson
import pytest
from kmip.core import enums
from kmip.core.factories.attributes import AttributeFactory
from kmip.core.messages import payloads
from kmip.pie import exceptions, objects as pie
from pymongocrypt.mongocrypt import MongoCryptOptions
from pymongocrypt.synchronous.explicit_encrypter import ExplicitEncrypter
from pymongocrypt.synchronous.state_machine import MongoCryptCallback

import kmip_client

VERSIONS = [enums.KMIPVersion.KMIP_1_0, enums.KMIPVersion.KMIP_1_1, enums.KMIPVersion.KMIP_1_2, enums.KMIPVersion.KMIP_1_3, enums.KMIPVersion.KMIP_1_4]
SPOKEN = ["2.1", "2.0", "1.4", "1.3", "1.2", "1.1", "1.0"]
ENCRYPT = [enums.CryptographicUsageMask.ENCRYPT, enums.CryptographicUsageMask.DECRYPT]
FACTORY = AttributeFactory()


@pytest.fixture
def node(ministack, start_node):
    node = start_node(ministack.ca)
    node.svm("svm1")
    node.config_path = node.enabled(ministack.body("svm1"))
    return node


@pytest.fixture
def certificate(node, tmp_path):
    return kmip_client.Certificate(node, "svm1", tmp_path)


def name(value):
    return FACTORY.create_attribute(enums.AttributeType.NAME, value)


@contextlib.contextmanager
def refused(reason):
    with pytest.raises(exceptions.KmipOperationFailure) as error:
        yield
    assert error.value.reason == reason, error.value


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_pykmip_does_all_of_tier_1(node, certificate, version):
    with kmip_client.pykmip(node, certificate, version) as client:
        if version != enums.KMIPVersion.KMIP_1_0:
            spoken = [str(one) for one in client.proxy.discover_versions().protocol_versions]
            assert spoken == SPOKEN
        answer = client.proxy.query(query_functions=[enums.QueryFunction.QUERY_OPERATIONS, enums.QueryFunction.QUERY_OBJECTS, enums.QueryFunction.QUERY_SERVER_INFORMATION])
        assert enums.Operation.CREATE in answer.operations and "Keystead" in answer.vendor_identification

        uid = client.create(enums.CryptographicAlgorithm.AES, 256, name="volume", operation_policy_name="default", cryptographic_usage_mask=ENCRYPT)
        key = client.get(uid)
        assert (len(key.value), key.cryptographic_algorithm, key.cryptographic_length) == (32, enums.CryptographicAlgorithm.AES, 256)

        brought = pie.SymmetricKey(enums.CryptographicAlgorithm.AES, 128, b"0123456789abcdef", masks=ENCRYPT, name="brought")
        secret = pie.SecretData(b"a pass-phrase", enums.SecretDataType.PASSWORD, name="secret")
        opaque = pie.OpaqueObject(b"\x00anything\xff", enums.OpaqueDataType.NONE, name="opaque")
        ids = [client.register(one) for one in (brought, secret, opaque)]
        assert [client.get(one).value for one in ids] == [brought.value, secret.value, opaque.value]

        assert client.locate(attributes=[name("secret")]) == [ids[1]]
        kind = FACTORY.create_attribute(enums.AttributeType.OBJECT_TYPE, enums.ObjectType.SYMMETRIC_KEY)
        assert sorted(client.locate(attributes=[kind])) == sorted([uid, ids[0]])
        assert len(client.locate(maximum_items=2)) == 2

        _, attributes = client.get_attributes(uid, ["State", "Cryptographic Length", "Name", "Operation Policy Name"])
        values = {attribute.attribute_name.value: attribute.attribute_value for attribute in attributes}
        assert values["State"].value == enums.State.PRE_ACTIVE and values["Name"].name_value.value == "volume" and values["Operation Policy Name"].value == "default"
        listed = client.get_attribute_list(uid)
        assert "Digest" in listed and ("Fresh" in listed) == (version != enums.KMIPVersion.KMIP_1_0)
        assert ("Sensitive" in listed) == (version == enums.KMIPVersion.KMIP_1_4)

        client.modify_attribute(uid, attribute=name("renamed"))
        assert client.locate(attributes=[name("volume")]) == [] and client.locate(attributes=[name("renamed")]) == [uid]
        group = FACTORY.create_attribute(enums.AttributeType.OBJECT_GROUP, "group")
        add_attribute(client, uid, group)
        assert client.locate(attributes=[group]) == [uid]
        client.delete_attribute(uid, attribute_name="Object Group", attribute_index=0)
        assert client.locate(attributes=[group]) == []

        client.activate(uid)
        with refused(enums.ResultReason.PERMISSION_DENIED):
            client.destroy(uid)
        client.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, uid)
        client.destroy(uid)
        with refused(enums.ResultReason.ITEM_NOT_FOUND):
            client.get(uid)
        renewed = client.rekey(ids[0])
        assert client.get(renewed).value != brought.value and client.locate(attributes=[name("brought")]) == [renewed]
        for one in ids + [renewed]:
            client.destroy(one)
        assert client.locate() == []


def test_pykmip_at_2_0(node, certificate):
    """The newest version that PyKMIP speaks; what it makes there is seen at 1.2, and the reverse."""
    with kmip_client.pykmip(node, certificate, enums.KMIPVersion.KMIP_2_0) as client:
        assert [str(one) for one in client.proxy.discover_versions().protocol_versions] == SPOKEN
        answer = client.proxy.query(query_functions=[enums.QueryFunction.QUERY_OPERATIONS, enums.QueryFunction.QUERY_OBJECTS])
        assert enums.Operation.SET_ATTRIBUTE in answer.operations and enums.ObjectType.TEMPLATE not in answer.object_types

        uid = client.create(enums.CryptographicAlgorithm.AES, 256, name="volume", cryptographic_usage_mask=ENCRYPT)
        key = client.get(uid)
        assert (len(key.value), key.cryptographic_algorithm, key.cryptographic_length) == (32, enums.CryptographicAlgorithm.AES, 256)
        brought = pie.SymmetricKey(enums.CryptographicAlgorithm.AES, 128, b"0123456789abcdef", masks=ENCRYPT, name="brought")
        secret = pie.SecretData(b"a pass-phrase", enums.SecretDataType.PASSWORD, name="secret")
        opaque = pie.OpaqueObject(b"\x00anything\xff", enums.OpaqueDataType.NONE, name="opaque")
        ids = [client.register(one) for one in (brought, secret, opaque)]
        assert [client.get(one).value for one in ids] == [brought.value, secret.value, opaque.value]
        assert client.locate(attributes=[name("secret")]) == [ids[1]]
        assert len(client.locate(maximum_items=2)) == 2

        _, attributes = client.get_attributes(uid, ["State", "Cryptographic Length", "Name"])
        values = {attribute.attribute_name.value: attribute.attribute_value for attribute in attributes}
        assert values["State"].value == enums.State.PRE_ACTIVE and values["Name"].name_value.value == "volume" and values["Cryptographic Length"].value == 256
        client.set_attribute(uid, attribute_name="Sensitive", attribute_value=True)
        with refused(enums.ResultReason.SENSITIVE):
            client.get(uid)

        client.activate(uid)
        cbc = {"block_cipher_mode": enums.BlockCipherMode.CBC, "padding_method": enums.PaddingMethod.PKCS5, "cryptographic_algorithm": enums.CryptographicAlgorithm.AES}
        iv = bytes(16)
        encrypted, _ = client.encrypt(b"with a key that never leaves", uid=uid, cryptographic_parameters=cbc, iv_counter_nonce=iv)
        assert client.decrypt(encrypted, uid=uid, cryptographic_parameters=cbc, iv_counter_nonce=iv) == b"with a key that never leaves"

        with refused(enums.ResultReason.WRONG_KEY_LIFECYCLE_STATE):
            client.destroy(uid)
        client.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, uid)
        client.destroy(uid)
        with refused(enums.ResultReason.OBJECT_DESTROYED):
            client.get(uid)
        with kmip_client.pykmip(node, certificate, enums.KMIPVersion.KMIP_1_2) as older:
            assert older.get(ids[0]).value == brought.value and older.locate(attributes=[name("secret")]) == [ids[1]]
            theirs = older.create(enums.CryptographicAlgorithm.AES, 128, name="theirs", operation_policy_name="default", cryptographic_usage_mask=ENCRYPT)
        assert len(client.get(theirs).value) == 16 and client.locate(attributes=[name("theirs")]) == [theirs]


def add_attribute(client, uid, attribute):
    """PyKMIP can write an Add Attribute but has no reader for the answer, so that is looked at as bytes."""
    proxy = client.proxy
    proxy._send_message(request_of(proxy, AddAttributePayload(uid, attribute)))
    answer = bytes(proxy._receive_message().buffer)
    success = bytes.fromhex("42007f05" "00000004" "00000000")
    assert success in answer, answer


class AddAttributePayload(payloads.ModifyAttributeRequestPayload):
    """The same fields as Modify Attribute at 1.x (KMIP Specification 1.4, sections 4.14 and 4.15)."""

    def __init__(self, uid, attribute):
        super().__init__(unique_identifier=uid, attribute=attribute)


def request_of(proxy, payload):
    from kmip.core import primitives
    from kmip.core.messages import contents, messages
    item = messages.RequestBatchItem(operation=primitives.Enumeration(enums.Operation, enums.Operation.ADD_ATTRIBUTE, enums.Tags.OPERATION), request_payload=payload)
    return proxy._build_request_message(None, [item])


def test_synology_flow(node, certificate):
    """DSM 7 at 1.2: discover, query, locate, register with a policy, activate, rename, look, read, revoke, destroy."""
    with kmip_client.pykmip(node, certificate) as client:
        assert client.proxy.discover_versions().protocol_versions
        client.proxy.query(query_functions=[enums.QueryFunction.QUERY_OPERATIONS])
        assert client.locate(attributes=[name("synology volume")]) == []
        secret = pie.SymmetricKey(enums.CryptographicAlgorithm.AES, 256, os.urandom(32), masks=ENCRYPT, name="synology volume")
        secret.operation_policy_name = "default"
        uid = client.register(secret)
        client.activate(uid)
        client.modify_attribute(uid, attribute=name("synology volume renamed"))
        _, attributes = client.get_attributes(uid)
        assert "Operation Policy Name" in [attribute.attribute_name.value for attribute in attributes]
        assert client.get(uid).value == secret.value
        client.revoke(enums.RevocationReasonCode.UNSPECIFIED, uid)
        client.destroy(uid)


def test_vast_flow(node, certificate):
    """1.4: create, three attributes, activate, locate, get, state, re-key, revoke, destroy."""
    with kmip_client.pykmip(node, certificate, enums.KMIPVersion.KMIP_1_4) as client:
        uid = client.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=ENCRYPT)
        contact = FACTORY.create_attribute(enums.AttributeType.CONTACT_INFORMATION, "storage team")
        group = FACTORY.create_attribute(enums.AttributeType.OBJECT_GROUP, "vast cluster")
        for attribute in (name("vast tenant"), group, contact):
            add_attribute(client, uid, attribute)
        client.activate(uid)
        assert client.locate(attributes=[name("vast tenant"), group]) == [uid]
        old = client.get(uid).value
        for _ in range(3):
            _, [state] = client.get_attributes(uid, ["State"])
            assert state.attribute_value.value == enums.State.ACTIVE
        new = client.rekey(uid)
        assert client.get(new).value != old and client.get(uid).value == old
        assert client.locate(attributes=[name("vast tenant")]) == [new]
        for one in (uid, new):
            client.revoke(enums.RevocationReasonCode.SUPERSEDED, one)
            client.destroy(one)


def test_vcenter_flow(node, certificate):
    """1.1: create, get, state; each on a connection of its own."""
    def connected():
        return kmip_client.pykmip(node, certificate, enums.KMIPVersion.KMIP_1_1)
    with connected() as client:
        uid = client.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=ENCRYPT)
    with connected() as client:
        assert len(client.get(uid).value) == 32
    with connected() as client:
        _, [state] = client.get_attributes(uid, ["State"])
        assert state.attribute_value.value == enums.State.PRE_ACTIVE


@pytest.mark.parametrize("version", VERSIONS[:3], ids=lambda version: version.name)
def test_pg_tde_and_ceph_flow(node, certificate, version):
    """Register under a name, find it by that name, read it; a name that is taken is refused."""
    with kmip_client.pykmip(node, certificate, version) as client:
        key = pie.SymmetricKey(enums.CryptographicAlgorithm.AES, 128, os.urandom(16), masks=ENCRYPT, name="principal key")
        uid = client.register(key)
        assert client.locate(attributes=[name("principal key")]) == [uid]
        assert client.get(uid).value == key.value
        with refused(enums.ResultReason.INVALID_FIELD):
            client.register(pie.SymmetricKey(enums.CryptographicAlgorithm.AES, 128, os.urandom(16), masks=ENCRYPT, name="principal key"))


class KeyVault(MongoCryptCallback):
    """What a driver does for libmongocrypt: carries its KMIP messages, one TLS connection each, and keeps wrapped data keys."""

    def __init__(self, certificate):
        self.certificate, self.keys, self.messages = certificate, {}, 0

    def kms_request(self, context):
        tls = ssl.create_default_context(cafile=str(self.certificate.ca))
        tls.load_cert_chain(self.certificate.cert, self.certificate.key)
        host, port = context.endpoint.rsplit(":", 1)
        self.messages += 1
        with socket.create_connection((host, int(port)), 30) as plain, tls.wrap_socket(plain, server_hostname=host) as stream:
            stream.sendall(context.message)
            while context.bytes_needed > 0:
                data = stream.recv(context.bytes_needed)
                assert data, "the server has closed the connection"
                context.feed(data)

    def insert_data_key(self, data_key):
        document = bson.decode(data_key)
        self.keys[document["_id"]] = data_key
        return document["_id"]

    def fetch_keys(self, _filter):
        yield from self.keys.values()

    def collection_info(self, *_):
        raise AssertionError("explicit encryption needs none")

    def spawn(self):
        raise AssertionError("explicit encryption needs none")

    def mark_command(self, *_):
        raise AssertionError("explicit encryption needs none")

    def bson_encode(self, document):
        return bson.encode(document)

    def close(self):
        pass


def test_libmongocrypt(node, certificate):
    """The library of MongoDB's drivers, at 1.0: a data key under a master key that it registers, then encrypt, decrypt."""
    endpoint = "127.0.0.1:%d" % node.ekmip_port
    vault = KeyVault(certificate)
    encrypter = ExplicitEncrypter(vault, MongoCryptOptions({"kmip": {"endpoint": endpoint}}))
    try:
        data_key = encrypter.create_data_key("kmip", master_key={"endpoint": endpoint})
        value = bson.encode({"v": "a patient's name"})
        encrypted = encrypter.encrypt(value, "AEAD_AES_256_CBC_HMAC_SHA_512-Random", key_id=data_key)
        assert encrypter.decrypt(encrypted) == value
    finally:
        encrypter.close()
    assert vault.messages >= 4, "register, activate, get, and get again to decrypt"

    # Another process, with nothing in its cache, needs the master key again.
    other = KeyVault(certificate)
    other.keys = vault.keys
    encrypter = ExplicitEncrypter(other, MongoCryptOptions({"kmip": {"endpoint": endpoint}}))
    try:
        assert encrypter.decrypt(encrypted) == value
    finally:
        encrypter.close()
    with kmip_client.pykmip(node, certificate) as client:
        [master] = client.locate()
        assert len(client.get(master).value) == 96


def test_keys_come_back_after_kill_9(node, certificate):
    import signal
    with kmip_client.pykmip(node, certificate) as client:
        uid = client.create(enums.CryptographicAlgorithm.AES, 256, name="kept", cryptographic_usage_mask=ENCRYPT)
        value = client.get(uid).value
    node.stop(signal.SIGKILL)
    node.start()
    import support
    support.wait_until("the KEK", lambda: node.call("GET", node.config_path + "?fields=state").json()["state"]["code"] == "0")
    with kmip_client.pykmip(node, certificate) as client:
        assert client.get(uid).value == value
        answer = node.call("POST", node.config_path + "/rekey-internal?return_timeout=60")
        assert answer.status_code == 201, answer.text
        assert client.get(uid).value == value
