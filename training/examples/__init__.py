"""Annotated pictures to fine-tune and evaluate on: one reader per dataset, as it lies on disk. See `training.examples.base`."""
