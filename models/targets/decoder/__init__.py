"""The decoder for the Llama family."""
