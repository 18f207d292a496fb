"""Ray actors and pools over models/."""
