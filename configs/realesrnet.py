"""Real-ESRNet at 4x: the RRDB network trained by L1 on second-order degradations.

    python run.py --config configs/realesrnet.py

Source: Wang et al. 2021 (Real-ESRGAN), section 4.1, and the authors' options for x4plus: starts
from ESRGAN's first stage; crops of 256 px within 400 px that are degraded, batches of 48, sharpened
targets, L1, Adam (b1 = 0.9, b2 = 0.99) at 2e-4 for 1e6 updates, EMA of 0.999. The paper trains on
DIV2K, Flickr2K and OST; here on DIV2K.
"""

from ml_collections import ConfigDict

from isr_jax import recipes
from isr_jax.models import DISCRIMINATORS, GENERATORS


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:smoke` for a minute on a CPU."""
    config = recipes.div2k()
    config.generator = ConfigDict(GENERATORS["rrdbnet"])
    config.discriminator = ConfigDict(DISCRIMINATORS["unet"])
    config.data.crop = 256
    config.data.batch = 48
    config.data.degradation = "second_order"
    config.data.margin = 72
    config.data.sharpen = True
    config.loss.content.mse = 0.0
    config.loss.content.l1 = 1.0
    config.loss.adversarial_weight = 0.0
    config.g_optimizer.schedule = "constant"
    config.g_optimizer.learning_rate = 2e-4
    config.g_optimizer.b2 = 0.99
    config.train.init_from = "runs/esrgan-psnr"
    config.train.steps = 1_000_000
    return recipes.variant_of(config, variant)
