"""DAT at 4x; `:2`, `:small` and `:light`.

    python run.py --config configs/dat.py

Source: Chen et al. 2023 (DAT), section 4.1, and the options of its code: L1, crops of 64 LR px,
batches of 32, Adam at 2e-4 (b1 = 0.9, b2 = 0.99), halved at 250, 400, 450 and 475 thousand of 5e5
updates. The authors start 4x from 2x; here it starts from scratch, without stochastic depth.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values of a variant; `:smoke` for a minute on a CPU."""
    config = recipes.psnr_recipe(
        f"dat_{variant}" if variant in ("2", "small", "light") else "dat",
        crop=256,
        batch=32,
        learning_rate=2e-4,
        milestones=(250_000, 400_000, 450_000, 475_000),
        steps=500_000,
        b2=0.99,
    )
    config = recipes.variant_of(config, variant, of=("2", "small", "light"))
    if variant == "smoke":
        config.generator.width = 32  # its smallest
    return config
