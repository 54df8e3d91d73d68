"""The two commands that show what Keystead does: `make quickstart`, and `make cluster`."""

import subprocess
import sys

import pytest
import support


@pytest.mark.parametrize("arguments", [[], ["--cluster"]], ids=["one node", "three nodes on etcd"])
def test_everything_works_and_nothing_is_left_running(arguments):
    done = subprocess.run(
        [sys.executable, support.TOP / "scripts/quickstart", "--once", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "everything works" in done.stdout
    left = subprocess.run(["pgrep", "-f", "%s-data/" % ("cluster" if arguments else "quickstart")], stdout=subprocess.PIPE, text=True, check=False)
    assert left.stdout == ""
