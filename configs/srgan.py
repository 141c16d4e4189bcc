"""SRGAN at 4x, from SRResNet: VGG19's features and the adversarial loss.

    python run.py --config configs/srresnet.py && python run.py --config configs/srgan.py

Source: Ledig et al. 2017 (SRGAN), sections 2.2 and 3.2: VGG54, relu5_4 scaled by 1/12.75, with its
squared error, 1e-3 times the adversarial loss, crops of 96 px, batches of 16, Adam with b1 = 0.9 at
1e-4 for 1e5 updates and at 1e-5 for 1e5 more. VGG19: isr_jax.perceptual.weight_files.
"""

from ml_collections import ConfigDict

from isr_jax.recipes import div2k, variant_of


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:smoke` for a minute on a CPU."""
    config = div2k()
    config.loss.content.mse = 0.0
    config.loss.perceptual.weight = 1 / 12.75**2
    config.loss.perceptual.layers = ("relu5_4",)
    config.loss.perceptual.criterion = "l2"
    config.loss.adversarial_weight = 1e-3
    config.train.init_from = "runs/srresnet"
    config.train.steps = 200_000
    config.train.keep_best = "latest"
    return variant_of(config, variant)
