"""Fixtures: emulators once a run, nodes once a test."""

import pytest

import support


def pytest_addoption(parser):
    parser.addoption("--screenshots", action="store_true", help="write the pictures of the manual into docs/screenshots")


@pytest.fixture(scope="session")
def ministack(tmp_path_factory):
    with support.ministack(tmp_path_factory.mktemp("ministack")) as kms:
        yield kms


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    with support.moto(tmp_path_factory.mktemp("moto")) as kms:
        yield kms


@pytest.fixture(params=["ministack", "moto"])
def kms(request):
    """The hierarchy's tests run on both emulators."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def start_node(tmp_path):
    """Starts nodes, and stops them after the test."""
    nodes = []

    def start(*cas, extra="", variables=None):
        folder = tmp_path / ("node%d" % len(nodes))
        folder.mkdir()
        nodes.append(support.Node(folder, cas, extra, variables))
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()
