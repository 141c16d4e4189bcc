"""Train a GAN: the update, the compiled program, the loop."""
