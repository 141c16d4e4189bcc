"""A GAN that tunes compact-x4 for texture, sized for a CPU.

    python run.py --config configs/gan.py
    python run.py --config configs/gan.py --config.data.train=folder:PHOTOGRAPHS

The generator begins as a model trained for PSNR, as SRGAN's and ESRGAN's do. The discriminator sees
patches of 34 pixels, so it judges texture rather than objects, and its features stand in for those
of VGG19, which need a file of weights: with one, set loss.perceptual.weight=1 and
loss.feature_matching=0. A larger adversarial weight gives more texture, and more that is not there;
`isr upscale --strength` turns it down afterwards.

Source: Isola et al. 2017 (pix2pix), section 3.2.2 (the discriminator); Wang et al. 2018
(pix2pixHD), section 3.2 (feature matching).
"""

from ml_collections import ConfigDict

from configs import compact
from isr_jax.models.discriminators import DISCRIMINATORS


def get_config() -> ConfigDict:
    """Return the config of compact-x4 with an adversarial part; a crop has 24x24 LR pixels."""
    config = compact.get_config()
    config.train.init_from = "compact-x4"
    config.data.crop = 96
    config.discriminator = ConfigDict({**DISCRIMINATORS["patch"], "width": 32, "layers": 2})
    config.loss.adversarial_weight = 0.03
    config.loss.feature_matching = 0.05
    for optimizer in (config.g_optimizer, config.d_optimizer):
        optimizer.learning_rate = 3e-4
        optimizer.schedule = "constant"
        optimizer.warmup_steps = 0
    config.train.steps = 4000
    config.train.validate_every = config.train.checkpoint_every = 500
    config.train.keep_best = "latest"  # the one of the best PSNR is the first
    return config
