"""Reads inputs: files, shards, rows."""
