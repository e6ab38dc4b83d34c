"""The gRPC face of the node: `convert` turns a Tick into messages (pure), `server` hands out the bytes."""

import os

# grpc reads these once, when it is first imported. Fork support costs a registry that grows with every
# channel, and the agent never forks without exec. Errors come back as exceptions: its log adds nothing.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
