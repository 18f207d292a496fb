"""A request and its state: what is asked for, what is decided so far."""
