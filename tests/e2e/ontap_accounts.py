"""Accounts and roles with the netapp-ontap package, unmodified. Run by test_netapp_ontap.py with the interpreter of each version; prints what it saw as JSON."""

import json
import sys

from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import Account, AccountPassword, Role, Svm

options = json.loads(sys.argv[1])


def connection(name, password):
    return HostConnection("127.0.0.1", username=name, password=password, port=options["port"], verify=True)


config.CONNECTION = connection("admin", options["password"])
seen = {}


def code(action):
    try:
        action()
    except NetAppRestError as caught:
        return caught.http_err_response.http_response.json()["error"]["code"]
    return None


Svm(name="svm1").post(poll=True, poll_interval=1)
Svm(name="svm2").post(poll=True, poll_interval=1)
account = Account(name="svm_user1", password="a good password", owner={"name": "svm1"}, role={"name": "vsadmin"}, applications=[{"application": "http", "authentication_methods": ["password"]}])
seen["post"] = account.post(hydrate=True).http_response.status_code
seen["hydrated"] = account.to_dict()
found = Account.find(name="svm_user1")
found.get()
seen["get"] = found.to_dict()
with connection("svm_user1", "a good password"):
    seen["svms"] = [svm.name for svm in Svm.get_collection()]
    seen["accounts"] = [one.name for one in Account.get_collection()]
    AccountPassword(name="svm_user1", password="another password").post()
with connection("svm_user1", "another password"):
    seen["own password"] = [svm.name for svm in Svm.get_collection()]
change = Account(name="svm_user1", **{"owner.uuid": found.owner.uuid})
change.locked = True
seen["lock"] = change.patch().http_response.status_code
with connection("svm_user1", "another password"):
    seen["locked"] = code(lambda: list(Svm.get_collection()))
seen["many"] = Account.patch_collection({"comment": "a tenant"}, **{"owner.name": "svm1"}).http_response.status_code
found.get(fields="comment,locked")
seen["comment"] = [found.comment, found.locked]
admin = Account.find(name="admin")
seen["last admin"] = code(lambda: admin.delete())
seen["roles"] = sorted(role.name for role in Role.get_collection())
role = Role(name="vsadmin", **{"owner.uuid": found.owner.uuid})
role.get()
seen["role"] = role.to_dict()
seen["delete"] = found.delete().http_response.status_code
seen["left"] = [one.name for one in Account.get_collection()]
print(json.dumps(seen))
