"""`paceline plan`: how many targets and draft actors, from measured costs."""
