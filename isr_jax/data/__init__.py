"""Images for training: sources (files, TFDS), the device-resident pool and the Grain stream."""
