"""What pre-trained networks are for: features of one or two images, and the heads that read a task's answer from them."""
