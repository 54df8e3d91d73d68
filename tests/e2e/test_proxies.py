"""Proxies: really used, with their login; refused logins are named as what they are. An https proxy's certificate is always checked."""

import support

LOGIN = {"proxy_username": "proxyuser", "proxy_password": "proxy-pass-1"}


def test_an_http_proxy_with_its_login(ministack, start_node, tmp_path):
    with support.tinyproxy(tmp_path, "proxyuser", "proxy-pass-1") as (port, access):
        node = start_node(ministack.ca)
        node.svm("svm1")
        proxy = {"proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": port}
        for wrong in ({}, {"proxy_username": "proxyuser", "proxy_password": "wrong"}):
            answer = node.enable(ministack.body("svm1", **proxy, **wrong))
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "65537915"), answer.text
            assert "(proxy)" in error["message"], error
        path = node.enabled(ministack.body("svm1", **proxy, **LOGIN))
        assert "CONNECT 127.0.0.1:%d" % ministack.port in access.read_text()
        record = node.call("GET", path).json()
        assert record["proxy_username"] == "proxyuser" and "proxy_password" not in record

        # The proxy's password alone, then without the proxy.
        assert node.call("PATCH", path + "?return_timeout=60", {"proxy_password": "wrong"}).json()["error"]["code"] == "65537915"
        assert node.call("PATCH", path + "?return_timeout=60", {"proxy_password": "proxy-pass-1"}).status_code == 200
        answer = node.call("PATCH", path + "?return_timeout=60", {"proxy_host": ""})
        assert answer.status_code == 200, answer.text
        assert not any(name.startswith("proxy_") for name in node.call("GET", path).json())


def test_an_https_proxy_is_checked_by_its_own_name(ministack, start_node, tmp_path):
    certificates, port = support.Certificates(tmp_path, "proxy"), support.free_port()
    with support.tinyproxy(tmp_path, "proxyuser", "proxy-pass-1") as (plain, access):
        front = support.stunnel(tmp_path, "proxy-tls", certificates, port, plain)
        try:
            proxy = {"proxy_type": "https", "proxy_host": "localhost", "proxy_port": port, **LOGIN}
            stranger = start_node(ministack.ca)
            stranger.svm("svm1")
            answer = stranger.enable(ministack.body("svm1", verify=False, **proxy))
            assert answer.json()["error"]["code"] == "65537915" and "(proxy)" in answer.json()["error"]["message"], answer.text
            assert "CONNECT 127.0.0.1" not in access.read_text(), "nothing was asked of a proxy that is not trusted"
            node = start_node(ministack.ca, certificates.ca)
            node.svm("svm1")
            node.enabled(ministack.body("svm1", **proxy))
            assert "CONNECT 127.0.0.1:%d" % ministack.port in access.read_text()
        finally:
            front.stop()


def test_the_surroundings_proxy_is_not_used(ministack, start_node, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    node = start_node(ministack.ca)
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
