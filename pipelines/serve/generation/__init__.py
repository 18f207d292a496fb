"""Generations in an ingress: from a body to requests for a manager, and from results to answers."""
