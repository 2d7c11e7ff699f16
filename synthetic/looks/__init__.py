"""How people and hands look: drawn as data, painted and pushed out on a model."""
