"""The verbs: pure functions from values to values. No clock, file, log, random, thread or global."""
