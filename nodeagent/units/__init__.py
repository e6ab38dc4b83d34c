"""systemd's side of a cgroup: which unit it is, and the unit properties that a daemon-reload writes again.

names -> cgroup path to unit, pure      properties -> knob value to property and back, pure
bus   -> systemd's private socket       dropins    -> the files that systemd keeps set properties in
patience -> how long systemd is waited for, and when it is left in peace

Invariant: nothing here decides; every call is bounded in time, and without systemd nothing is imported.
"""
