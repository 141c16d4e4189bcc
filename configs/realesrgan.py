"""Real-ESRGAN at 4x, from Real-ESRNet.

    python run.py --config configs/realesrnet.py && python run.py --config configs/realesrgan.py

Source: Wang et al. 2021 (Real-ESRGAN), section 4.1, and the authors' options for x4plus: L1, five
layers of VGG19 by L1, and 0.1 times the adversarial loss of a U-Net discriminator, which sees
targets that are not sharpened; Adam (b1 = 0.9, b2 = 0.99) at 1e-4 for 4e5 updates. The rest is as
in configs/realesrnet.py. VGG19: isr_jax.perceptual.weight_files.
"""

from ml_collections import ConfigDict

from configs import realesrnet
from isr_jax.recipes import variant_of


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:smoke` for a minute on a CPU."""
    config = realesrnet.get_config()
    config.loss.perceptual.weight = 1.0
    config.loss.perceptual.layers = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
    config.loss.perceptual.layer_weights = (0.1, 0.1, 1.0, 1.0, 1.0)
    config.loss.adversarial_weight = 0.1
    config.g_optimizer.learning_rate = 1e-4
    config.d_optimizer = config.g_optimizer.copy_and_resolve_references()
    config.train.init_from = "runs/realesrnet"
    config.train.steps = 400_000
    config.train.keep_best = "latest"
    return variant_of(config, variant)
