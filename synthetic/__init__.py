"""Synthetic people: a scene from a seed, a rendered view from a scene, its exact labels."""
