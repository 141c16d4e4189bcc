"""Upscale images and folders of files."""
