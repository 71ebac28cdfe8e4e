"""Commands for finished shards: balance and verify."""
