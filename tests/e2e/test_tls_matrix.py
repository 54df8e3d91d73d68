"""Which certificates of AWS are believed: every kind of certificate, by name and by address, under every combination of verify, verify_host and verify_ip, on real TLS."""

import collections
import concurrent.futures
import itertools
import queue
import ssl

import pytest

import support

HOSTS = {"localhost": False, "127.0.0.1": True}
POLICIES = [dict(zip(("verify", "verify_host", "verify_ip"), values)) for values in itertools.product((True, False), repeat=3)]

# `chain`: it leads to a CA that the node trusts, and no date is over. `words`: what the error must say where the chain is at fault.
Kind = collections.namedtuple("Kind", "names chain words make")
BOTH, OTHER = ("127.0.0.1", "localhost"), ("other.example", "192.0.2.1")


def kind(names=BOTH, chain=True, words=None, ours=True, **how):
    return Kind(names, chain, words, lambda folder, name, ca: support.Certificates(folder, name, names, authority=ca if ours else None, **how))


NAME, UNKNOWN, EXPIRED = "not valid for name", "UnknownIssuer", "certificate expired"
KINDS = {
    "good": kind(),
    "wrong-ca": kind(chain=False, words=UNKNOWN, ours=False),
    "wrong-name": kind(OTHER),
    "name-only": kind(("localhost",)),
    "address-only": kind(("127.0.0.1",)),
    "address-as-name": kind(("localhost", "127.0.0.1.example")),
    "no-name": kind(()),
    "expired": kind(chain=False, words=EXPIRED, expired=True),
    "self-signed": kind(chain=False, words=UNKNOWN, ours=False, self_signed=True),
    "self-signed-ca": kind(chain=False, words="CaUsedAsEndEntity", ours=False, self_signed=True, is_ca=True),
    # Who forgives a name must not forgive what else is wrong.
    "wrong-name-wrong-ca": kind(OTHER, chain=False, words=UNKNOWN, ours=False),
    "wrong-name-expired": kind(OTHER, chain=False, words=EXPIRED, expired=True),
    "wrong-name-self-signed": kind(OTHER, chain=False, words=UNKNOWN, ours=False, self_signed=True),
}


def believed(certificate, host, verify=True, verify_host=True, verify_ip=True):
    """The rule. Off altogether, anything goes; else the chain must be good, and only a name that does not match is forgiven: by verify_host for a name, by verify_ip for an address."""
    if not verify:
        return True
    if not certificate.chain:
        return False
    strict = verify_ip if HOSTS[host] else verify_host
    return host in certificate.names or not strict


class Matrix:
    """One node, and moto behind each certificate."""

    def __init__(self, node, kms, ca, served, ports):
        self.node, self.kms, self.ca, self.served, self.ports = node, kms, ca, served, ports
        self.svms = ["svm%d" % number for number in range(len(POLICIES))]
        for svm in self.svms:
            node.svm(svm)

    def body(self, svm, name, host, **more):
        return self.kms.body(svm, host=host, port=self.ports[name], **more)

    def free(self, path):
        answer = self.node.call("DELETE", path + "?return_timeout=60")
        assert answer.status_code == 200, answer.text

    def together(self, work, cells):
        """Runs the work for all cells, as many at a time as there are SVMs, each with an SVM that is free. All that went wrong is told, not only the first."""
        free = queue.SimpleQueue()
        for svm in self.svms:
            free.put(svm)

        def with_an_svm(cell):
            svm = free.get()
            try:
                return work(svm, *cell)
            finally:
                free.put(svm)

        with concurrent.futures.ThreadPoolExecutor(len(self.svms)) as pool:
            results = [pool.submit(with_an_svm, cell) for cell in cells]
        wrong = [str(result.exception()) for result in results if result.exception()]
        assert not wrong, "%d of %d:\n%s" % (len(wrong), len(cells), "\n".join(wrong))
        return [result.result() for result in results]


