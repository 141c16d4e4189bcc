r"""GANs that tune a model trained for PSNR for texture, sized for a CPU.

    python run.py --config configs/gan.py
    python run.py --config configs/gan.py --config.data.train=folder:PHOTOGRAPHS
    python run.py --config configs/gan.py:standard \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS

The generator begins as compact-x4 or standard-x4, as SRGAN's and ESRGAN's begin as one trained for
PSNR. The discriminator sees patches of 34 pixels, so it judges texture rather than objects, and its
features stand in for those of VGG19, which need a file of weights: with one, set
loss.perceptual.weight=1 and loss.feature_matching=0. The lattice loss keeps out the dots that such
a GAN otherwise paints into every LR pixel. `isr upscale --strength` turns the texture down
afterwards; the shipped gan-x4 is 0.9 of the result and 0.1 of standard-x4 (`isr interpolate`).
Constant learning rates are part of the recipe: with cosine schedules for both networks, the grid
came back as they fell.

Source: Isola et al. 2017 (pix2pix), section 3.2.2 (the discriminator); Wang et al. 2018
(pix2pixHD), section 3.2 (feature matching); Lim and Ye 2017 (the hinge loss).
"""

from ml_collections import ConfigDict

from configs import compact, standard
from isr_jax import errors
from isr_jax.models.discriminators import DISCRIMINATORS


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a PSNR model with an adversarial part; a crop has 24x24 LR pixels."""
    if variant not in ("", "standard"):
        raise errors.unknown("variant", variant, ["standard"])
    config = (standard if variant else compact).get_config()
    config.train.init_from = "standard-x4" if variant else "compact-x4"
    config.train.steps = 4000 if variant else 3500
    return with_discriminator(config)


def with_discriminator(config: ConfigDict) -> ConfigDict:
    """Return a config of a PSNR model with the adversarial part added."""
    config.data.crop = 24 * config.scale
    config.discriminator = ConfigDict({**DISCRIMINATORS["patch"], "width": 32, "layers": 2})
    config.loss.adversarial = "hinge"
    config.loss.adversarial_weight = 0.03
    config.loss.feature_matching = 0.05
    config.loss.lattice = 10.0
    for optimizer in (config.g_optimizer, config.d_optimizer):
        optimizer.name = "adam"
        optimizer.learning_rate = 3e-4
        optimizer.schedule = "constant"
        optimizer.warmup_steps = 0
    config.train.validate_every = config.train.checkpoint_every = 500
    config.train.keep_best = "latest"  # the one of the best PSNR is the first
    return config
