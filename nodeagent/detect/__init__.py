"""Detectors: (Sight, Policy) -> Conditions that are true right now. Add one in its own file and here."""

from nodeagent.detect import numa_remote, pressure

DETECTORS = (pressure.detect, numa_remote.detect)
