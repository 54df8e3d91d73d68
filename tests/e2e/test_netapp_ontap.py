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
