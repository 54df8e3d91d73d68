"""The netapp-ontap package, unmodified: the newest version, and the one of the release that the contract was taken from."""

import json
import os
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kmip.core import enums

import kmip_client
import support


@pytest.mark.parametrize("environment", [".venv", ".venv-ontap-9.16"])
def test_a_script_for_ontap_runs_unchanged(environment, ministack, start_node):
    node = start_node(ministack.ca)
    body = {name: value for name, value in ministack.body("svm1").items() if name != "svm"}
    options = json.dumps({"password": support.PASSWORD, "port": node.port, "body": body, "other_key": ministack.new_key()})
    surroundings = dict(os.environ, REQUESTS_CA_BUNDLE=str(node.ca))
    ran = subprocess.run([support.TOP / environment / "bin/python", support.TOP / "tests/e2e/ontap_client.py", options], env=surroundings, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout)

    raised = {
        "wrong secret": ("65537900", "AWS refuses the access key or its secret"),
        "missing field": ("262212", "A required field is missing: region"),
        "unknown svm": ("2621462", "The SVM does not exist: nowhere"),
        "admin svm": ("65537908", "cannot be configured for the admin SVM"),
        "second": ("65537910", "already has a key manager"),
        "unknown field": ("262197", "nonsense"),
        "wrong patch": ("65537921", "cannot be used with these credentials"),
        "rekey_internal": ("65537559", "has no keys yet"),
    }
    for name, (code, text) in raised.items():
        assert seen[name][0] == code and text in seen[name][1], (name, seen[name])
    assert (seen["post"], seen["patch"], seen["patch period"], seen["restore"], seen["rekey_external"], seen["rekey_external body"], seen["delete"]) == (200,) * 7

    record = seen["get"]
    assert record["uuid"] == seen["uuid"] == seen["found"] and record["svm"]["name"] == "svm1"
    assert record["region"] == "us-east-1" and record["host"] == "127.0.0.1" and record["port"] == ministack.port
    assert "state" not in record and "secret_access_key" not in record
    assert [one["uuid"] for one in seen["collection *"]] == [seen["uuid"]] and "state" not in seen["collection *"][0]
    everything = seen["collection **"][0]
    assert everything["state"] == {"cluster_state": True, "code": "0", "message": ""}
    assert everything["amazon_reachability"] == {"reachable": True, "code": "0", "message": ""}
    assert (seen["not found"], seen["count"], seen["period"], seen["left"]) == (True, 1, 5, 0)


