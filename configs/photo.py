r"""The pretrained models for photographs from the web and phones: blurred, noisy, compressed ones.

    python run.py --config configs/photo.py \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS
    isr export runs/photo photo-l1.safetensors
    python run.py --config configs/photo.py:gan --config.train.init_from=photo-l1.safetensors \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS

The first is standard-x4, trained on by L1 to undo degradations of a second order; the second adds
configs/gan.py's adversarial part. :x2 and :x2-gan are the same for 2x.

Source: Wang et al. 2021 (Real-ESRGAN), section 3; degrade/parameters.py says what is milder here.
"""

from ml_collections import ConfigDict

from configs import gan, standard
from isr_jax import errors

VARIANTS = {"": 4, "gan": 4, "x2": 2, "x2-gan": 2}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of standard with degradations; `gan` adds the adversarial part."""
    if variant not in VARIANTS:
        raise errors.unknown("variant", variant, [name for name in VARIANTS if name])
    scale = VARIANTS[variant]
    config = standard.get_config("x2" if scale == 2 else "")
    config.data.degradation = "photo"
    config.data.margin = 32
    config.train.init_from = f"standard-x{scale}"
    config.g_optimizer.learning_rate = 1e-3
    config.train.steps = 6000
    return gan.with_discriminator(config) if variant.endswith("gan") else config
