"""What a storage administrator's script does with the netapp-ontap package, unmodified. Run by test_netapp_ontap.py with the interpreter of each version; prints what it saw as JSON."""

import json
import sys

from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import AwsKms, Job, Svm

options = json.loads(sys.argv[1])
config.CONNECTION = HostConnection("127.0.0.1", username="admin", password=options["password"], port=options["port"], verify=True)
seen = {}


def error(action):
    """The code and the text of what the client library raises: from the error that was answered, or from the job that failed."""
    try:
        action()
    except NetAppRestError as caught:
        if caught.http_err_response is not None:
            return [caught.http_err_response.http_response.json()["error"]["code"], str(caught)]
        # The library says only the message of the job; its code stands in the job.
        failed = [job.to_dict() for job in Job.get_collection(fields="*") if job.state == "failure"]
        return [str(max(failed, key=lambda job: str(job["end_time"]))["code"]), str(caught)]
    return None


def aws_kms(svm="svm1", **changes):
    fields = dict(options["body"], svm={"name": svm})
    fields.update(changes)
    return AwsKms(**{name: value for name, value in fields.items() if value is not None})


Svm(name="svm1").post(poll=True, poll_interval=1)
seen["wrong secret"] = error(lambda: aws_kms(secret_access_key="not the secret").post(poll=True, poll_interval=1))
seen["missing field"] = error(lambda: aws_kms(region=None).post(poll=True, poll_interval=1))
seen["unknown svm"] = error(lambda: aws_kms(svm="nowhere").post(poll=True, poll_interval=1))
seen["admin svm"] = error(lambda: aws_kms(svm="keystead").post(poll=True, poll_interval=1))
resource = aws_kms()
seen["post"] = resource.post(poll=True, poll_interval=1).http_response.status_code
seen["uuid"] = resource.uuid
seen["second"] = error(lambda: aws_kms().post(poll=True, poll_interval=1))
resource.get()
seen["get"] = resource.to_dict()
seen["collection *"] = [one.to_dict() for one in AwsKms.get_collection(fields="*")]
seen["collection **"] = [one.to_dict() for one in AwsKms.get_collection(fields="**")]
found = AwsKms.find(**{"svm.name": "svm1"})
seen["found"] = found.uuid
seen["not found"] = AwsKms.find(**{"svm.name": "svm2"}) is None
seen["count"] = AwsKms.count_collection()
seen["unknown field"] = error(lambda: list(AwsKms.get_collection(fields="nonsense")))
secret = AwsKms(uuid=found.uuid)
secret.secret_access_key = options["body"]["secret_access_key"]
seen["patch"] = secret.patch(poll=True, poll_interval=1).http_response.status_code
period = AwsKms(uuid=found.uuid)
period.polling_period = 5
seen["patch period"] = period.patch(poll=True, poll_interval=1).http_response.status_code
found.get()
seen["period"] = found.polling_period
wrong = AwsKms(uuid=found.uuid)
wrong.secret_access_key = "not the secret"
seen["wrong patch"] = error(lambda: wrong.patch(poll=True, poll_interval=1))
seen["restore"] = found.restore(poll=True, poll_interval=1).http_response.status_code
seen["rekey_external"] = found.rekey_external(key_id=options["other_key"], poll=True, poll_interval=1).http_response.status_code
seen["rekey_external body"] = found.rekey_external(body={"key_id": options["body"]["key_id"]}, poll=True, poll_interval=1).http_response.status_code
seen["rekey_internal"] = error(lambda: found.rekey_internal(poll=True, poll_interval=1))
seen["delete"] = found.delete(poll=True, poll_interval=1).http_response.status_code
seen["left"] = AwsKms.count_collection()
print(json.dumps(seen))
