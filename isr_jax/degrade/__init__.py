"""HR -> LR inside jit, keyed, batched and on the device.

`make_degradation(name, scale=...)` gives (key, hr) -> lr. `process` composes what `kernels`,
`filters`, `noise` and `jpeg` do; `parameters` says what is random; `pair_pool` mixes batches.

Every example draws its own kernels, factors, methods, noise and qualities, so a batch is as diverse
as its size. (Real-ESRGAN's program draws factor, method and kind of noise once per batch, and mixes
batches by the training pair pool instead; here the pool is a choice.)

Images are float32 [n h w 3] in [0, 1]; keys come first.
"""

from isr_jax.degrade.filters import sharpen
from isr_jax.degrade.pair_pool import PairPool, init_pair_pool, push_and_draw
from isr_jax.degrade.parameters import REAL_ESRGAN, Parameters, PassSettings, Settings, draw
from isr_jax.degrade.process import DEGRADATIONS, apply, bicubic, make_degradation, second_order

__all__ = [
    "DEGRADATIONS",
    "REAL_ESRGAN",
    "PairPool",
    "Parameters",
    "PassSettings",
    "Settings",
    "apply",
    "bicubic",
    "draw",
    "init_pair_pool",
    "make_degradation",
    "push_and_draw",
    "second_order",
    "sharpen",
]
