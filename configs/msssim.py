"""GAN with MS-SSIM as its content loss, small enough for a CPU."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """A compact residual GAN, 4x."""
    config = base.get_config()
    config.data.crop = 176
    config.data.batch = 4
    config.generator.width = 32
    config.generator.blocks = 5
    config.generator.kernel = 3
    config.generator.activation = "relu"
    config.generator.batch_norm = False
    config.generator.head_activation = False
    config.generator.tail = "direct"
    config.generator.tail_activation = False
    config.generator.global_skip = "bicubic"
    config.discriminator.crop = 64
    config.discriminator.widths = (16, 32, 64)
    config.discriminator.dense = 64
    config.discriminator.batch_norm = False
    config.loss.content.mse = 0.0
    config.loss.content.ms_ssim = 1.0
    config.g_optimizer.learning_rate = 1e-3
    config.g_optimizer.schedule = "cosine"
    config.d_optimizer.learning_rate = 1e-4
    config.train.steps = 600
    config.train.steps_per_dispatch = 1
    config.train.log_every = 10
    config.train.validate_every = 100
    config.train.checkpoint_every = 100
    return config
