"""HAT at 4x; `:small` and `:large`.

    python run.py --config configs/hat.py

Source: Chen et al. 2023 (HAT), section 4.1, and the options of its code: L1, crops of 64 LR px,
batches of 32, Adam at 2e-4 (b1 = 0.9, b2 = 0.99), halved at 250, 400, 450 and 475 thousand of 5e5
updates. The paper starts 4x from 2x, and the large one from ImageNet; here they start from scratch,
without stochastic depth.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values of a variant; `:smoke` for a minute on a CPU."""
    config = recipes.psnr_recipe(
        f"hat_{variant}" if variant in ("small", "large") else "hat",
        crop=256,
        batch=32,
        learning_rate=2e-4,
        milestones=(250_000, 400_000, 450_000, 475_000),
        steps=500_000,
        b2=0.99,
    )
    return recipes.variant_of(config, variant, of=("small", "large"))
