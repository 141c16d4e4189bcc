"""RCAN at 4x.

    python run.py --config configs/rcan.py

Source: Zhang et al. 2018 (RCAN), section 4.1: L1, crops of 48 LR px, batches of 16, Adam at 1e-4
(b1 = 0.9, b2 = 0.999), halved every 2e5 updates; 1e6 updates, which the authors' code counts as
1000 epochs. The paper starts 4x from 2x; here it starts from scratch.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:smoke` for a minute on a CPU."""
    config = recipes.psnr_recipe(
        "rcan",
        crop=192,
        batch=16,
        learning_rate=1e-4,
        milestones=(200_000, 400_000, 600_000, 800_000),
        steps=1_000_000,
        b2=0.999,
    )
    return recipes.variant_of(config, variant)
