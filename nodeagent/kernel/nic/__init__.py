"""NICs by netlink and bpf(2): what is there, our trees, and what tells whose a packet is.

Imported only where traffic is shaped. pyroute2 (10 to 24 MB) is imported only by the probe's process.
Invariant: what somebody else has set (a root qdisc, clsact, filters, nftables tables) is never changed or
removed.
"""
