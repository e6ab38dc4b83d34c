"""Generated from proto/nodeagent/v1 by `make proto`; nothing here is written by hand."""
