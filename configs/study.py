"""The loss study: by which loss does the generator learn most? Fourteen candidates.

Six content losses and a mixture, each with and without an adversarial part.

    python run.py --config configs/study.py
    python run.py --config configs/study.py:quick     # minutes on two CPU cores

Every candidate starts from the same parameters and sees the same crops in the same order; only the
loss differs, and the learning rate and the adversarial weight tuned for it. The generator is that
of configs/msssim.py. The report is runs/study/report.html.

Source of the mixture: Zhao et al. 2017, "Loss Functions for Image Restoration with Neural
Networks", section III-E: 0.84 MS-SSIM + 0.16 L1.
"""

from ml_collections import ConfigDict

from isr_jax import errors
from isr_jax.config import candidate, small, with_study

# The weights of each content loss, and the adversarial weight with which tuning begins: there, the
# gradient of the adversarial part by the pixels is about twice the content loss's.
LOSSES = {
    "mse": ({"mse": 1.0}, 1.35e-3),
    "psnr": ({"psnr": 1.0}, 1.35),
    "l1": ({"l1": 1.0}, 9e-3),
    "charbonnier": ({"charbonnier": 1.0}, 9e-3),
    "ssim": ({"ssim": 1.0}, 0.18),
    "ms_ssim": ({"ms_ssim": 1.0}, 0.045),
    "ms_ssim_l1": ({"ms_ssim": 0.84, "l1": 0.16}, 0.045),
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the study, or its quick variant."""
    if variant not in ("", "quick"):
        raise errors.unknown("variant", variant, ["quick"])
    losses = {name: candidate(loss={"content": content}) for name, (content, _) in LOSSES.items()}
    losses |= {
        f"{name}_adversarial": candidate(loss={"content": content, "adversarial_weight": weight})
        for name, (content, weight) in LOSSES.items()
    }
    config = small()
    config.train.steps = 600
    config.train.validate_every = 150
    config.train.checkpoint_every = 50
    config.g_optimizer.warmup_steps = 80
    config.d_optimizer.warmup_steps = 80
    if variant != "quick":
        return with_study(config, losses)
    quick = ("mse", "psnr", "l1", "ssim", "ms_ssim")
    config = with_study(config, {name: losses[name] for name in quick})
    config.data.crop = 96  # MS-SSIM has four of its five scales
    config.train.steps = 1000
    config.train.validate_every = 250
    config.train.checkpoint_every = 250
    config.g_optimizer.warmup_steps = 200
    config.study.seeds = (0, 1)
    config.study.learning_rates = ()
    config.study.adversarial_factors = ()
    return config
