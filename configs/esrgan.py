"""ESRGAN at 4x; `:psnr` is its first stage, the RRDB network trained by L1.

    python run.py --config configs/esrgan.py:psnr && python run.py --config configs/esrgan.py

`--config.train.init_from=RRDB_PSNR_x4.pth` starts from the published first stage instead.

Source: Wang et al. 2018 (ESRGAN), section 4.1: crops of 128 px, batches of 16; L1 at 2e-4, halved
every 2e5 updates, for 1e6 updates; then VGG19's conv5_4 before the activation by L1, 5e-3 times the
relativistic loss and 1e-2 times L1, at 1e-4, halved at 50, 100, 200 and 300 thousand of 4e5
updates. The authors' code halves the relativistic loss, so that 2.5e-3 would be its weight. The
paper trains on DIV2K, Flickr2K and OST; here on DIV2K. VGG19: isr_jax.perceptual.weight_files.
"""

from ml_collections import ConfigDict

from isr_jax import recipes
from isr_jax.models import DISCRIMINATORS, GENERATORS


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:psnr`, and `:smoke` for a minute on a CPU."""
    config = recipes.div2k()
    config.generator = ConfigDict(GENERATORS["rrdbnet"])
    config.discriminator = ConfigDict(DISCRIMINATORS["vgg"])
    config.data.crop = 128
    config.loss.content.mse = 0.0
    config.loss.adversarial = "relativistic"
    config.g_optimizer.schedule = config.d_optimizer.schedule = "milestones"
    if variant == "psnr":
        config.loss.content.l1 = 1.0
        config.loss.adversarial_weight = 0.0
        config.g_optimizer.learning_rate = 2e-4
        config.g_optimizer.milestones = (200_000, 400_000, 600_000, 800_000)
        config.train.steps = 1_000_000
        return config
    config.loss.content.l1 = 1e-2
    config.loss.perceptual.weight = 1.0
    config.loss.adversarial_weight = 5e-3
    milestones = (50_000, 100_000, 200_000, 300_000)
    config.g_optimizer.milestones = config.d_optimizer.milestones = milestones
    config.train.init_from = "runs/esrgan-psnr"
    config.train.steps = 400_000
    config.train.keep_best = "latest"
    return recipes.variant_of(config, variant, of=("psnr",))
