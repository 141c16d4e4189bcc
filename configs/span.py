"""SPAN at 4x, the winner of NTIRE 2024's challenge of efficient super-resolution.

    python run.py --config configs/span.py

Network: Wan et al. 2024 (SPAN), section 3. Recipe: this project's own, of the usual kind: L1, crops
of 64 LR px, batches of 64, Adam at 5e-4 (b1 = 0.9, b2 = 0.999), halved every 2e5 updates, for 1e6.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the recipe; `:smoke` for a minute on a CPU."""
    config = recipes.psnr_recipe(
        "span",
        crop=256,
        batch=64,
        learning_rate=5e-4,
        milestones=(200_000, 400_000, 600_000, 800_000),
        steps=1_000_000,
        b2=0.999,
    )
    return recipes.variant_of(config, variant)
