"""Generated from proto/nodeagent/cri/v1 by `make proto`; nothing here is written by hand."""
