"""What a script does to many records with the netapp-ontap package, unmodified: filters, orders, pages, and calls on whole collections. Run by test_netapp_ontap.py; prints what it saw as JSON."""

import json
import sys
import threading

from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import Svm

options = json.loads(sys.argv[1])
config.CONNECTION = HostConnection("127.0.0.1", username="admin", password=options["password"], port=options["port"], verify=True, poll_timeout=600, poll_interval=1)
seen = {}
# What a call with many records may have at the most.
CALL = 2000


def names(prefix, count):
    return ["%s%05d" % (prefix, n) for n in range(count)]


wanted = names("svm", options["count"])
made = []
for at in range(0, len(wanted), CALL):
    made += [svm.name for svm in Svm.post_collection([Svm(name=name) for name in wanted[at:at + CALL]], continue_on_failure=True)]
seen["made"] = made == wanted
seen["count"] = Svm.count_collection()
seen["some"] = sorted(svm.name for svm in Svm.get_collection(name="svm0000*"))
seen["either"] = sorted(svm.name for svm in Svm.get_collection(name="svm00001|svm00003|nobody"))
seen["not"] = sorted(svm.name for svm in Svm.get_collection(name="!svm*"))
seen["range"] = sorted(svm.name for svm in Svm.get_collection(name="svm00002..svm00004"))

# Pages, while others change.
stop = threading.Event()


def others():
    n = 0
    while not stop.is_set():
        svm = Svm(name="other%05d" % n)
        svm.post(poll=False)
        n += 1
        try:
            next(iter(Svm.get_collection(name="other*", max_records=1))).delete(poll=False)
        except (StopIteration, NetAppRestError):
            pass


thread = threading.Thread(target=others)
thread.start()
try:
    for order in ("name", "name desc", ""):
        given = {"order_by": order} if order else {}
        paged = [svm.name for svm in Svm.get_collection(fields="name", max_records=options["page"], **given)]
        ours = [name for name in paged if name.startswith("svm")]
        expected = sorted(wanted, reverse=order.endswith("desc"))
        seen["pages %s" % (order or "plain")] = (ours if order else sorted(ours)) == expected and len(set(paged)) == len(paged)
finally:
    stop.set()
    thread.join()

Svm.patch_collection({"comment": "changed"}, name="svm0000*")
seen["patched"] = sorted(svm.name for svm in Svm.get_collection(comment="changed"))
try:
    Svm.patch_collection({"comment": "changed"}, nonsense="x")
except NetAppRestError as caught:
    seen["unknown"] = caught.http_err_response.http_response.json()["error"]["code"]
try:
    Svm.post_collection([Svm(name="svm00000"), Svm(name="new")], continue_on_failure=True)
except NetAppRestError as caught:
    seen["twice"] = str(caught)
seen["new"] = Svm.count_collection(name="new")
Svm.delete_collection(name="svm*|other*|new", max_records=options["page"])
seen["left"] = Svm.count_collection()
print(json.dumps(seen))
