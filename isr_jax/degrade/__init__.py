"""Degradations: HR -> LR inside jit, keyed and batched.

`make_degradation(name, scale=...)` returns a function (key, hr) -> lr. `parameters` draws what is
random for every example; `process` applies it with `kernels`, `filters`, `noise` and `jpeg`.

Every example of a batch draws its own kernels, scale factors, methods, noise and JPEG qualities, so
no pool of earlier pairs is needed to vary the degradations within a batch.

Images are float32 [n h w 3], or gray [n h w 1], in [0, 1].
"""

from isr_jax.degrade.filters import sharpen
from isr_jax.degrade.parameters import REAL_ESRGAN, PassSettings
from isr_jax.degrade.process import DEGRADATIONS, make_degradation

__all__ = ["DEGRADATIONS", "REAL_ESRGAN", "PassSettings", "make_degradation", "sharpen"]
