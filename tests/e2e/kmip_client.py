"""KMIP clients for the tests: PyKMIP, and certificates from the REST API."""

import contextlib
import pathlib

from kmip.core import enums
from kmip.pie.client import ProxyKmipClient
from kmip.pie.exceptions import KmipOperationFailure as KmipOperationFailure


class Certificate:
    """A client certificate of an SVM, in files."""

    def __init__(self, node, svm, folder):
        answer = node.call("POST", "/security/ekmip/clients?return_records=true", {"svm": {"name": svm}, "common_name": "client of " + svm})
        assert answer.status_code == 201, answer.text
        record = answer.json()["records"][0]
        self.uuid, self.folder = record["uuid"], pathlib.Path(folder) / ("client-" + record["uuid"])
        self.folder.mkdir()
        self.cert, self.key, self.ca = self.folder / "cert.pem", self.folder / "key.pem", self.folder / "ca.pem"
        self.cert.write_text(record["certificate"])
        self.key.write_text(record["private_key"])
        self.ca.write_text(record["ca_certificate"])
        self.config = self.folder / "pykmip.conf"
        self.config.write_text("[client]\n")


@contextlib.contextmanager
def pykmip(node, certificate, version=enums.KMIPVersion.KMIP_1_2):
    client = ProxyKmipClient(
        hostname="127.0.0.1", port=node.ekmip_port, cert=str(certificate.cert), key=str(certificate.key), ca=str(certificate.ca),
        config_file=str(certificate.config), kmip_version=version)
    with client:
        yield client