@pytest.fixture(scope="module")
def matrix(moto, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    ca = support.Certificates(folder, "ca")
    served = {name: kind.make(folder, name, ca) for name, kind in KINDS.items()}
    ports = dict(zip(served, support.free_ports(len(served))))
    front = support.stunnel(folder, "matrix-tls", *((served[name], port, moto.plain) for name, port in ports.items()))
    node = None
    try:
        node = support.Node(folder, [ca.ca])
        yield Matrix(node, moto, ca, served, ports)
    finally:
        if node:
            node.stop()
        front.stop()


def refused(answer, name, host, port, where):
    error = answer.json().get("error", {})
    assert (answer.status_code, error.get("code")) == (400, "65537915"), "%s: must be refused, but: %d %s" % (where, answer.status_code, answer.text)
    message = error["message"]
    assert "%s:%d" % (host, port) in message and "(TLS): " in message, "%s: endpoint or hop are not named: %s" % (where, message)
    assert (KINDS[name].words or NAME) in message, "%s: the reason is not named: %s" % (where, message)


def cell(matrix, svm, name, host, policy, **more):
    """One enable, compared with the rule; answers whether it was accepted. The SVM is free again afterwards, whatever happens."""
    where = "%s at %s with %s" % (name, host, policy)
    answer = matrix.node.enable(matrix.body(svm, name, host, **policy, **more))
    accepted = answer.status_code == 201
    try:
        if not believed(KINDS[name], host, **policy):
            refused(answer, name, host, matrix.ports[name], where)
            return False
        assert accepted, "%s: must be accepted, but: %d %s" % (where, answer.status_code, answer.text)
        record = answer.json()["records"][0]
        assert {member: record[member] for member in policy} == policy, where
        return True
    finally:
        if accepted:
            matrix.free(answer.headers["Location"][len("/api"):])


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_certificate_under_every_policy(name, host, matrix):
    results = matrix.together(lambda svm, policy: cell(matrix, svm, name, host, policy), [(policy,) for policy in POLICIES])
    assert len(results) == 8 and sum(results) >= 4, "verify off accepts everything"


def test_the_same_through_a_proxy(matrix, tmp_path):
    """What is wrong behind the proxy is AWS's, not the proxy's."""
    with support.squid(tmp_path, "proxyuser", "proxy-pass-1", matrix.ports.values()) as (port, access):
        proxy = {"proxy_type": "http", "proxy_host": "localhost", "proxy_port": port, "proxy_username": "proxyuser", "proxy_password": "proxy-pass-1"}
        policies = [{}, {"verify_host": False, "verify_ip": False}, {"verify": False}]
        cells = list(itertools.product(KINDS, HOSTS, policies))
        matrix.together(lambda svm, *which: cell(matrix, svm, *which, **proxy), cells)
        asked = access.read_text()
        for host, name in itertools.product(HOSTS, KINDS):
            assert "CONNECT %s:%d " % (host, matrix.ports[name]) in asked


@pytest.mark.parametrize("name", KINDS)
def test_the_stranger_openssl_sees_the_same_certificates(name, matrix):
    """A control of the matrix itself: each port serves what its kind says, and what is believed by default is what OpenSSL believes."""
    with open(matrix.served[name].cert) as file:
        assert ssl.get_server_certificate(("127.0.0.1", matrix.ports[name])).split() == file.read().split()
    for host in HOSTS:
        context = ssl.create_default_context(cafile=str(matrix.ca.ca))
        with support.socket.create_connection(("127.0.0.1", matrix.ports[name]), 10) as plain:
            try:
                context.wrap_socket(plain, server_hostname=host).close()
                accepted = True
            except ssl.SSLCertVerificationError:
                accepted = False
        assert accepted == believed(KINDS[name], host), host


def test_a_running_configuration_is_not_moved_to_what_is_not_believed(matrix):
    def moved(svm, name, host):
        node, port = matrix.node, matrix.ports[name]
        path = node.enabled(matrix.body(svm, "good", host))

        def change(**members):
            return node.call("PATCH", path + "?return_timeout=60", members)

        def record():
            found = node.call("GET", path + "?fields=**").json()
            assert found["amazon_reachability"] == {"reachable": True, "code": "0", "message": ""}, (name, host, found)
            return {member: found[member] for member in ("host", "port", "verify", "verify_host", "verify_ip")}

        where = "PATCH to %s at %s" % (name, host)
        try:
            before = record()
            answer = change(port=port)
            if believed(KINDS[name], host):
                assert answer.status_code == 200, (where, answer.text)
                return
            refused(answer, name, host, port, where)
            assert record() == before, where
            # Without checks it is taken, and then no check can be switched on.
            answer = change(port=port, verify=False)
            assert answer.status_code == 200, (where, answer.text)
            refused(change(verify=True), name, host, port, where + ", verify on")
            assert record() == {**before, "port": port, "verify": False}, where
        finally:
            matrix.free(path)

    matrix.together(moved, list(itertools.product(KINDS, HOSTS)))
