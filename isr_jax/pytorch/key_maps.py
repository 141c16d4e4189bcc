"""The key maps of all networks, by name."""

from isr_jax.pytorch import (
    dat,
    hat,
    omnisr,
    plksr,
    rcan,
    resnet,
    rrdbnet,
    span,
    srvggnet,
    swinir,
    unet,
    vgg,
)
from isr_jax.pytorch.key_map import KeyMap

# The first key map of an architecture is the default for export. Detection takes the first whose
# required keys are all present, so the order matters.
KEY_MAPS: dict[str, KeyMap] = {
    **rcan.KEY_MAPS,  # before EDSR, whose keys it has too
    **rrdbnet.KEY_MAPS,
    **resnet.KEY_MAPS,
    **srvggnet.KEY_MAPS,
    **vgg.KEY_MAPS,
    **unet.KEY_MAPS,
    **hat.KEY_MAPS,  # before SwinIR, whose keys it has too
    **swinir.KEY_MAPS,
    **span.KEY_MAPS,
    **plksr.KEY_MAPS,
    **dat.KEY_MAPS,
    **omnisr.KEY_MAPS,
}
