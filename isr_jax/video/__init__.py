"""Upscale videos: read, upscaled in batches, written in segments that a killed job resumes from."""