@pytest.mark.parametrize("environment", [".venv", ".venv-ontap-9.16"])
def test_collections(environment, start_node):
    """With SOAK=1 over 25,000 records."""
    # Clients ask for each of thousands of jobs, one after the other: the first must still be known then.
    node = start_node(extra='[jobs]\nretention = "24h"\n')
    count = 25_000 if os.environ.get("SOAK") else 600
    options = json.dumps({"password": support.PASSWORD, "port": node.port, "count": count, "page": count // 7})
    surroundings = dict(os.environ, REQUESTS_CA_BUNDLE=str(node.ca))
    ran = subprocess.run([support.TOP / environment / "bin/python", support.TOP / "tests/e2e/ontap_collections.py", options], env=surroundings, capture_output=True, text=True, timeout=3600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout)
    tens = ["svm%05d" % n for n in range(10)]
    assert seen["made"] and seen["count"] == count
    assert (seen["some"], seen["either"], seen["not"], seen["range"]) == (tens, ["svm00001", "svm00003"], [], ["svm00002", "svm00003", "svm00004"])
    assert seen["pages name"] and seen["pages name desc"] and seen["pages plain"]
    assert (seen["patched"], seen["unknown"], seen["new"], seen["left"]) == (tens, "262179", 1, 0)
    assert "exists already" in seen["twice"]


@pytest.mark.parametrize("environment", [".venv", ".venv-ontap-9.16"])
def test_certificates_and_fips_mode(environment, start_node):
    node = start_node()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www.example")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(x509.SubjectAlternativeName([x509.DNSName("www.example")]), critical=False).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    options = json.dumps({"password": support.PASSWORD, "port": node.port, "csr": csr.public_bytes(serialization.Encoding.PEM).decode(), "key": pem})
    surroundings = dict(os.environ, REQUESTS_CA_BUNDLE=str(node.ca))
    ran = subprocess.run([support.TOP / environment / "bin/python", support.TOP / "tests/e2e/ontap_certificates.py", options], env=surroundings, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout)

    assert (seen["post"], seen["install"], seen["delete"]) == (200, 200, [200, 200])
    assert (seen["type"], seen["size"], seen["in use"], seen["fips size"], seen["fips hash"]) == ("3735622", "3735700", "8", "3735664", "3735665")
    ca, found = seen["ca"], seen["found"]
    assert (ca["common_name"], ca["key_size"], ca["hash_function"], ca["scope"], ca["svm"]["name"]) == ("TEST-ROOT-CA", 2048, "sha256", "svm", "svm1")
    assert (found["common_name"], found["ca"], found["subject_alternatives"]["dns"]) == ("www.example", "TEST-ROOT-CA", ["www.example"]) and "private_key" not in found
    assert seen["names"] == ["TEST-ROOT-CA", "www.example"]
    # Another library agrees on what was signed, and on the request.
    signed, root = (x509.load_pem_x509_certificate(text.encode()) for text in (seen["sign"], ca["public_certificate"]))
    signed.verify_directly_issued_by(root)
    assert signed.public_key() == key.public_key()
    request = x509.load_pem_x509_csr(seen["csr"]["csr"].encode())
    assert request.is_signature_valid and request.subject.rfc4514_string() == "CN=test.domain.com,O=NTAP,C=US"
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.example.com"] and len(names) == 4
    generated = serialization.load_pem_private_key(seen["csr"]["generated_private_key"].encode(), None)
    assert generated.public_key() == request.public_key() and generated.key_size == 2048
    assert (seen["fips"], seen["fips on"]) == (False, True)


@pytest.mark.parametrize("environment", [".venv", ".venv-ontap-9.16"])
def test_the_onboard_key_manager_and_moving_keys(environment, ministack, start_node, tmp_path):
    node = start_node(ministack.ca)

    def run(part):
        body = {name: value for name, value in ministack.body("svm1").items() if name != "svm"}
        options = json.dumps({"password": support.PASSWORD, "port": node.port, "part": part, "body": body, "settings": "https://127.0.0.1:%d/api/security/ekmip/settings" % node.port})
        surroundings = dict(os.environ, REQUESTS_CA_BUNDLE=str(node.ca))
        script = support.TOP / "tests/e2e/ontap_key_managers.py"
        ran = subprocess.run([support.TOP / environment / "bin/python", script, options], env=surroundings, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr[-3000:]
        return json.loads(ran.stdout)

    seen = run("onboard")
    # The texts of the passphrase are what Ansible's na_ontap_security_key_manager looks for.
    raised = {
        "short": ("65536920", "does not have the length that is allowed"),
        "of an svm": ("65536916", "for the admin SVM alone"),
        "partner": ("65537246", "not part of a MetroCluster configuration"),
        "again": ("65536907", "is already configured"),
        "wrong": ("65536139", "Cluster-wide passphrase is incorrect."),
        "same": ("65536150", "The new passphrase is same as old passphrase."),
        "alone": ("65536917", "needs the existing one"),
        "synchronize alone": ("65537242", "must be given to synchronize"),
        "synchronize both": ("65537243", "must not be given to synchronize"),
    }
    for name, (code, text) in raised.items():
        assert seen[name][0] == code and text in seen[name][1], (name, seen[name])
    assert (seen["none"], seen["patch"], seen["synchronize"]) == (0, 200, 200)
    assert seen["get"]["onboard"]["enabled"] is True and seen["get"]["scope"] == "cluster" and seen["get"]["volume_encryption"]["supported"] is True
    assert [one["uuid"] for one in seen["collection"]] == [seen["get"]["uuid"]]

    with kmip_client.pykmip(node, kmip_client.Certificate(node, "svm1", tmp_path)) as client:
        keys = {uid: client.get(uid).value for uid in (client.create(enums.CryptographicAlgorithm.AES, 256) for _ in range(5))}
        seen = run("move")
        assert {uid: client.get(uid).value for uid in keys} == keys
    assert seen["refused"][0] == "65537912" and seen["enable"] == 200
    for name in ("onboard keys", "aws keys", "moved keys"):
        ids = seen[name]
        assert {one["key_id"] for one in ids if one["key_type"] == "vek"} == set(keys) and [one["key_type"] for one in ids].count("svm_kek") == 1
        assert all(one["restored"] is True and one["svm"]["name"] == "svm1" and one["encryption_algorithm"] == "AES-256" for one in ids)
    stores = {one["type"]: one for one in seen["stores"]}
    assert (stores["okm"]["location"], stores["aws"]["location"], stores["aws"]["state"], stores["aws"]["enabled"]) == ("onboard", "external", "active", True)
    assert (seen["same uuid"][0], seen["unknown"][0], seen["nothing left"][0], seen["in use"][0]) == ("65536959", "65537117", "65537559", "65537106")
    assert (seen["migrate"], seen["migrate back"]) == (200, 200) and seen["store"]["enabled"] is False
    assert sorted(seen["events"]) == sorted(["keystead.migrate.started", "keystead.migrate.turned", "keystead.migrate.finished"] * 3)


@pytest.mark.parametrize("environment", [".venv", ".venv-ontap-9.16"])
def test_accounts_and_roles(environment, start_node):
    node = start_node()
    options = json.dumps({"password": support.PASSWORD, "port": node.port})
    surroundings = dict(os.environ, REQUESTS_CA_BUNDLE=str(node.ca))
    ran = subprocess.run([support.TOP / environment / "bin/python", support.TOP / "tests/e2e/ontap_accounts.py", options], env=surroundings, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout)

    assert (seen["post"], seen["lock"], seen["many"], seen["delete"]) == (200, 200, 200, 200)
    account = seen["get"]
    assert (account["name"], account["scope"], account["role"]["name"], account["owner"]["name"], account["locked"]) == ("svm_user1", "svm", "vsadmin", "svm1", False)
    assert account["applications"] == [{"application": "http", "authentication_methods": ["password"], "second_authentication_method": "none"}] and "password" not in account
    assert seen["hydrated"]["owner"]["name"] == "svm1"
    assert (seen["svms"], seen["accounts"], seen["own password"]) == (["svm1"], ["svm_user1"], ["svm1"])
    assert (seen["locked"], seen["comment"], seen["last admin"]) == ("6691623", ["a tenant", True], "5636098")
    assert seen["roles"] == ["admin", "readonly", "vsadmin", "vsadmin"] and seen["role"]["builtin"] is True
    assert seen["left"] == ["admin"]
