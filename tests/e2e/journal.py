"""Starts a node as systemd does, with its standard error leading to the journal, and prints the entries that reach the journal. Runs in a mount namespace of its own (unshare --mount), where /run is empty and the journal is this program."""

import os
import pathlib
import socket
import subprocess
import sys


def fields(entry):
    """The fields of an entry in the journal's native protocol: NAME=value, or NAME, a length and the value."""
    found = {}
    while entry:
        line, entry = entry.split(b"\n", 1)
        if b"=" in line:
            name, value = line.split(b"=", 1)
        else:
            name, length = line, int.from_bytes(entry[:8], "little")
            value, entry = entry[8:8 + length], entry[8 + length + 1:]
        found[name.decode()] = value.decode()
    return found


def main(program, folder):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    journal = pathlib.Path("/run/systemd/journal")
    journal.mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(journal / "socket"))
    listener.settimeout(60)
    ours, theirs = socket.socketpair()
    stream = os.fstat(theirs.fileno())
    node = subprocess.Popen(
        [program, "serve", "--data-dir", folder + "/data", "--listen", "127.0.0.1:0", "--ekmip-listen", "127.0.0.1:0"],
        env={"PATH": os.environ["PATH"], "JOURNAL_STREAM": "%d:%d" % (stream.st_dev, stream.st_ino)}, stderr=theirs.fileno(), stdin=subprocess.DEVNULL)
    theirs.close()
    try:
        while True:
            entry = fields(listener.recv(65_536))
            print(entry, flush=True)
            if "are served" in entry.get("MESSAGE", ""):
                break
    finally:
        node.terminate()
        node.wait(60)
    ours.settimeout(10)
    # Nothing comes twice.
    print("lines:", len(ours.recv(65_536)))


if __name__ == "__main__":
    main(*sys.argv[1:])
