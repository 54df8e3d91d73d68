"""The example request of ONTAP's page, with a working SVM, credentials, key, host, port and proxy put in, and every other member as printed."""

import support

CONTEXT = {"aws:fsx:fs-id": "fs-0785c8beceb895999"}


def seed_request(kms, port, svm_name, svm_uuid, proxy_port):
    return {
        "access_key_id": kms.access_key_id,
        "amazon_reachability": {"code": "346758", "message": "Amazon KMS is not reachable from all nodes - <reason>."},
        "default_domain": "domainName",
        "ekmip_reachability": [
            {
                "code": "346758",
                "message": "embedded KMIP server status unavailable on node.",
                "node": {"name": "node1", "uuid": "1cd8a442-86d1-11e0-ae1c-123478563412"},
            }
        ],
        "encryption_context": "aws:fsx:fs-id=fs-0785c8beceb895999",
        "host": "127.0.0.1",
        "key_id": kms.key_id,
        "polling_period": 55,
        "port": port,
        "proxy_host": "127.0.0.1",
        "proxy_password": "awskze-Jwjje2-WJJPer",
        "proxy_port": proxy_port,
        "proxy_type": "http",
        "proxy_username": "proxyuser",
        "region": "us-east-1",
        "scope": "string",
        "secret_access_key": kms.secret,
        "service": "dynamodb.*.amazonaws.com",
        "skip_verify": "",
        "state": {"code": "346758", "message": "AWS KMS key protection is unavailable on the following nodes: node1, node2."},
        "svm": {"name": svm_name, "uuid": svm_uuid},
        "uuid": "1cd8a442-86d1-11e0-ae1c-123478563412",
        "verify": "",
        "verify_host": 1,
        "verify_ip": "",
    }


def test_the_example_is_accepted_and_does_what_it_says(ministack, start_node, tmp_path):
    recorder = support.Recorder(tmp_path, ministack)
    with support.tinyproxy(tmp_path, "proxyuser", "awskze-Jwjje2-WJJPer") as (proxy_port, access):
        node = start_node(recorder.ca)
        svm_uuid = node.svm("svm1")
        answer = node.call("POST", "/security/aws-kms", seed_request(ministack, recorder.port, "svm1", svm_uuid, proxy_port))
        assert answer.status_code == 202, answer.text
        uuid = answer.headers["Location"].rsplit("/", 1)[1]
        assert set(answer.json()["job"]) == {"uuid", "_links"}
        for name in ("scope", "uuid", "state", "amazon_reachability", "ekmip_reachability"):
            assert name in answer.headers["Warning"]
        job = node.job(answer)
        assert (job["state"], job["code"], job["description"]) == ("success", 0, "POST /api/security/aws-kms"), job

        record = node.call("GET", "/security/aws-kms/" + uuid).json()
        expected = {
            "uuid": uuid, "scope": "svm", "region": "us-east-1", "key_id": ministack.key_id, "access_key_id": ministack.access_key_id,
            "encryption_context": "aws:fsx:fs-id=fs-0785c8beceb895999", "service": "dynamodb.*.amazonaws.com", "default_domain": "domainName", "host": "127.0.0.1",
            "port": recorder.port, "polling_period": 55, "proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": proxy_port, "proxy_username": "proxyuser",
            "verify": True, "verify_host": True, "verify_ip": True, "timeout": 10,
        }
        assert {name: record.get(name) for name in expected} == expected
        assert record["svm"]["uuid"] == svm_uuid
        assert "secret_access_key" not in record and "proxy_password" not in record

        # What AWS was asked: the key and the context, on both ways.
        asked = [(operation, body.get("KeyId"), body.get("EncryptionContext")) for operation, body in recorder.calls]
        assert asked == [
            ("DescribeKey", ministack.key_id, None), ("Encrypt", ministack.key_id, CONTEXT), ("Decrypt", ministack.key_arn, CONTEXT),
        ]
        assert "CONNECT 127.0.0.1:%d" % recorder.port in access.read_text(), "the proxy was really used"
    recorder.close()
