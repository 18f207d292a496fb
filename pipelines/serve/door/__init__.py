"""The door of a server: who may come in, how much each may take, and the log of who came."""
