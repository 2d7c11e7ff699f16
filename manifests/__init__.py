"""What a frame, a pair, a sample and a shard are, and the proof that a build keeps to it."""
