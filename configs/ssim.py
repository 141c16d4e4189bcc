"""A GAN whose content loss is SSIM, sized for a CPU.

    python run.py --config configs/ssim.py

On the four validation photos of `samples`, seed 0: PSNR-Y 28.84 dB
(+1.03 over bicubic), SSIM-Y 0.8008 (+0.0448), MS-SSIM 0.9625 (+0.0159).
Set5 at 4x: 29.80 dB, SSIM 0.8596.
"""

from ml_collections import ConfigDict

from isr_jax.config import small


def get_config() -> ConfigDict:
    """Return `small` with SSIM."""
    config = small()
    config.loss.content.ssim = 1.0
    config.loss.adversarial_weight = 1e-3
    return config
