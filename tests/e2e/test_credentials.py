"""Credentials of the node's own: roles that STS really gives, over AWS's own name of KMS."""

import pytest

import support


@pytest.fixture
def node(moto, start_node, tmp_path):
    """A node whose AWS configuration assumes a role, by a key and by a token; STS is moto's."""
    role = moto.client("iam").create_role(RoleName="keystead-%s" % tmp_path.name[-20:], AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    config, token = tmp_path / "aws-config", tmp_path / "token"
    config.write_text("[profile base]\naws_access_key_id = %s\naws_secret_access_key = %s\n[profile kms]\nrole_arn = %s\nsource_profile = base\n" % (moto.access_key_id, moto.secret, role))
    token.write_text("header.payload.signature")
    return start_node(moto.ca, extra='[log]\nlevel = "debug"\n', variables={
        "AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_REGION": support.REGION, "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": role, "AWS_ENDPOINT_URL_STS": "https://127.0.0.1:%d" % moto.port,
    })


def test_roles_of_sts(moto, node):
    detour = support.Detour(moto.port)
    try:
        node.svm("svm1")
        # The emulator's certificate is for another name, and so an administrator lets that pass here.
        way = {"host": None, "port": None, "proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": detour.port, "verify_host": False}
        body = moto.body("svm1", key_id=moto.key_arn, access_key_id=None, secret_access_key=None, keystead={"credentials_source": "profile:kms"}, **way)
        path = node.enabled(body)
        assert set(detour.asked) == {"kms.%s.amazonaws.com:443" % support.REGION}
        shown = node.call("GET", path + "?fields=*,keystead").json()
        assert "access_key_id" not in shown and shown["keystead"]["credentials_source"] == "profile:kms"

        def change(body):
            return node.call("PATCH", path + "?return_timeout=60", body)

        for source in ("profile:base", "chain", "web_identity"):
            answer = change({"keystead": {"credentials_source": source}})
            assert answer.status_code == 200, answer.text
        # Not set up on this node: named, refused, and nothing is changed.
        for source in ("process", "instance_role", "profile:nobody"):
            error = change({"keystead": {"credentials_source": source}}).json()["error"]
            assert error["code"] == "65537921" and "credentials source " + source in error["message"], error
        assert node.call("GET", path + "?fields=keystead").json()["keystead"]["credentials_source"] == "web_identity"
        answer = change({"access_key_id": moto.access_key_id, "secret_access_key": moto.secret, "keystead": {"credentials_source": ""}})
        assert answer.status_code == 200, answer.text
        assert node.call("GET", path + "?fields=state").json()["state"]["code"] == "0"
    finally:
        detour.close()
    log = node.process.log.read_text()
    assert "job progress" in log and moto.secret not in log and "header.payload.signature" not in log
