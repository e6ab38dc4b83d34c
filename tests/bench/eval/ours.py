"""What nodeagent says of a recorded run: its decisions, made anew, as alarms and accusations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from nodeagent.model.decision import Decision
from nodeagent.model.interference import Episode
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Senses
from nodeagent.model.snapshot import Pod, Snapshot
from tests.bench.eval.recording import Recording, decisions
from tests.bench.eval.score import Alarm

STALLS = ("cpu_stall", "memory_stall", "io_stall")


def alarms(recordings: Iterable[Recording], *, psi: bool = True) -> dict[str, list[Alarm]]:
    """Alarms by recording, in the order in which they were made.

    What a run has taught of a workload is known in the next one, as after a restart of the agent; the rest
    is forgotten. Without `psi` the pods are as on a kernel that has no PSI of cgroups.
    """
    known, told = InterferenceMemory(), {}
    for recording in recordings:
        seen = Seen()
        workloads = known.senses.workloads
        for snapshot, decision, memory in decisions(seen_of(recording, psi=psi), Policy(), known):
            seen.tick(snapshot.at, decision)
            workloads = memory.interference.senses.workloads
        known = InterferenceMemory(senses=Senses(workloads=workloads))
        told[recording.name] = seen.alarms()
    return told


def seen_of(recording: Recording, *, psi: bool) -> Iterator[Snapshot]:
    """The snapshots, with PSI or without."""
    return (
        one if psi else replace(one, pods=tuple(map(_unpressed, one.pods))) for one in recording.snapshots
    )


def _unpressed(pod: Pod) -> Pod:
    reading = replace(pod.reading, cpu_stall=None, memory_stall=None, io_stall=None)
    return replace(pod, reading=reading, unsupported=(*pod.unsupported, *STALLS))


class Seen:
    """Episodes as they are told, tick by tick."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._last: dict[str, Episode] = {}
        self._named: dict[str, list[str]] = {}

    def tick(self, at: float, decision: Decision) -> None:
        """Keep who is named first, and the newest of the rest."""
        for episode in decision.interference.episodes:
            self._begun.setdefault(episode.id, at)
            self._last[episode.id] = episode
            named = self._named.setdefault(episode.id, [])
            named += [s.cgroup for s in episode.suspects if s.named and s.cgroup not in named]

    def alarms(self) -> list[Alarm]:
        """All so far."""
        return [
            Alarm(
                episode.victim_cgroup,
                self._begun[key],
                tuple(self._named[key]),
                tuple(s.cgroup for s in episode.suspects),
            )
            for key, episode in self._last.items()
        ]
