"""A GAN whose content loss is negative PSNR, sized for a CPU.

    python run.py --config configs/psnr.py

On the four validation photos of `samples`, seed 0: PSNR-Y 29.03 dB
(+1.22 over bicubic), SSIM-Y 0.7911 (+0.0351), MS-SSIM 0.9623 (+0.0157).
Set5 at 4x: 30.06 dB, SSIM 0.8469.
"""

from ml_collections import ConfigDict

from isr_jax.config import small


def get_config() -> ConfigDict:
    """Return `small` with negative PSNR."""
    config = small()
    config.loss.content.psnr = 1.0
    config.loss.adversarial_weight = 1e-2
    return config
