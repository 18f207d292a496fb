"""The networks of students, and of what teaches `score`: one file for each."""
