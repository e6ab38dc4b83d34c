"""The reference controller, `nodeagent collect`: what many nodes offer, added up and served.

    stream   one agent's reports      \\
    query    one agent that is asked  -> view (pure: nodes, sums, expiry) -> cluster (gRPC), metrics, screen

`offer` takes a capacity off the wire, `told` puts the view on it; `server` listens, `run` joins it all.
No part of the daemon, which imports none of it.
"""
