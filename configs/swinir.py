"""SwinIR at 4x; `:light` is the lightweight one.

    python run.py --config configs/swinir.py

Source: Liang et al. 2021 (SwinIR), section 4.1, and its training code: L1, crops of 48 LR px (64
for light), batches of 32, Adam at 2e-4 (b1 = 0.9, b2 = 0.999), halved at 250, 400, 450 and 475
thousand of 5e5 updates. The paper starts 4x from 2x; here it starts from scratch, without
stochastic depth.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:light`, and `:smoke` for a minute on a CPU."""
    config = recipes.psnr_recipe(
        "swinir_light" if variant == "light" else "swinir",
        crop=256 if variant == "light" else 192,
        batch=32,
        learning_rate=2e-4,
        milestones=(250_000, 400_000, 450_000, 475_000),
        steps=500_000,
        b2=0.999,
    )
    return recipes.variant_of(config, variant, of=("light",))
