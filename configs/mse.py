"""A GAN whose content loss is MSE, small enough for a CPU.

    python run.py --config configs/mse.py

OUTCOME
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base.small` with MSE."""
    config = base.small()
    config.loss.content.mse = 1.0
    config.loss.adversarial_weight = 1e-5
    return config
