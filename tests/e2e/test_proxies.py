"""Proxies: tinyproxy and squid, really used, with their login; what they refuse is named as what it is, and leaves a running configuration alone. An https proxy's certificate is always checked."""

import collections
import concurrent.futures
import contextlib
import itertools
import socket
import threading

import pytest

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


# What a URL or a header could spoil. tinyproxy's configuration takes none of it.
HARD_LOGIN = {"proxy_username": "proxy user@é", "proxy_password": "p:w/@%41 ü+"}

Proxy = collections.namedtuple("Proxy", "http https access login")


class Proxies:
    """A node, and both proxies as http and, with stunnel in front, as https. They lead to the emulator and to `dead`, where nobody listens; not to `closed`."""

    def __init__(self, node, kms, certificates, tinyproxy, squid, dead, closed):
        self.node, self.kms, self.certificates, self.dead, self.closed = node, kms, certificates, dead, closed
        self.programs = {"tinyproxy": tinyproxy, "squid": squid}
        self.names = ("svm%d" % number for number in itertools.count())
        self.lock = threading.Lock()

    def svm(self):
        """A new SVM's name."""
        with self.lock:
            name = next(self.names)
        self.node.svm(name)
        return name

    def running(self, **members):
        return Running(self.node, self.node.enabled(self.kms.body(self.svm(), **members)))


class Running:
    """A configuration that works, and must go on working."""

    def __init__(self, node, path):
        self.node, self.path = node, path
        self.before = self.record()

    def record(self):
        record = self.node.call("GET", self.path + "?fields=**").json()
        assert record["state"] == {"cluster_state": True, "code": "0", "message": ""}, record
        assert record["amazon_reachability"] == {"reachable": True, "code": "0", "message": ""}, record
        return record

    def change(self, **members):
        return self.node.call("PATCH", self.path + "?return_timeout=60", members)

    def is_as_before(self, what):
        assert self.record() == self.before, "%s: the refused change has left something" % what


