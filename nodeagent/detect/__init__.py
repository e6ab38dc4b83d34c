"""Detectors: (Sight, Policy) -> Conditions that are true right now. Add one in its own file and here."""

from nodeagent.detect import pressure

DETECTORS = (pressure.detect,)
