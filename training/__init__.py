"""Masked cross-completion models, trained from shards as they stream in."""
