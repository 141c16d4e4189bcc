"""A GAN whose content loss is L1, sized for a CPU.

    python run.py --config configs/l1.py

On the four validation photos of `samples`, seed 0: PSNR-Y 29.10 dB
(+1.28 over bicubic), SSIM-Y 0.7951 (+0.0391), MS-SSIM 0.9630 (+0.0164).
Set5 at 4x: 30.27 dB, SSIM 0.8579.
"""

from ml_collections import ConfigDict

from isr_jax.config import small


def get_config() -> ConfigDict:
    """Return `small` with L1."""
    config = small()
    config.loss.content.l1 = 1.0
    config.loss.adversarial_weight = 1e-4
    return config
