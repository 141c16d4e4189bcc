"""A GAN whose content loss is negative PSNR, small enough for a CPU.

    python run.py --config configs/psnr.py

OUTCOME
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base.small` with negative PSNR."""
    config = base.small()
    config.loss.content.psnr = 1.0
    config.loss.adversarial_weight = 1e-2
    return config