@pytest.fixture(scope="module")
def proxies(ministack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxies")
    certificates = support.Certificates(folder, "proxy")
    dead, closed, tinyproxy_tls, squid_tls = support.free_ports(4)
    with contextlib.ExitStack() as stack:
        ports = (ministack.port, dead)
        tinyproxy, tinyproxy_log = stack.enter_context(support.tinyproxy(folder, *LOGIN.values(), ports))
        squid, squid_log = stack.enter_context(support.squid(folder, *HARD_LOGIN.values(), ports))
        front = support.stunnel(folder, "proxies-tls", (certificates, tinyproxy_tls, tinyproxy), (certificates, squid_tls, squid))
        stack.callback(front.stop)
        node = support.Node(folder, [ministack.ca, certificates.ca])
        stack.callback(node.stop)
        yield Proxies(
            node, ministack, certificates, Proxy(tinyproxy, tinyproxy_tls, tinyproxy_log, LOGIN), Proxy(squid, squid_tls, squid_log, HARD_LOGIN), dead, closed)


def at(scheme, port):
    return {"proxy_type": scheme, "proxy_host": "localhost", "proxy_port": port}


def refused(answer, port, words, what):
    error = answer.json().get("error", {})
    assert (answer.status_code, error.get("code")) == (400, "65537915"), "%s: must be refused, but: %d %s" % (what, answer.status_code, answer.text)
    assert " through the proxy localhost:%d (proxy): " % port in error["message"], "%s: the hop is not named: %s" % (what, error["message"])
    assert words in error["message"], "%s: the reason is not named: %s" % (what, error["message"])
    for login in (LOGIN, HARD_LOGIN):
        assert login["proxy_password"] not in error["message"], what


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("program", ["tinyproxy", "squid"])
def test_logins_and_ports(program, scheme, proxies):
    proxy = proxies.programs[program]
    port = getattr(proxy, scheme)
    place = at(scheme, port)
    good = {**place, **proxy.login}
    direct, free = proxies.running(), proxies.svm()
    faults = [
        ("no login", place, "the proxy refuses the login (407)"),
        # tinyproxy says 401, by which the login alone is not told from the rest.
        ("wrong password", {**good, "proxy_password": "wrong"}, "refuses the login"),
        ("wrong user", {**good, "proxy_username": "stranger"}, "refuses the login"),
        ("port not allowed", {**good, "port": proxies.closed}, "the proxy refuses to connect to this endpoint"),
        ("nobody at the endpoint", {**good, "port": proxies.dead}, "the proxy refuses to connect to this endpoint"),
    ]
    for fault, members, words in faults:
        what = "%s over %s, %s" % (program, scheme, fault)
        refused(proxies.node.enable(proxies.kms.body(free, **members)), port, words, what + ", POST")
        refused(direct.change(**members), port, words, what + ", PATCH")
        direct.is_as_before(what)

    # The SVM that was refused so often is free, and the right login gets through.
    asked = "CONNECT 127.0.0.1:%d " % proxies.kms.port
    passed = proxy.access.read_text().count(asked)
    proxied = Running(proxies.node, proxies.node.enabled(proxies.kms.body(free, **good)))
    assert proxied.before["proxy_username"] == proxy.login["proxy_username"] and "proxy_password" not in proxied.before
    assert proxy.access.read_text().count(asked) > passed, "the proxy was not used"
    assert direct.change(**good).status_code == 200
    record = direct.record()
    assert {member: record[member] for member in place} == place

    # The running proxy's login, member by member. It stays with the configuration, and nothing is half changed.
    for fault, members, words in [
        ("wrong password", {"proxy_password": "wrong"}, "refuses the login"),
        ("no password", {"proxy_password": ""}, "refuses the login"),
        ("wrong user", {"proxy_username": "stranger"}, "refuses the login"),
        ("no user", {"proxy_username": "", "proxy_password": ""}, "the proxy refuses the login (407)"),
        ("port not allowed", {"port": proxies.closed}, "the proxy refuses to connect to this endpoint"),
    ]:
        what = "%s over %s, %s while it is in use" % (program, scheme, fault)
        refused(proxied.change(**members), port, words, what)
        proxied.is_as_before(what)


def test_a_proxy_that_is_down_or_hangs(proxies, tmp_path):
    """In parallel: what hangs takes its time."""
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        mute = silent.getsockname()[1]
        [behind_tls] = support.free_ports(1)
        front = support.stunnel(tmp_path, "mute-tls", (proxies.certificates, behind_tls, mute))
        stack.callback(front.stop)
        cases = [
            ("down, http", "http", proxies.closed, "refused"),
            ("down, https", "https", proxies.closed, "refused"),
            ("hangs at CONNECT, http", "http", mute, "no answer in time"),
            ("hangs at the handshake, https", "https", mute, "no answer in time"),
            ("hangs at CONNECT, https", "https", behind_tls, "no answer in time"),
        ]

        def both(what, scheme, port, words):
            members = {**at(scheme, port), **LOGIN, "timeout": 1}
            direct = proxies.running()
            refused(proxies.node.enable(proxies.kms.body(proxies.svm(), **members)), port, words, what + ", POST")
            refused(direct.change(**members), port, words, what + ", PATCH")
            direct.is_as_before(what)

        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            for result in [pool.submit(both, *case) for case in cases]:
                result.result()


@pytest.mark.parametrize("fault", ["wrong-ca", "wrong-name", "expired", "self-signed"])
def test_an_https_proxys_certificate_is_checked_whatever_the_settings_say(fault, proxies, tmp_path):
    ours, hosts = proxies.certificates, ("localhost", "127.0.0.1")
    certificates = {
        "wrong-ca": lambda: support.Certificates(tmp_path, fault, hosts),
        "wrong-name": lambda: support.Certificates(tmp_path, fault, ("other.example",), authority=ours),
        "expired": lambda: support.Certificates(tmp_path, fault, hosts, authority=ours, expired=True),
        "self-signed": lambda: support.Certificates(tmp_path, fault, hosts, self_signed=True),
    }[fault]()
    words = {"wrong-name": "not valid for name", "expired": "certificate expired"}.get(fault, "UnknownIssuer")
    [port] = support.free_ports(1)
    front = support.stunnel(tmp_path, "front", (certificates, port, proxies.programs["squid"].http))
    try:
        off = {"verify": False, "verify_host": False, "verify_ip": False}
        asked = proxies.programs["squid"].access.read_text().count("CONNECT")
        direct = proxies.running(**off)
        members = {**at("https", port), **HARD_LOGIN}
        refused(proxies.node.enable(proxies.kms.body(proxies.svm(), **off, **members)), port, words, fault + ", POST")
        refused(direct.change(**members), port, words, fault + ", PATCH")
        direct.is_as_before(fault)
        assert proxies.programs["squid"].access.read_text().count("CONNECT") == asked, "a proxy that is not trusted was told the login"
    finally:
        front.stop()


def test_an_https_proxy_is_checked_by_its_own_name(ministack, start_node, tmp_path):
    certificates, port = support.Certificates(tmp_path, "proxy"), support.free_port()
    with support.tinyproxy(tmp_path, "proxyuser", "proxy-pass-1") as (plain, access):
        front = support.stunnel(tmp_path, "proxy-tls", (certificates, port, plain))
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
