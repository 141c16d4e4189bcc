"""The models that ship with the package: small, for PSNR, without a discriminator.

    python run.py --config configs/compact.py --config.data.train=folder:PHOTOGRAPHS
    python run.py --config configs/compact.py:x2 --config.data.train=folder:PHOTOGRAPHS
    isr export runs/compact compact-x4.safetensors

The first is for 4x; :x2 and :x3 begin as it. The package's were trained on T91 and BSD400.
"""

from ml_collections import ConfigDict

from isr_jax import config as base

SCALES = {"": 4, "x2": 2, "x3": 3}


def get_config(variant: str = "") -> ConfigDict:
    """`base.small` with three more blocks and L1 alone; a crop has 32x32 LR pixels."""
    if variant not in SCALES:
        raise ValueError(f"no variant is called {variant!r}; there are x2 and x3")
    config = base.small()
    config.scale = SCALES[variant]
    config.data.crop = 32 * config.scale
    config.data.batch = 8
    config.generator.blocks = 8
    config.loss.content.l1 = 1.0
    config.loss.adversarial_weight = 0.0
    config.g_optimizer.learning_rate = 2e-3
    config.train.steps = 30_000
    config.train.log_every = 100
    config.train.validate_every = 1000
    config.train.checkpoint_every = 1000
    if variant:
        config.train.init_from = "runs/compact"
        config.g_optimizer.learning_rate = 1e-3
        config.train.steps = 5000
    return config
