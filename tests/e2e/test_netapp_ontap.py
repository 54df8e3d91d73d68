"""The netapp-ontap package, unmodified: the newest version, and the one of the release that the contract was taken from."""

import json
import os
import subprocess

import pytest

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

    assert "AWS refuses the access key or its secret" in seen["wrong secret"]
    assert "A required field is missing: region" in seen["missing field"]
    assert "The SVM does not exist: nowhere" in seen["unknown svm"]
    assert "cannot be configured for the admin SVM" in seen["admin svm"]
    assert "already has a key manager" in seen["second"]
    assert "nonsense" in seen["unknown field"]
    assert "cannot be used with these credentials" in seen["wrong patch"]
    assert "has no keys yet" in seen["rekey_internal"]
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
