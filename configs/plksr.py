"""PLKSR at 4x; `:tiny`, and `:real` and `:dysample` of RealPLKSR.

    python run.py --config configs/plksr.py

Source: the options of PLKSR's code for 2x, taken here for 4x: L1, crops of 96 LR px, batches of 64,
Adam at 2e-4 (b1 = 0.9, b2 = 0.99), halved at 100, 200, 300, 400 and 425 thousand of 4.5e5 updates.
The authors start 4x from 2x, for 5e4 updates at 1e-4.
"""

from ml_collections import ConfigDict

from isr_jax import recipes


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values of a variant; `:smoke` for a minute on a CPU."""
    published = {"tiny": "plksr_tiny", "real": "realplksr", "dysample": "realplksr_dysample"}
    config = recipes.psnr_recipe(
        published.get(variant, "plksr"),
        crop=384,
        batch=64,
        learning_rate=2e-4,
        milestones=(100_000, 200_000, 300_000, 400_000, 425_000),
        steps=450_000,
        b2=0.99,
    )
    return recipes.variant_of(config, variant, of=tuple(published))
