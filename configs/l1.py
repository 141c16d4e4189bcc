"""A GAN whose content loss is L1, small enough for a CPU.

    python run.py --config configs/l1.py

OUTCOME
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base.small` with L1."""
    config = base.small()
    config.loss.content.l1 = 1.0
    config.loss.adversarial_weight = 1e-4
    return config
