"""Another user of the machine, who tries everything that a node has; run as a program.

Reads what to try as JSON from its input, prints what it got as JSON. Needs the standard library
only, so that any Python can run it.
"""

import http.client
import json
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path


def read(path: str) -> bool:
    """Whether a file can be read, or a folder listed."""
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            Path(path).read_bytes()
    except OSError:
        return False
    return True


def write(path: str) -> bool:
    """Whether a file can be opened to change it, or one made in a folder."""
    try:
        if os.path.isdir(path):
            made = Path(path) / "intruder"
            made.touch()
            made.unlink()
        else:
            os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True


def connect(path: str) -> bool:
    """Whether a Unix socket can be connected to, by its path."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as made:
            made.settimeout(5)
            try:
                made.connect(path)
            except OSError:
                continue
            return True
    return False


def ask(port: int, method: str, path: str, body: str) -> int:
    """The status of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def words(pids: Iterable[int], name: str) -> str:
    """What the kernel shows of processes."""
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "".join(found)


def main() -> None:
    """Try all of it."""
    wanted = json.load(sys.stdin)
    got = {
        "uid": os.getuid(),
        "read": [path for path in wanted["files"] + wanted["folders"] if read(path)],
        "written": [path for path in wanted["files"] + wanted["folders"] if write(path)],
        "connected": [path for path in wanted["sockets"] if connect(path)],
        "statuses": [ask(wanted["port"], *request) for request in wanted["requests"]],
        "arguments": words(wanted["pids"], "cmdline"),
        "environment": words(wanted["pids"], "environ"),
    }
    json.dump(got, sys.stdout)


if __name__ == "__main__":
    main()
