"""The smallest lock protocol for lmx-sim: the first who asks gets the lock, for ever.

It is convicted of `liveness`, as nobody else ever gets it.
"""

import json, sys

taken = False
for line in sys.stdin:
    event, acts = json.loads(line), []
    if event["event"] == "acquire":                    # a client's user wants a lock
        acts.append({"send": {"to": 0, "message": {"ask": event["ticket"]}}})
    elif event["event"] == "message" and "ask" in event["message"]:        # the server
        if not taken:
            taken = True
            acts.append({"send": {"to": event["from"], "message": {"give": event["message"]["ask"]}}})
    elif event["event"] == "message":                                      # the client
        acts.append({"granted": {"ticket": event["message"]["give"]}})
    print(json.dumps(acts), flush=True)
