"""The operator's commands at a terminal, as a person sees them: in tmux, with what is typed and what stands on the screen. What they do is the Rust tests' (crates/keystead/tests/cli.rs)."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

import support
from support import PASSWORD, wait_until


class Terminal:
    """A shell in a terminal of 140 columns, without anything of Keystead's in its environment but where the node is."""

    def __init__(self, node):
        # tmux's socket has a path of 107 bytes at the most.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="keystead-tmux-"))
        program = pathlib.Path(os.environ.get("KEYSTEAD_BIN") or support.TOP / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/keystead")
        environment = {
            "HOME": str(self.folder), "PATH": "%s:%s" % (program.parent, os.environ["PATH"]), "TERM": "xterm", "LC_ALL": "C.UTF-8", "ENV": str(self.folder / "rc"),
            "KEYSTEAD_ENDPOINT": "127.0.0.1:%d" % node.port, "KEYSTEAD_CA": str(node.ca),
        }
        (self.folder / "rc").write_text("PS1='ready> '\n")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "140", "-y", "50", "-s", "t", "env -u TMUX sh", environment=environment)

    def tmux(self, *words, environment=None):
        done = subprocess.run(["tmux", "-u", "-S", str(self.folder / "socket"), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False, timeout=30)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def screen(self):
        """All that was ever on the screen, lines that were wrapped as one."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-", "-t", "t")

    def type(self, text, enter=True):
        self.tmux("send-keys", "-t", "t", "-l", text)
        if enter:
            self.press("Enter")

    def press(self, key):
        self.tmux("send-keys", "-t", "t", key)

    def sees(self, *texts):
        screen = ""

        def there():
            nonlocal screen
            screen = self.screen()
            return all(text in screen for text in texts)

        try:
            wait_until("the screen", there)
        except AssertionError:
            raise AssertionError("%r: not on the screen:\n%s" % (texts, screen)) from None
        return screen

    def is_asked(self, text):
        """Sees a question for a secret, and waits until the terminal shows no more what is typed: the question comes a moment before."""
        self.sees(text)
        device = self.tmux("display-message", "-p", "-t", "t", "#{pane_tty}").strip()
        wait_until("a terminal that does not show what is typed", lambda: "-echo" in subprocess.run(
            ["stty", "-a", "-F", device], stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout.split())

    def run(self, command, number):
        """Types a command; its exit code is shown as `exit NUMBER: CODE`."""
        self.type('%s; echo "exit %d: $?"' % (command, number))

    def close(self):
        self.tmux("kill-server")
        shutil.rmtree(self.folder)


@pytest.fixture
def terminal():
    with contextlib.ExitStack() as stack:
        def open_terminal(node):
            one = Terminal(node)
            stack.callback(one.close)
            one.sees("ready>")
            return one
        yield open_terminal


def enable(svm, kms, port):
    return "keystead security key-manager external aws enable --vserver %s --region %s --key-id %s --access-key-id %s --host 127.0.0.1 --port %d --timeout 60" % (
        svm, support.REGION, kms.key_id, kms.access_key_id, port)


def test_secrets_are_asked_for_and_a_job_shows_how_far_it_is(ministack, start_node, terminal):
    node = start_node(ministack.ca)
    node.svm("svm1")
    node.svm("svm2")
    shell = terminal(node)
    shell.run("keystead login", 1)
    shell.is_asked("Password of admin at https://127.0.0.1:%d: " % node.port)
    shell.type(PASSWORD)
    shell.sees("admin is logged in at", "exit 1: 0")
    shell.run(enable("svm1", ministack, ministack.port), 2)
    shell.is_asked("AWS secret access key of %s: " % ministack.access_key_id)
    shell.type(ministack.secret)
    screen = shell.sees("SVM svm1: AWS KMS is enabled", "exit 2: 0")
    assert "/3 " not in screen, "the bar goes when the job has ended"

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        shell.run(enable("svm2", ministack, silent.getsockname()[1]), 3)
        shell.is_asked("AWS secret access key of %s: \n" % ministack.access_key_id)
        shell.type(ministack.secret)
        shell.sees("] 0/3 ", "asking AWS KMS about the customer key (1 of 3)")
        shell.press("C-c")
        screen = shell.sees("stopped watching; job ", "next: to watch it again: keystead job watch ", "exit 3: 130")
        job = screen.split("keystead job watch ")[1].split()[0]
        shell.run("keystead job watch " + job, 4)
        wait_until("the bar", lambda: shell.screen().count("] 0/3 ") == 1)
        assert node.call("GET", "/cluster/jobs/" + job).json()["state"] == "running"
        shell.press("C-c")
        shell.sees("exit 4: 130")

    # A prompt that is left makes the terminal show again what is typed.
    shell.run("keystead login --user somebody", 5)
    shell.is_asked("Password of somebody at")
    shell.type("half a passw", enter=False)
    shell.press("C-c")
    shell.sees("exit 5: 130")
    shell.type("echo visible", enter=False)
    shell.sees("ready> echo visible")
    shown = shell.screen()
    for secret in (PASSWORD, ministack.secret, "half a passw"):
        assert secret not in shown


def test_what_is_wrong_is_said_with_what_to_do(start_node, terminal):
    node = start_node()
    shell = terminal(node)
    shell.run("keystead login", 1)
    shell.is_asked("Password of admin at")
    shell.type("not the password")
    shell.sees("refuses the login of admin", "next: look at --user and the password", "exit 1: 3")
    shell.run("keystead login", 2)
    shell.is_asked("exit 1: 3\nready> keystead login; echo \"exit 2: $?\"\nPassword of admin at")
    shell.type(PASSWORD)
    shell.sees("exit 2: 0")
    shell.run("keystead vserver show", 3)
    shell.sees("There are none.", "exit 3: 0")
    shell.run("keystead vserver show --vservr svm1", 4)
    shell.sees("keystead: unexpected argument '--vservr' found", "(a similar argument exists: '--vserver')", "see keystead vserver show --help", "exit 4: 2")
    assert node.call("POST", "/security/authentication/password", {"name": "admin", "password": "another password"}).status_code == 200
    shell.run("keystead vserver show", 5)
    shell.sees("keystead: the session of admin at", "has ended", "next: log in again: keystead login", "exit 5: 3")
    node.stop()
    shell.run("keystead login", 6)
    shell.is_asked("exit 5: 3\nready> keystead login; echo \"exit 6: $?\"\nPassword of admin at")
    shell.type("another password")
    shell.sees("cannot be reached: Connection refused", "next: look at --endpoint", "exit 6: 4")
    assert PASSWORD not in shell.screen() and "another password" not in shell.screen()


def test_a_secret_is_not_shown_where_standard_input_is_the_terminal(start_node, terminal):
    node = start_node()
    shell = terminal(node)
    shell.run("keystead vserver show --password-file -", 1)
    shell.is_asked("Password of admin at")
    shell.type(PASSWORD)
    shell.sees("There are none.", "exit 1: 0")
    shell.run("keystead vserver show --password-file /dev/stdin", 2)
    shell.is_asked("exit 1: 0\nready> keystead vserver show --password-file /dev/stdin; echo \"exit 2: $?\"\nPassword of admin at")
    shell.type("half a passw", enter=False)
    shell.press("C-c")
    shell.sees("exit 2: 130")
    # Nobody writes into the pipe, and Ctrl-C is heard nevertheless.
    shell.run("mkfifo $HOME/pipe; echo begun; keystead vserver show --password-file $HOME/pipe", 3)
    shell.sees("\nbegun\n")
    time.sleep(1)
    shell.press("C-c")
    shell.sees("exit 3: 130")
    shown = shell.screen()
    assert PASSWORD not in shown and "half a passw" not in shown
