#!/usr/bin/env python3
"""A client of LMX in a few lines of Python, with nothing but its standard library.

It speaks the line protocol of live-mutex: one JSON object per line, over TCP or a Unix
socket. As a module:

    with Client() as lmx, lmx.lock("report", ttl_ms=10_000) as held:
        write_report(fence=held.token)

As a command, it adds 1 to the number in a file, safely among any number of others:

    python3 live_mutex.py COUNTER_FILE [TIMES]

LMX_HOST and LMX_PORT, or LMX_UNIX, say where the broker is.
"""

import json
import os
import socket
import sys
import uuid
from contextlib import contextmanager
from typing import NamedTuple


class LockError(Exception):
    """The broker refused, or the connection is gone."""


class Held(NamedTuple):
    """A lock that is held: its key, its id, and a number larger than every earlier one's."""

    key: str
    id: str
    token: int


class Client:
    """One connection. Its locks end with it. Not for several threads at one time."""

    def __init__(self, host=None, port=None, unix=None):
        unix = unix or os.environ.get("LMX_UNIX")
        if unix:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(unix)
        else:
            host = host or os.environ.get("LMX_HOST", "localhost")
            port = int(port or os.environ.get("LMX_PORT", "6970"))
            self._socket = socket.create_connection((host, port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("r", encoding="utf-8", newline="\n")

    def acquire(self, key, ttl_ms=None, wait=True):
        """Waits for the lock, or with wait=False returns None if it is held.

        Without a ttl the lock lasts until it is released or this connection ends.
        """
        asked = {"type": "lock", "key": key, "ttl": ttl_ms, "wait": wait, "pid": os.getpid()}
        reply = self._ask(asked)
        if reply.get("acquired"):
            return Held(key, reply["uuid"], reply["fencingToken"])
        if "error" in reply:
            raise LockError(reply["error"])
        return None

    def release(self, held):
        """Releases the lock. It is an error if the broker knows better."""
        reply = self._ask({"type": "unlock", "key": held.key, "_uuid": held.id})
        if not reply.get("unlocked"):
            raise LockError(reply.get("error", "not unlocked"))

    @contextmanager
    def lock(self, key, ttl_ms=None):
        """The lock, held for the length of a `with` block."""
        held = self.acquire(key, ttl_ms)
        try:
            yield held
        finally:
            self.release(held)

    def close(self):
        """Ends the connection, and with it what it holds."""
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ask(self, message):
        """Sends a message, and returns the answer that carries its id."""
        message["uuid"] = str(uuid.uuid4())
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        for line in self._lines:
            reply = json.loads(line)
            if reply.get("uuid") == message["uuid"]:
                return reply
            if "error" in reply and "uuid" not in reply:
                raise LockError(reply["error"])
        raise LockError("the broker closed the connection")


def main():
    path, times = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with Client() as lmx:
        for _ in range(times):
            with lmx.lock(path, ttl_ms=10_000):
                with open(path, encoding="utf-8") as file:
                    number = int(file.read())
                with open(path, "w", encoding="utf-8") as file:
                    file.write(str(number + 1))


if __name__ == "__main__":
    main()
