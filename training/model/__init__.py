"""The completion network: a shared ViT encoder, a decoder that looks at the reference, and their positions."""
