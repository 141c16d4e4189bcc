"""A GAN whose content loss is SSIM, small enough for a CPU.

    python run.py --config configs/ssim.py

On the four held-out photographs that come with it, seed 0: PSNR-Y 28.66 dB
(+0.85 to bicubic), SSIM-Y 0.7966 (+0.0406), MS-SSIM 0.9615 (+0.0149).
Set5 at 4x: 29.63 dB, SSIM 0.8543.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base.small` with SSIM."""
    config = base.small()
    config.loss.content.ssim = 1.0
    config.loss.adversarial_weight = 1e-3
    return config
