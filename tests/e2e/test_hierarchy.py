"""The hierarchy, on both emulators: wrapped, proven, durable, moved to another key."""

import signal

import support


def states(node, path):
    record = node.call("GET", path + "?fields=**").json()
    return record["state"], record["amazon_reachability"]


def test_enable_restart_rekey_restore_delete(kms, start_node):
    node = start_node(kms.ca)
    node.svm("svm1")
    first = kms.new_key()
    path = node.enabled(kms.body("svm1", key_id=first, encryption_context='{"tenant": "1", "purpose": "a=b"}'))
    well = ({"cluster_state": True, "code": "0", "message": ""}, {"reachable": True, "code": "0", "message": ""})
    assert states(node, path) == well
    before = node.call("GET", path).json()

    # What was acknowledged survives kill -9, and the KEK comes back by itself.
    node.stop(signal.SIGKILL)
    node.start()
    assert node.call("GET", path).json() == before
    support.wait_until("the KEK to be unwrapped", lambda: states(node, path) == well)

    other = kms.new_key()
    answer = node.call("POST", path + "/rekey-external?return_timeout=60", {"key_id": other})
    assert answer.status_code == 201, answer.text
    assert node.call("GET", path).json()["key_id"] == other
    answer = node.call("POST", path + "/restore?return_timeout=60&return_records=true")
    assert answer.status_code == 201 and answer.json()["num_records"] == 1, answer.text
    assert answer.headers["Location"] == "/api" + path

    # Only the new key is needed from now on: the first one may go, and the KEK still comes back after a restart.
    kms.client("kms").schedule_key_deletion(KeyId=first, PendingWindowInDays=7)
    assert node.call("POST", path + "/restore?return_timeout=60").status_code == 201
    node.stop(signal.SIGKILL)
    node.start()
    support.wait_until("the KEK to be unwrapped by the new key alone", lambda: states(node, path) == well)
    assert node.call("DELETE", path + "?return_timeout=60", {}).status_code == 200
    gone = node.call("GET", path)
    assert (gone.status_code, gone.json()["error"]["code"], gone.json()["error"]["message"]) == (404, "4", "entry doesn't exist")
    # The SVM is free again.
    node.enabled(kms.body("svm1"))


def test_a_context_that_does_not_match_fails(kms, start_node):
    node = start_node(kms.ca)
    node.svm("svm1")
    path = node.enabled(kms.body("svm1", encryption_context="tenant=1"))
    answer = node.call("PATCH", path + "?return_timeout=60", {"encryption_context": "tenant=2"})
    assert answer.status_code == 200, answer.text
    support.wait_until("good health", lambda: states(node, path)[0]["code"] == "0")
    # The emulator itself refuses the blob under any other context: the one that was given is really bound.
    node.stop()
    import base64
    import sqlite3
    import json
    rows = sqlite3.connect(node.folder / "data" / "store.db").execute("SELECT value FROM record WHERE key LIKE '/keks/%'").fetchall()
    record = json.loads(rows[0][0])
    assert len(rows) == 1 and record["encryption_context"] == "tenant=2"
    client = kms.client("kms")
    blob = base64.b64decode(record["blob"])
    assert len(client.decrypt(CiphertextBlob=blob, KeyId=record["key_arn"], EncryptionContext={"tenant": "2"})["Plaintext"]) == 32
    try:
        client.decrypt(CiphertextBlob=blob, KeyId=record["key_arn"], EncryptionContext={"tenant": "1"})
    except client.exceptions.InvalidCiphertextException:
        return
    raise AssertionError("the old context still opens the blob")


def test_a_wrong_secret_really_fails(ministack, start_node):
    node = start_node(ministack.ca)
    node.svm("svm1")
    answer = node.enable(ministack.body("svm1", secret_access_key="not the secret"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "65537900"), answer.text


def test_a_rotated_key_still_unwraps(moto, start_node):
    node = start_node(moto.ca)
    node.svm("svm1")
    key = moto.new_key()
    path = node.enabled(moto.body("svm1", key_id=key))
    moto.client("kms").rotate_key_on_demand(KeyId=key)
    assert node.call("POST", path + "/restore?return_timeout=60").status_code == 201
    assert node.call("POST", path + "/rekey-external?return_timeout=60", {"key_id": key}).status_code == 201


def test_a_key_that_is_disabled_in_aws(ministack, start_node):
    node = start_node(ministack.ca)
    node.svm("svm1")
    key = ministack.new_key()
    path = node.enabled(ministack.body("svm1", key_id=key))
    ministack.client("kms").disable_key(KeyId=key)
    answer = node.call("POST", path + "/rekey-external?return_timeout=60", {"key_id": ministack.key_id})
    assert answer.json()["error"]["code"] == "65537538", answer.text
    ministack.client("kms").enable_key(KeyId=key)
    assert node.call("POST", path + "/rekey-external?return_timeout=60", {"key_id": ministack.key_id}).status_code == 201
