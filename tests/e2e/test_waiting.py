"""return_timeout and return_records."""

import pytest


def error(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"].get("target")


def test_zero_and_the_default_answer_at_once_and_longer_ones_wait(ministack, start_node):
    node = start_node(ministack.ca)
    for number, query in enumerate(["", "?return_timeout=0", "?return_timeout=5", "?return_timeout=120"]):
        node.svm("svm%d" % number)
        answer = node.call("POST", "/security/aws-kms" + query, ministack.body("svm%d" % number))
        if number < 2:
            assert answer.status_code == 202
            assert node.job(answer)["state"] == "success"
        else:
            assert (answer.status_code, answer.json()) == (201, {})
        uuid = answer.headers["Location"].rsplit("/", 1)[1]
        assert node.call("GET", "/security/aws-kms/" + uuid).status_code == 200


@pytest.mark.parametrize(("value", "code"), [("121", "262245"), ("-1", "262245"), ("x", "262247")])
def test_what_is_out_of_bounds(value, code, ministack, start_node):
    node = start_node(ministack.ca)
    node.svm("svm1")
    for method, path, body in [("POST", "/security/aws-kms", ministack.body("svm1")), ("POST", "/svm/svms", {"name": "x"})]:
        assert error(node.call(method, path + "?return_timeout=" + value, body)) == (400, code, "return_timeout")
    assert node.call("GET", "/security/aws-kms").json()["num_records"] == 0
    assert node.call("GET", "/svm/svms").json()["num_records"] == 1


def test_return_records_holds_what_was_supplied_and_no_secret(ministack, start_node):
    node = start_node(ministack.ca)
    uuid = node.svm("svm1")
    answer = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", ministack.body("svm1"))
    body = answer.json()
    record = body["records"][0]
    assert (answer.status_code, body["num_records"]) == (201, 1)
    assert record["svm"]["uuid"] == uuid and record["key_id"] == ministack.key_id
    assert record["_links"]["self"]["href"] == answer.headers["Location"]
    assert ministack.secret not in answer.text
    assert error(node.call("POST", "/security/aws-kms?return_records=maybe", ministack.body("svm1"))) == (400, "262247", "return_records")


def test_a_short_wait_that_is_not_enough_answers_202(start_node, ministack, tmp_path):
    import socket
    node = start_node(ministack.ca)
    node.svm("svm1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        answer = node.call("POST", "/security/aws-kms?return_timeout=1", ministack.body("svm1", port=silent.getsockname()[1], timeout=2))
        assert answer.status_code == 202, answer.text
        job = node.job(answer)
        assert (job["state"], job["code"], job["error"]["code"]) == ("failure", 65537915, "65537915")
    # Whoever waits gets the failure of the job as the answer.
    answer = node.call("POST", "/security/aws-kms?return_timeout=60", ministack.body("svm1", port=1))
    assert error(answer)[:2] == (400, "65537915")
