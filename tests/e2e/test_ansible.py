"""The published playbook, with Ansible's netapp.ontap collection, unmodified. The second run changes nothing."""

import json
import os
import subprocess

import support

ENVIRONMENT = support.TOP / ".venv-ansible"


def play(node, variables, folder):
    file = folder / "variables.json"
    file.write_text(json.dumps(variables))
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    surroundings.update(
        ANSIBLE_COLLECTIONS_PATH=str(ENVIRONMENT / "collections"), ANSIBLE_HOME=str(folder / "ansible"), ANSIBLE_NOCOLOR="1",
        ANSIBLE_LOCALHOST_WARNING="false", REQUESTS_CA_BUNDLE=str(node.ca), LC_ALL="C.UTF-8", PATH="%s:%s" % (ENVIRONMENT / "bin", os.environ["PATH"]),
    )
    ran = subprocess.run(
        [ENVIRONMENT / "bin/ansible-playbook", "-i", "localhost,", "-e", "ansible_python_interpreter=%s" % (ENVIRONMENT / "bin/python"), support.TOP / "examples/ansible/aws-kms.yml", "-e", "@%s" % file],
        env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:]
    recap = ran.stdout.split("PLAY RECAP")[1]
    return {name: int(number) for name, number in (word.split("=") for word in recap.split() if "=" in word)}


def test_the_playbook_runs_and_changes_nothing_again(ministack, start_node, tmp_path):
    node = start_node(ministack.ca)
    aws_kms = {name: value for name, value in ministack.body("svm1").items() if name != "svm"}
    variables = {"https_port": node.port, "password": support.PASSWORD, "aws_kms": aws_kms, "passphrase": "correct horse battery staple, twice over", "hide": False}
    first = play(node, variables, tmp_path)
    assert (first["changed"], first["failed"]) == (4, 0), first
    record = node.call("GET", "/security/aws-kms?fields=*").json()["records"][0]
    assert (record["svm"]["name"], record["region"]) == ("svm1", aws_kms["region"])
    again = play(node, variables, tmp_path)
    assert (again["changed"], again["failed"], again["ok"] + again["skipped"]) == (0, 0, first["ok"]), again
