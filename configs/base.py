"""SRGAN's setting at 4x, sized for a GPU or a TPU: the defaults of every field.

    python run.py --config configs/base.py --config.data.train=folder:photos --workdir runs/mine

The fields are in isr_jax/config.py.
"""

from isr_jax.config import get_config

__all__ = ["get_config"]
