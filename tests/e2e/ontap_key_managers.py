"""What a script does with the onboard key manager and with moving keys, through the netapp-ontap package, unmodified. Run by test_netapp_ontap.py, part by part; prints what it saw as JSON."""

import json
import sys

import requests
from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import AwsKms, EmsEvent, KeyManagerKeys, Node, SecurityKeyManager, SecurityKeystore, Svm

options = json.loads(sys.argv[1])
config.CONNECTION = HostConnection("127.0.0.1", username="admin", password=options["password"], port=options["port"], verify=True)
FIRST, SECOND = "the first cluster passphrase, long enough", "another cluster passphrase, as long as that"
seen = {}


def error(action):
    try:
        action()
    except NetAppRestError as caught:
        found = caught.http_err_response.http_response.json()["error"]
        return [found["code"], found["message"]]
    return None


def changed(**onboard):
    resource = SecurityKeyManager(uuid=SecurityKeyManager.find(scope="cluster").uuid)
    resource.onboard = onboard
    return resource.patch(poll=True, poll_interval=1)


def key_ids(manager):
    node = next(iter(Node.get_collection()))
    found = KeyManagerKeys.get_collection(manager, node.uuid, fields="*", max_records=2)
    return [one.to_dict() for one in found]


def onboard_key_manager():
    Svm(name="svm1").post(poll=True, poll_interval=1)
    seen["none"] = SecurityKeyManager.count_collection()
    seen["short"] = error(lambda: SecurityKeyManager(onboard={"passphrase": "too short"}).post())
    seen["of an svm"] = error(lambda: SecurityKeyManager(onboard={"passphrase": FIRST}, svm={"name": "svm1"}).post())
    seen["partner"] = error(lambda: SecurityKeyManager(onboard={"passphrase": FIRST, "synchronize": True}).post())
    resource = SecurityKeyManager(onboard={"passphrase": FIRST})
    resource.post(hydrate=True, poll=True, poll_interval=1)
    resource.get(fields="*,status,volume_encryption")
    seen["get"] = resource.to_dict()
    seen["collection"] = [one.to_dict() for one in SecurityKeyManager.get_collection(fields="*")]
    seen["again"] = error(lambda: SecurityKeyManager(onboard={"passphrase": FIRST}).post())
    seen["wrong"] = error(lambda: changed(existing_passphrase=SECOND, passphrase=SECOND))
    seen["same"] = error(lambda: changed(existing_passphrase=FIRST, passphrase=FIRST))
    seen["alone"] = error(lambda: changed(passphrase=SECOND))
    seen["patch"] = changed(existing_passphrase=FIRST, passphrase=SECOND).http_response.status_code
    seen["synchronize alone"] = error(lambda: changed(synchronize=True))
    seen["synchronize both"] = error(lambda: changed(synchronize=True, existing_passphrase=SECOND, passphrase=FIRST))
    seen["synchronize"] = changed(synchronize=True, existing_passphrase=SECOND).http_response.status_code


def move():
    seen["onboard keys"] = key_ids(SecurityKeyManager.find(scope="cluster").uuid)
    seen["refused"] = error(lambda: AwsKms(**dict(options["body"], svm={"name": "svm1"})).post())
    # The member that asks for a move is Keystead's own, and no field of this library's: a setting stands for it.
    assert requests.patch(options["settings"], json={"aws_kms": {"migrate_on_enable": True}}, auth=("admin", options["password"]), timeout=30).ok
    aws = AwsKms(**dict(options["body"], svm={"name": "svm1"}))
    seen["enable"] = aws.post(poll=True, poll_interval=1).http_response.status_code
    onboard, aws = SecurityKeyManager.find(scope="cluster"), AwsKms.find(**{"svm.name": "svm1"})
    seen["aws keys"] = key_ids(aws.uuid)
    seen["stores"] = [one.to_dict() for one in SecurityKeystore.get_collection(fields="*")]
    seen["same uuid"] = error(lambda: onboard.migrate(body={"uuid": onboard.uuid}))
    seen["unknown"] = error(lambda: onboard.migrate(body={"uuid": "1cd8a442-86d1-11e0-ae1c-123478563434"}))
    source = SecurityKeyManager(uuid=aws.uuid)
    seen["migrate"] = source.migrate(body={"uuid": onboard.uuid}, poll=True, poll_interval=1).http_response.status_code
    seen["moved keys"] = key_ids(onboard.uuid)
    store = SecurityKeystore(uuid=aws.uuid)
    store.get()
    seen["store"] = store.to_dict()
    seen["nothing left"] = error(lambda: source.migrate(body={"uuid": onboard.uuid}))
    # Arguments of an action in the URL, as the library puts them.
    seen["migrate back"] = onboard.migrate(uuid=aws.uuid, poll=True, poll_interval=1).http_response.status_code
    seen["in use"] = error(lambda: aws.delete())
    seen["events"] = [one.message.name for one in EmsEvent.get_collection(fields="*") if one.message.name.startswith("keystead.migrate.")]


{"onboard": onboard_key_manager, "move": move}[options["part"]]()
print(json.dumps(seen))
