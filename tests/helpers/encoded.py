"""Noise as image files, and the one-line message of a failure."""

import io

import numpy as np
import pytest
from PIL import Image

from isr_jax.errors import UserError


def noise(height, width, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encode(image, fmt="PNG", **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, fmt, **options)
    return out.getvalue()


def error_of(function):
    """The one-line message with which `function` stops."""
    with pytest.raises(UserError) as info:
        function()
    assert "\n" not in str(info.value)
    return str(info.value)
