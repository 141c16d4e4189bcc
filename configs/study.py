"""The loss study: by which loss does the generator learn most? Eight candidates.

Six content losses, a mixture, and a GAN.

    python run.py --config configs/study.py
    python run.py --config configs/study.py:quick     # minutes on two CPU cores

Every candidate starts from the same parameters and sees the same crops in the same order; only the
loss differs, and the learning rate tuned for it. The report is runs/study/report.html.

Source of the mixture: Zhao et al. 2017, "Loss Functions for Image Restoration with Neural
Networks", section III-E: 0.84 MS-SSIM + 0.16 L1.
"""

from ml_collections import ConfigDict

from isr_jax import errors
from isr_jax.config import candidate, small, with_study


def get_config(variant: str = "") -> ConfigDict:
    """Return the study, or its quick variant."""
    if variant not in ("", "quick"):
        raise errors.unknown("variant", variant, ["quick"])
    config = small()
    config.train.steps = 2400
    config.train.validate_every = 400
    config.train.checkpoint_every = 400
    losses = {
        "mse": candidate(loss={"content": {"mse": 1.0}}),
        "psnr": candidate(loss={"content": {"psnr": 1.0}}),
        "l1": candidate(loss={"content": {"l1": 1.0}}),
        "charbonnier": candidate(loss={"content": {"charbonnier": 1.0}}),
        "ssim": candidate(loss={"content": {"ssim": 1.0}}),
        "ms_ssim": candidate(loss={"content": {"ms_ssim": 1.0}}),
        "ms_ssim_l1": candidate(loss={"content": {"ms_ssim": 0.84, "l1": 0.16}}),
        "l1_adversarial": candidate(loss={"content": {"l1": 1.0}, "adversarial_weight": 1e-3}),
    }
    if variant != "quick":
        return with_study(config, losses)
    quick = ("mse", "psnr", "l1", "ssim", "ms_ssim")
    config = with_study(config, {name: losses[name] for name in quick})
    config.data.crop = 96  # MS-SSIM has four of its five scales
    config.train.steps = 1000
    config.train.validate_every = 250
    config.train.checkpoint_every = 250
    config.study.seeds = (0, 1)
    config.study.learning_rates = ()
    return config
