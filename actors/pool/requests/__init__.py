"""The requests of a pool: where each is, what it gained so far, which ones may kill actors."""
