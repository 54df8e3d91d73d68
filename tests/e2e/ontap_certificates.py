"""What a script does with certificates and FIPS mode, through the netapp-ontap package, unmodified. Run by test_netapp_ontap.py; prints what it saw as JSON."""

import json
import sys

from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import SecurityCertificate, SecurityConfig, Svm

options = json.loads(sys.argv[1])
config.CONNECTION = HostConnection("127.0.0.1", username="admin", password=options["password"], port=options["port"], verify=True)
seen = {}


def code(action):
    try:
        action()
    except NetAppRestError as caught:
        return caught.http_err_response.http_response.json()["error"]["code"]
    return None


Svm(name="svm1").post(poll=True, poll_interval=1)
ca = SecurityCertificate(common_name="TEST-ROOT-CA", type="root_ca", svm={"name": "svm1"})
# With `hydrate`, the last answer is that of the GET which follows.
seen["post"] = ca.post(hydrate=True).http_response.status_code
ca.get()
seen["ca"] = ca.to_dict()
seen["type"] = code(lambda: SecurityCertificate(common_name="x", type="client_ca").post())
seen["size"] = code(lambda: SecurityCertificate(common_name="x", type="server", key_size=1024).post())
seen["sign"] = ca.sign(body={"signing_request": options["csr"], "hash_function": "sha256"}).http_response.json()["public_certificate"]
installed = SecurityCertificate(type="server", public_certificate=seen["sign"], private_key=options["key"], svm={"name": "svm1"}, name="web")
seen["install"] = installed.post(hydrate=True).http_response.status_code
found = SecurityCertificate.find(name="web", **{"svm.name": "svm1"})
found.get(fields="*")
seen["found"] = found.to_dict()
seen["names"] = sorted(one.common_name for one in SecurityCertificate.get_collection(scope="svm", fields="common_name"))
seen["in use"] = code(lambda: ca.delete())
seen["delete"] = [found.delete().http_response.status_code, ca.delete().http_response.status_code]
seen["csr"] = SecurityConfig().certificate_signing_request(
    body={
        "algorithm": "rsa",
        "extended_key_usage": ["serverauth"],
        "hash_function": "sha256",
        "key_usage": ["digitalsignature"],
        "security_strength": "112",
        "subject_alternatives": {"dns": ["*.example.com"], "email": ["abc@example.com"], "ip": ["10.225.34.223"], "uri": ["http://example.com"]},
        "subject_name": "C=US,O=NTAP,CN=test.domain.com",
    }
).http_response.json()
security = SecurityConfig()
security.get()
seen["fips"] = security.fips.enabled
security.fips.enabled = True
security.patch(poll=True)
security.get()
seen["fips on"] = security.fips.enabled
seen["fips size"] = code(lambda: SecurityCertificate(common_name="x", type="server", key_size=1024).post())
seen["fips hash"] = code(lambda: SecurityCertificate(common_name="x", type="server", hash_function="sha1").post())
print(json.dumps(seen))
