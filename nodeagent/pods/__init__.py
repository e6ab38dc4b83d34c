"""Who is on the node: cgroups in, pods out.

recognise -> the pods among the cgroups (pure)      claims -> what `nodeagent exec` says of its pods
launch    -> `nodeagent exec` itself
"""
