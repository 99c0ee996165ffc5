#!/usr/bin/env python3
"""A lock protocol for lmx-sim, in Python: one server, leases, deadlines counted from asking.

Run as `lease_lock.py server` or `lease_lock.py client`; with `--from-receipt` the client
counts its lease from when the grant came, which is wrong, and the simulator says so.
"""

import json
import sys

MS = 1_000_000
PPM = 1_000


class Server:
    def __init__(self):
        self.locks = {}  # key -> [owner, until_ns]

    def start(self, event):
        if event["disk"]:
            self.locks = {int(key): lock for key, lock in event["disk"].items()}
        return []

    def message(self, event):
        said, now = event["message"], event["now_ns"]
        key, owner = said["key"], said["owner"]
        held = self.locks.get(key)
        if held and held[1] <= now:
            held = None
        if said["say"] == "free":
            if held and held[0] == owner:
                del self.locks[key]
            return [{"disk": self.locks}]
        if held:
            return [self.reply(event, "busy", owner)]
        self.locks[key] = [owner, now + said["lease_ns"]]
        return [{"disk": self.locks}, self.reply(event, "granted", owner)]

    @staticmethod
    def reply(event, say, owner):
        message = {"say": say, "owner": owner}
        return {"send": {"to": event["from"], "message": message}}


class Client:
    def __init__(self, from_receipt):
        self.from_receipt = from_receipt
        self.asks = {}  # ticket -> what is asked for
        self.count = 0
        self.born = 0

    def start(self, event):
        self.born = event["now_ns"]
        return []

    def acquire(self, event):
        self.asks[event["ticket"]] = {
            "key": event["key"],
            "lease_ns": event["lease_ns"],
            "held": False,
        }
        return self.ask(event, event["ticket"])

    def ask(self, event, ticket):
        ask = self.asks[ticket]
        self.count += 1
        ask["owner"] = f"{event['me']}-{self.born}-{self.count}"
        ask["sent_ns"] = event["now_ns"]
        message = {key: ask[key] for key in ("key", "owner", "lease_ns")} | {"say": "lock"}
        return [
            {"send": {"to": 0, "message": message}},
            {"timer": {"timer": ticket, "at_ns": event["now_ns"] + 100 * MS}},
        ]

    def release(self, event):
        ask = self.asks.pop(event["ticket"], None)
        if ask is None:
            return []
        message = {"say": "free", "key": ask["key"], "owner": ask["owner"]}
        return [{"send": {"to": 0, "message": message}}]

    def message(self, event):
        said = event["message"]
        for ticket, ask in self.asks.items():
            if ask["owner"] == said["owner"] and not ask["held"]:
                break
        else:
            return []
        if said["say"] == "busy":
            pause = 10 * MS + event["draw"] % (40 * MS)
            return [{"timer": {"timer": ticket, "at_ns": event["now_ns"] + pause}}]
        ask["held"] = True
        since = event["now_ns"] if self.from_receipt else ask["sent_ns"]
        until = since + ask["lease_ns"] - ask["lease_ns"] // 1_000_000 * 2 * PPM
        return [
            {"cancel_timer": ticket},
            {"granted": {"ticket": ticket, "good_until_ns": until, "token": None}},
        ]

    def timer(self, event):
        ask = self.asks.get(event["timer"])
        return [] if ask is None or ask["held"] else self.ask(event, event["timer"])


def main():
    node = Server() if sys.argv[1] == "server" else Client("--from-receipt" in sys.argv)
    for line in sys.stdin:
        event = json.loads(line)
        handle = getattr(node, event["event"], None)
        print(json.dumps(handle(event) if handle else []), flush=True)


if __name__ == "__main__":
    main()
