"""What pre-trained networks are for: one file per task, each with its head, losses, scores and pictures. See `training.tasks.base`."""
