"""The models shipped with the package: compact, trained for PSNR, without a discriminator.

    python run.py --config configs/compact.py --config.data.train=folder:PHOTOGRAPHS
    python run.py --config configs/compact.py:x2 --config.data.train=folder:PHOTOGRAPHS
    isr export runs/compact compact-x4.safetensors

The first is for 4x; :x2 and :x3 are initialised from it. The shipped models were trained on T91 and
BSD400.
"""

from ml_collections import ConfigDict

from isr_jax import errors
from isr_jax.config import small

SCALES = {"": 4, "x2": 2, "x3": 3}


def get_config(variant: str = "") -> ConfigDict:
    """Return `small` with three more blocks and only L1; a crop has 32x32 LR pixels."""
    if variant not in SCALES:
        raise errors.unknown("variant", variant, ["x2", "x3"])
    config = small()
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
        config.train.init_from = "compact-x4"
        config.g_optimizer.learning_rate = 1e-3
        config.train.steps = 5000
    return config
