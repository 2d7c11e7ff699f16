"""Backends of `pipeline.parse.HumanParser`."""
