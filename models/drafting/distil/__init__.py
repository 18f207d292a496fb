"""Training of drafters on the outputs of their target."""
