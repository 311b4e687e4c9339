"""The servers that integration tests start for themselves, one module each."""
