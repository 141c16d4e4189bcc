"""A GAN whose content loss is SSIM, small enough for a CPU.

    python run.py --config configs/ssim.py

OUTCOME
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base.small` with SSIM."""
    config = base.small()
    config.loss.content.ssim = 1.0
    config.loss.adversarial_weight = 1e-3
    return config
