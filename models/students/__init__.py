"""Students: networks that make an image of a target in one or two passes."""
