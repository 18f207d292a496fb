"""Attention and linear layers."""
