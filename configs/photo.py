r"""The pretrained models for photographs from the web and phones: blurred, noisy, compressed ones.

    python run.py --config configs/photo.py \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS
    isr export runs/photo configs/initial/photo-x4.safetensors --dtype float16 --overwrite
    python run.py --config configs/photo.py:gan \
        --config.data.train=list:configs/photographs/train.txt:PHOTOGRAPHS

The first is standard-x4, trained on by L1 to undo degradations of a second order; the second begins
as its result and adds configs/gan.py's adversarial part. :x2 and :x2-gan are the same for 2x, and
:x2 begins as the result for 4x. The shipped models are the means of both stages, made by `isr
interpolate --alpha 0.5`, which paint less.

Source: Wang et al. 2021 (Real-ESRGAN), section 3; degrade/parameters.py says what is milder here.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import gan, standard
from isr_jax import errors

VARIANTS = {"": 4, "gan": 4, "x2": 2, "x2-gan": 2}
INITIAL = Path(__file__).parent / "initial"


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of standard with degradations; `gan` adds the adversarial part."""
    if variant not in VARIANTS:
        raise errors.unknown("variant", variant, [name for name in VARIANTS if name])
    scale = VARIANTS[variant]
    config = standard.get_config("x2" if scale == 2 else "")
    config.data.degradation = "photo"
    config.data.margin = 32
    config.train.init_from = str(INITIAL / "photo-x4.safetensors") if variant else "standard-x4"
    config.g_optimizer.learning_rate = 1e-3
    config.train.steps = 2500 if scale == 2 else 6000
    if variant.endswith("gan"):
        config.train.init_from = str(INITIAL / f"photo-x{scale}.safetensors")
        config = gan.with_discriminator(config)
        # With more, or the hinge loss, dots and grain were painted over what noise and JPEG had
        # destroyed, and around edges.
        config.loss.adversarial = "vanilla"
        config.loss.adversarial_weight = 0.01
        config.train.steps = 2000
    return config
