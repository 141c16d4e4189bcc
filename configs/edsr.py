"""EDSR at 4x; `:baseline` is the small one.

    python run.py --config configs/edsr.py

Source: Lim et al. 2017 (EDSR), sections 3.3 and 4.2: L1, crops of 48 LR px, batches of 16, Adam at
1e-4 (b1 = 0.9, b2 = 0.999), halved every 2e5 updates; 3e5 updates as in the authors' PyTorch code.
The paper starts the network for 4x from the one for 2x; here it starts from scratch.
"""

from ml_collections import ConfigDict

from isr_jax import recipes
from isr_jax.models import GENERATORS


def get_config(variant: str = "") -> ConfigDict:
    """Return the published values; `:baseline`, and `:smoke` for a minute on a CPU."""
    config = recipes.div2k()
    published = "edsr_baseline" if variant == "baseline" else "edsr"
    config.generator = ConfigDict(GENERATORS[published])
    config.data.crop = 192
    config.loss.content.mse = 0.0
    config.loss.content.l1 = 1.0
    config.loss.adversarial_weight = 0.0
    config.g_optimizer.schedule = "milestones"
    config.g_optimizer.milestones = (200_000,)
    config.train.steps = 300_000
    return recipes.variant_of(config, variant, of=("baseline",))
