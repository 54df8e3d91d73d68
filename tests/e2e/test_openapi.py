"""Our OpenAPI document, read and tried by schemathesis: what it allows is taken, what it does not is refused, and every answer is as it says."""

import os
import re
import subprocess

import support

# Of each call, beside the cases that schemathesis works out by itself. `make soak` takes more.
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "5")


def test_schemathesis_finds_nothing(start_node, tmp_path):
    node = start_node()
    node.svm("svm1")
    program = support.TOP / ".venv-schemathesis/bin/schemathesis"
    assert program.exists(), "run scripts/test-env schemathesis"
    done = subprocess.run(
        [
            program, "--config-file", support.TOP / "tests/e2e/schemathesis.toml", "run", "https://127.0.0.1:%d/api/openapi.json" % node.port, "--tls-verify", node.ca,
            "--auth", "admin:%s" % support.PASSWORD, "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", EXAMPLES, "--no-color",
        ],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False,
    )
    assert done.returncode == 0, done.stdout[-20000:]
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases and int(cases.group(1)) > 1000, done.stdout[-3000:]
    print("schemathesis: %s cases, none failed" % cases.group(1))
    assert node.call("GET", "/cluster").status_code == 200, "the node is as it was"
