"""Files by URL on this machine and on S3, checkpoints among them, and who may write in a folder."""
