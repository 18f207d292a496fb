"""Target models: they score nodes. One protocol, several implementations."""
