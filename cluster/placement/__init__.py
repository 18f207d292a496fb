"""Which kinds of processes run on which nodes, and how many of them have room."""
