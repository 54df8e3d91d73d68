"""The simulation of large clusters, `scripts/scale`: where a formula says what must come out, that comes out; and so does what a small real cluster was measured to cost."""

import importlib.machinery
import importlib.util
import json

import pytest

import support

LOADER = importlib.machinery.SourceFileLoader("scale", str(support.TOP / "scripts/scale"))
scale = importlib.util.module_from_spec(importlib.util.spec_from_loader("scale", LOADER))
LOADER.exec_module(scale)

UNITS = json.loads((support.TOP / "docs/scale.json").read_text())
QUIET = ["--creates", "0", "--rekey-keys", "0", "--outage", "0", "--cut-off", "0", "--jitter", "0", "--aws-latency", "0"]


PAGE = (support.TOP / "docs/scale.md").read_text()
# The clusters of the page.
CLUSTERS = [[], ["--accounts", "1", "--polling-period", "60", "--seconds", "300", "--rekey-keys", "0", "--outage", "0", "--cut-off", "0"]]


def play(*flags):
    hour = scale.Hour(scale.arguments([*QUIET, *flags]), UNITS)
    hour.run()
    return hour


def test_polls_are_two_calls_a_period_and_a_start_is_one():
    hour = play("--nodes", "2", "--svms", "10", "--polling-period", "60")
    assert hour.total("calls to AWS, all nodes") == 2 * 10 * (1 + 2 * 59)
    assert hour.total("calls to AWS, one node") == 10 * (1 + 2 * 59)


def test_a_mass_start_takes_what_the_limit_of_an_account_lets_it():
    hour = play("--nodes", "3", "--svms", "1000", "--accounts", "1", "--seconds", "60")
    # A bucket of 10 at first, and 90 more each second.
    assert max(hour.served.values()) == pytest.approx((1_000 - 10) / 90)
    assert max(hour.counts["calls to AWS, one node"]) <= 100
    # Polls that are due faster than the limit are late, ever more: 1,000 each 10 s are 200 calls a second.
    late = play("--nodes", "1", "--svms", "1000", "--accounts", "1", "--seconds", "300", "--polling-period", "10")
    assert late.mean("calls to AWS, one node", 60) == pytest.approx(90, rel=0.01)
    assert late.latest > 5 and hour.latest < 1
    # Where each SVM has its own account, nobody waits.
    assert max(play("--nodes", "3", "--svms", "1000", "--accounts", "1000", "--seconds", "60").served.values()) == 0


def test_slow_answers_hold_up_their_own_lane_alone():
    # 64 at a time, each for 2 s: 32 a second of the one account, and the other is done at once.
    hour = play("--nodes", "1", "--svms", "641", "--accounts", "1", "--aws-latency", "2", "--seconds", "60", "--requests-per-second", "10000")
    assert max(hour.served.values()) == pytest.approx(2 * 11)
    hour = play("--nodes", "1", "--svms", "64", "--accounts", "1", "--aws-latency", "2", "--seconds", "60", "--requests-per-second", "10000")
    assert max(hour.served.values()) == pytest.approx(2)


def test_what_is_made_goes_to_every_node():
    hour = play("--nodes", "5", "--svms", "0", "--creates", "50", "--seconds", "100")
    idle, create, key = UNITS["idle_node_each_second"], UNITS["create"], UNITS["record_of_a_key"]
    made = 50 * 100
    assert hour.total("keys made") == pytest.approx(made, abs=1)
    assert hour.total("bytes sent to etcd") == pytest.approx(100 * 5 * idle["sent_to_etcd_bytes"] + made * create["sent_to_etcd_bytes"], rel=0.001)
    answer = create["sent_by_etcd_bytes"] - create["nodes"] * key["watch_bytes_alone"]
    assert hour.total("bytes sent by etcd, to all nodes") == pytest.approx(100 * 5 * idle["sent_by_etcd_bytes"] + made * (answer + 5 * key["watch_bytes_alone"]), rel=0.001)
    assert hour.total("bytes of changes, to one node") == pytest.approx(made * key["watch_bytes_alone"], rel=0.001)


