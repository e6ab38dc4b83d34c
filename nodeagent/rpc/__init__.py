"""The gRPC face of the node: `convert` turns a Tick into messages (pure), `server` hands out the bytes."""
