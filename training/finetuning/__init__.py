"""Fine-tuning a pre-trained network for a task, scoring it, comparing starts, asking it about a photograph."""
