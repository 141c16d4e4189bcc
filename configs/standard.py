"""The pretrained models of best PSNR: standard, of 0.7 million parameters, without a discriminator.

    python run.py --config configs/standard.py \\
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS
    python run.py --config configs/standard.py:x2 \\
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS
    isr export runs/standard standard-x4.safetensors --dtype float16

The first is for 4x; :x2 is initialised from it. PHOTOGRAPHS has the folders BSD400 and T91, of which
configs/photographs/train.txt leaves out 40 for validation, and what is also in Set5 or there twice.

Table here
"""

from ml_collections import ConfigDict

from configs import compact
from isr_jax import errors

SCALES = {"": 4, "x2": 2}


def get_config(variant: str = "") -> ConfigDict:
    """Return compact's config with twice the width, an HR convolution, and Muon."""
    if variant not in SCALES:
        raise errors.unknown("variant", variant, ["x2"])
    config = compact.get_config()
    config.scale = SCALES[variant]
    config.data.crop = 32 * config.scale
    config.generator.width = 48
    config.generator.blocks = 14
    config.generator.tail = "hr_conv"
    config.generator.tail_width = 8
    config.generator.tail_activation = True
    config.g_optimizer.name = "muon"
    config.train.steps = 15_000
    config.train.validate_every = 2500
    if variant:
        config.train.init_from = "standard-x4"
        config.g_optimizer.learning_rate = 1e-3
        config.train.steps = 5000
    return config
