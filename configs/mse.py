"""A GAN whose content loss is MSE, sized for a CPU.

    python run.py --config configs/mse.py

On the four validation photos of `samples`, seed 0: PSNR-Y 29.00 dB
(+1.19 over bicubic), SSIM-Y 0.7873 (+0.0313), MS-SSIM 0.9617 (+0.0151).
Set5 at 4x: 30.00 dB, SSIM 0.8427.
"""

from ml_collections import ConfigDict

from isr_jax.config import small


def get_config() -> ConfigDict:
    """Return `small` with MSE."""
    config = small()
    config.loss.content.mse = 1.0
    config.loss.adversarial_weight = 1e-5
    return config
