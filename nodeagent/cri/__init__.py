"""The messages of the container runtime interface that the agent reads, generated from proto/nodeagent/cri."""