def test_an_outage_is_missed_and_a_node_that_was_cut_off_catches_up():
    hour = play("--nodes", "2", "--svms", "0", "--creates", "10", "--outage-at", "100", "--outage", "30", "--cut-off", "50", "--seconds", "300")
    assert hour.total("keys not made: etcd is away") == pytest.approx(300, abs=1)
    assert hour.total("keys made") == pytest.approx(2_700, abs=1)
    assert hour.missed == pytest.approx(500 * UNITS["record_of_a_key"]["watch_bytes_alone"], rel=0.01)


def test_a_rekey_takes_its_time_and_waits_for_etcd():
    unit = UNITS["rekey_internal"]
    keys = 20 * int(unit["keys_each_second"])
    flags = ["--nodes", "4", "--svms", "0", "--rekey-keys", str(keys), "--rekey-at", "10", "--seconds", "200"]
    hour = play(*flags)
    assert hour.rekey_ended - 10 == pytest.approx(keys / unit["keys_each_second"])
    assert hour.total("keys wrapped again") == keys
    assert hour.total("bytes of changes, to one node") == pytest.approx(keys * UNITS["record_of_a_key"]["watch_bytes_in_a_batch"])
    late = play(*flags, "--outage-at", "15", "--outage", "40")
    assert hour.rekey_ended + 39 < late.rekey_ended < hour.rekey_ended + 41


def test_sizes_grow_with_what_there_is():
    def size(*flags):
        return dict(scale.sizes(scale.arguments(list(flags)), UNITS))

    def records(kind):
        return {name: record["each"] for name, record in UNITS[kind]["records"].items() if name != "jobs"}

    small, large = (size("--nodes", "1", "--svms", "0", "--keys", str(keys)) for keys in (0, 1_000_000))
    of_node = sum(records("node").values())
    assert (small["records"], large["records"]) == (f"{of_node:,.0f}, {of_node:,.0f} of them other than keys", f"{1_000_000 + of_node:,.0f}, {of_node:,.0f} of them other than keys")
    key = UNITS["record_of_a_key"]
    assert large["copy.db, on each node"] == scale.in_bytes(1_000_000 * key["copy_db_bytes"])
    of_svms = 1_000 * (sum(records("svm").values()) + sum(records("client").values()))
    assert size("--nodes", "1", "--svms", "1000", "--keys", "0")["records"].startswith(f"{of_svms + of_node:,.0f}, ")


def test_it_comes_to_what_a_real_cluster_was_measured_to_cost():
    measured = UNITS["measured"]
    hour = play(
        "--nodes", str(measured["nodes"]), "--svms", str(measured["svms"]), "--accounts", "1", "--polling-period", str(measured["polling_period_seconds"]),
        "--creates", str(measured["creates_each_second"]), "--jitter", "0.1", "--aws-latency", "0.05", "--seconds", "1000")
    # Once the start is over.
    steady = {what: hour.mean(what, 200) for what in hour.counts}
    # The polls of a period come in a wave, of which an end of the two measured minutes may cut a part off.
    assert steady["calls to AWS, all nodes"] == pytest.approx(measured["aws_calls_each_second"], rel=0.15)
    assert steady["messages to etcd"] == pytest.approx(measured["messages_each_second"], rel=0.1)
    assert steady["bytes sent to etcd"] == pytest.approx(measured["sent_to_etcd_bytes_each_second"], rel=0.15)
    assert steady["bytes sent by etcd, to all nodes"] == pytest.approx(measured["sent_by_etcd_bytes_each_second"], rel=0.15)


def test_the_page_quotes_the_costs():
    assert scale.table(["one of each", ""], scale.costs(UNITS)) in PAGE


@pytest.mark.parametrize("flags", CLUSTERS, ids=["an account for each SVM", "one account, polled each minute"])
def test_the_page_quotes_what_is_played(flags):
    for table in scale.play(scale.arguments(flags), UNITS):
        assert table in PAGE
