"""Rows in and out: input rows, encoded for requests, and output rows, written shard by shard."""
