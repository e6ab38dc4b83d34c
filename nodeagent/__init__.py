"""nodeagent: offline work uses what online work leaves idle, and gives it back before anyone notices.

    read(host) -> Snapshot                        kernel/ pods/   I/O
    decide(snapshot, policy, memory) -> Decision  core/           pure
    diff(plan, knobs) -> (Change, ...)            core/           pure
    apply(host, changes) -> (Outcome, ...)        kernel/         I/O
    record(journal, tick)   report(tick)          journal rpc/ report/

Imports point down: cli -> loop -> {core.decide, kernel, units, pods, rpc, journal, report, config}, and
core.decide -> detect | enforce -> core.* -> model. `model core detect enforce` do no I/O and read no
clock; apps, kernel, pods, rpc, journal and report import model, never core. import-linter proves it.

Invariants: one owner per knob; originals are on disk before the first write; a knob that is not in the
plan is given back; what somebody else wrote is theirs; a missing reading never loosens a limit.
"""

__version__ = "0.1.0"
