"""Metrics: what Prometheus itself makes of a node's page, of the alert rules and of the dashboard in examples/."""

import contextlib
import json
import re
import shutil
import subprocess

import pytest
import requests

import support

EXAMPLES = support.TOP / "examples"
RULES = EXAMPLES / "prometheus/keystead.rules.yml"
TESTS = EXAMPLES / "prometheus/keystead.rules.test.yml"
DASHBOARD = EXAMPLES / "grafana/keystead.json"
# What an expression, or a text, names of Keystead's metrics.
METRIC = re.compile(r"\b(?:keystead|process)_[a-z0-9_]+\b")
VARIABLES = {"$job": "keystead", "$instance": ".*", "$svm": ".*", "$__rate_interval": "5m", "$__range": "1h"}
WAIT = 1
# Where all is well, no client is connected, and no job is open, there is nothing to see of these.
NOTHING_TO_SHOW = {
    "keystead_svm_kek_state", "keystead_svm_refusal_timestamp_seconds", "keystead_svm_kmip_connections", "keystead_kmip_operations_total", "keystead_jobs_open", "keystead_jobs_ended_total",
    "keystead_jobs_oldest_start_timestamp_seconds", "keystead_last_backup_timestamp_seconds", "keystead_audit_collector_up", "keystead_audit_forward_backlog_records",
}


def promtool(*arguments, text=None):
    """Runs promtool, which must be content."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_alert_rules_say_what_they_should():
    assert "SUCCESS: %d rules found" % RULES.read_text().count("- alert: ") in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", TESTS)
    # Each alert is among what is tested, and a rule that is changed makes its test fail.
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert [alert for alert in alerts if 'alertname="%s"' % alert not in TESTS.read_text()] == []


def test_a_rule_that_is_wrong_is_noticed(tmp_path):
    # The group of the one that is changed.
    head, *groups = TESTS.read_text().split("\n  - name: ")
    [group] = [group for group in groups if 'alertname="KeysteadSvmBlocked",alertstate="firing"' in group][:1]
    (tmp_path / TESTS.name).write_text("%s\n  - name: %s" % (head, group))
    shutil.copy(RULES, tmp_path)
    promtool("test", "rules", tmp_path / TESTS.name)
    (tmp_path / RULES.name).write_text(RULES.read_text().replace('keystead_svm_kek_state{state="blocked"} == 1', 'keystead_svm_kek_state{state="blocked"} == 2'))
    done = subprocess.run(["promtool", "test", "rules", str(tmp_path / TESTS.name)], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "KeysteadSvmBlocked" in done.stdout + done.stderr


class Prometheus:
    """A Prometheus with the configuration of examples/, but for addresses and intervals."""

    def __init__(self, folder, node, listener):
        self.port = support.free_port()
        for example in (EXAMPLES / "prometheus").iterdir():
            shutil.copy(example, folder)
        shutil.copy(node.ca, folder / "keystead-ca.pem")
        (folder / "keystead.password").write_text(support.PASSWORD)
        config = (EXAMPLES / "prometheus/prometheus.yml").read_text()
        for old, new in [("30s", "%ds" % WAIT), ("          - node1:8443\n          - node2:8443\n          - node3:8443\n", "          - 127.0.0.1:%d\n" % node.port)]:
            assert old in config
            config = config.replace(old, new)
        # The way without a login stands there as a comment.
        plain = '  - job_name: plain\n    static_configs:\n      - targets: ["127.0.0.1:%d"]\n' % listener
        (folder / "prometheus.yml").write_text(config + plain)
        promtool("check", "config", folder / "prometheus.yml")
        self.process = support.Process("prometheus", [
            "prometheus", "--config.file", folder / "prometheus.yml", "--storage.tsdb.path", folder / "tsdb", "--web.listen-address", "127.0.0.1:%d" % self.port,
        ], folder)

    def get(self, path, **parameters):
        answer = requests.get("http://127.0.0.1:%d/api/v1/%s" % (self.port, path), params=parameters, timeout=10).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]


@contextlib.contextmanager
def prometheus(*arguments):
    server = Prometheus(*arguments)
    try:
        support.wait_until("prometheus", lambda: len(server.query("up")) == 2, server.process.child, server.process.log)
        yield server
    finally:
        server.process.stop()


@pytest.fixture
def scene(ministack, start_node, tmp_path):
    """A node with an SVM, and a Prometheus that scrapes it in both ways."""
    listener = support.free_port()
    node = start_node(ministack.ca, extra='[metrics]\nlisten = "127.0.0.1:%d"\n' % listener)
    account = {"name": "prometheus", "password": support.PASSWORD, "role": {"name": "readonly"}}
    answer = node.call("POST", "/security/accounts", account)
    assert answer.status_code == 201, answer.text
    node.svm("svm1")
    node.enabled(ministack.body("svm1"))
    answer = node.call("POST", "/security/ekmip/clients?return_records=true", {"svm": {"name": "svm1"}, "common_name": "array-7"})
    assert answer.status_code == 201, answer.text
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with prometheus(folder, node, listener) as server:
        yield node, server


def test_a_real_prometheus_reads_a_real_node(scene):
    node, server = scene
    # Both targets answer, and what they say is taken as it is.
    support.wait_until("the scrapes", lambda: [sample["value"][1] for sample in server.query("up")] == ["1", "1"])
    for target in server.get("targets")["activeTargets"]:
        assert (target["health"], target["lastError"]) == ("up", ""), target
    for job in ("keystead", "plain"):
        found = support.wait_until("the state of the SVM", lambda: server.query('keystead_svm_kek_state{job="%s"}' % job))
        assert [(sample["metric"]["svm"], sample["metric"]["state"], sample["value"][1]) for sample in found] == [("svm1", "available", "1")]
    # Refusals are of the login: without it, there is nothing.
    assert requests.get("https://127.0.0.1:%d/metrics" % node.port, verify=str(node.ca), timeout=5).status_code == 401

    page = node.session().get("https://127.0.0.1:%d/metrics" % node.port, timeout=5).text
    promtool("check", "metrics", text=page)
    declared = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    names = set(declared) | {name + suffix for name, kind in declared.items() if kind == "histogram" for suffix in ("_bucket", "_sum", "_count")}

    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == RULES.read_text().count("- alert: ") and RULES.read_text().count("- alert: ") > 20
    for rule in rules:
        assert {"summary", "description", "action"} <= set(rule["annotations"]) and rule["labels"]["severity"] in ("critical", "warning"), rule["name"]
    named = set(METRIC.findall(RULES.read_text()))
    assert named and named <= names, named - names
    evaluated = support.wait_until("each rule must be evaluated", lambda: all_evaluated(server))
    assert [rule["name"] for rule in evaluated if rule["health"] != "ok"] == []

    expressions = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", [])]
    named = set(METRIC.findall(" ".join(expressions)))
    assert len(expressions) > 50 and named <= names, named - names
    # Rates need a second scrape. What is empty then is about what has not happened here, and is told by the metric.
    support.wait_until("what the dashboard shows", lambda: set(METRIC.findall(" ".join(empty(server, expressions)))) <= NOTHING_TO_SHOW)
    variables = [entry["definition"] for entry in json.loads(DASHBOARD.read_text())["templating"]["list"] if entry["type"] == "query"]
    assert set(METRIC.findall(" ".join(variables))) <= names


def empty(server, expressions):
    """The expressions of a dashboard that show nothing now; none of them may be refused."""
    found = []
    for expression in expressions:
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, expression
        if not server.query(expression):
            found.append(expression)
    return found


def all_evaluated(server):
    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    return rules if all(rule["health"] != "unknown" for rule in rules) else None
