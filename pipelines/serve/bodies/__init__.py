"""Request bodies: their fields, and the requests that they stand for."""
