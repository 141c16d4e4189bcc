"""State: everything that training changes."""

from typing import Any, NamedTuple

from jaxtyping import Array, Int


class State(NamedTuple):
    """Everything that training changes, as one pytree of arrays.

    Attributes:
        step: int32, the number of updates done.
        g_params, g_stats: the generator's parameters and batch norm's running statistics ({}).
        ema: exponential moving average of g_params, or of what schedule_free_adamw makes of them.
        g_opt: the generator's optax state.
        d_params, d_stats: the discriminator's parameters and spectral norm's vectors ({}).
        d_opt: the discriminator's optax state.
    """

    step: Int[Array, ""]
    g_params: Any
    g_stats: Any
    ema: Any
    g_opt: Any
    d_params: Any
    d_stats: Any
    d_opt: Any
