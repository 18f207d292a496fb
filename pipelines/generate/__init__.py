"""`paceline generate`: a data set becomes requests, results become rows."""
