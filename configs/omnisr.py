"""OmniSR at 4x.

    python run.py --config configs/omnisr.py

Source: Wang et al. 2023 (OmniSR), section 4.1, and the options of its code: L1, crops of 64 LR px,
batches of 64, 5e-4 (b1 = 0.9, b2 = 0.999), halved every 2e5 of 8e5 updates. The code counts 1000
epochs of 800 updates, and has a weight decay of 1e-4, for which there is no field here.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:smoke` for a minute on a CPU."""
    config = recipes.psnr_recipe(
        "omnisr",
        crop=256,
        batch=64,
        learning_rate=5e-4,
        milestones=(200_000, 400_000, 600_000),
        steps=800_000,
        b2=0.999,
    )
    return recipes.variant_of(config, variant)
