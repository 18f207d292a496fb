"""What a user runs: data sets in, rows out; the command line."""
