"""What the published recipes of configs/ share: their data, their schedule, their smoke variant."""

from typing import Any

from ml_collections import ConfigDict

from isr_jax import errors
from isr_jax.config import get_config
from isr_jax.models.generators import GENERATORS


def div2k() -> ConfigDict:
    """Return the base of the published recipes: SRGAN's sizes, on DIV2K from TFDS."""
    config = get_config()
    config.data.train = config.data.validation = "tfds:div2k/bicubic_x4"
    config.data.validation_images = 10
    return config


def psnr_recipe(
    published: str,
    *,
    crop: int,
    batch: int,
    learning_rate: float,
    milestones: tuple[int, ...],
    steps: int,
    b2: float,
) -> ConfigDict:
    """Return a recipe for a published generator at 4x: L1 alone, by Adam whose rate halves.

    Args:
        published: a key of GENERATORS.
        crop: side of the HR crops, pixels.
        batch: crops in an update.
        learning_rate: at the beginning.
        milestones: the updates at which it halves.
        steps: updates in all.
        b2: Adam's decay of squared gradients.
    """
    config = div2k()
    config.generator = ConfigDict(GENERATORS[published])
    config.data.crop = crop
    config.data.batch = batch
    config.loss.content.mse = 0.0
    config.loss.content.l1 = 1.0
    config.loss.adversarial_weight = 0.0
    config.g_optimizer.b2 = b2
    config.g_optimizer.learning_rate = learning_rate
    config.g_optimizer.schedule = "milestones"
    config.g_optimizer.milestones = milestones
    config.train.steps = steps
    return config


SMOKE: dict[str, dict[str, Any]] = {
    "generator": {
        "width": 16,
        "blocks": 2,
        "growth": 8,
        "groups": 2,
        "depths": (2,),
        "heads": (2,),
        "partial": 4,
        "compressed": 8,
        "squeezed": 4,
    },
    "discriminator": {"width": 8, "widths": (8, 16), "dense": 8},
}


def variant_of(config: ConfigDict, variant: str, *, of: tuple[str, ...] = ()) -> ConfigDict:
    """Return the recipe itself, or its smoke variant: the same parts, tiny, a minute on a CPU.

    The smoke variant trains on the sample photos from scratch, with feature matching in place of
    VGG19 and LPIPS, which need files. It shows that a recipe runs and learns, not what it can do.

    Args:
        config: the recipe.
        variant: "", "smoke" or one of `of`.
        of: the recipe's own variants, already applied.

    Raises:
        UserError: for an unknown variant.
    """
    if variant in ("", *of):
        return config
    if variant != "smoke":
        raise errors.unknown("variant", variant, (*of, "smoke"))
    for part, sizes in SMOKE.items():
        fields = config[part]
        fields.update({name: size for name, size in sizes.items() if name in fields})
    config.data.train = config.data.validation = "samples"
    config.data.validation_images = 1
    config.data.crop = 96
    config.data.margin = min(config.data.margin, 16)
    config.data.batch = 4
    if config.loss.perceptual.weight or config.loss.lpips or config.loss.dists:
        config.loss.perceptual.weight = config.loss.lpips = config.loss.dists = 0.0
        config.loss.feature_matching = 0.01
        config.loss.content.l1 = 1.0
    for optimizer in (config.g_optimizer, config.d_optimizer):
        optimizer.schedule = "constant"
        optimizer.learning_rate = 1e-3
        optimizer.warmup_steps = 20
    config.train.init_from = ""
    config.train.steps = 150
    config.train.steps_per_dispatch = 1
    config.train.log_every = 10
    config.train.validate_every = 150
    config.train.checkpoint_every = 150
    config.train.ema_decay = 0.95
    return config
