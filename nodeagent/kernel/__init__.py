"""The kernel's edge, the only package that opens /proc, /sys and cgroups. Imports `nodeagent.model` only.

mounts -> where each controller is (v1, v2, hybrid)      files, errno -> kept descriptors, errors
parse  -> text to numbers, never an exception            read_v1, read_v2 -> which files, which fields
node, topology -> the machine                            reader -> one tick of all of it

Invariant: what cannot be read is None and counted; nothing here raises for what a kernel file says.
"""
