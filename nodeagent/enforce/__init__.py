"""Enforcers: (Scene, Policy) -> Settings, each the only owner of its kind of knob. Add one in its
own file and here."""

from nodeagent.enforce import burst, cpu_quota, cpu_weight, cpuset, freeze, io, memory, nic

ENFORCERS = (
    cpu_quota.enforce,
    burst.enforce,
    cpu_weight.enforce,
    cpuset.enforce,
    memory.enforce,
    io.enforce,
    nic.enforce,
    freeze.enforce,
)
