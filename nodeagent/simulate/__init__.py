"""Simulation: the loop on a modelled node, fed with a trace of online CPU use instead of the kernel.

    read (table | alibaba) -> Trace -> steps -> play(Lender) -> Account -> Simulated -> render

`Ours` is the agent's own `decide` over the snapshots that the modelled node gives; anything else that says
how much Batch may use and what is offered to it can be played on the same trace.
Invariant: what the trace does not tell is not known, and time in which online use is not known earns nothing.
"""
