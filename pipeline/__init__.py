"""The stages that turn raw recordings into shards, and the executors that run them."""
