"""SRResNet at 4x: SRGAN's generator, trained for PSNR alone.

    python run.py --config configs/srresnet.py

Source: Ledig et al. 2017 (SRGAN), section 3.2: crops of 96 px, batches of 16, MSE, Adam with
b1 = 0.9 at 1e-4 for 1e6 updates. The paper trains on ImageNet; here on DIV2K.
"""

from ml_collections import ConfigDict

from isr_jax.recipes import div2k, variant_of


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:smoke` for a minute on a CPU."""
    config = div2k()
    config.loss.adversarial_weight = 0.0
    config.g_optimizer.schedule = "constant"
    config.train.steps = 1_000_000
    return variant_of(config, variant)
