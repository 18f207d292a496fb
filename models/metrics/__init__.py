"""How far two sets of samples are from each other: figures, floors, intervals. No Ray, no files."""
