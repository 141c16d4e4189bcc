"""Training as pure functions made from a config: the update, its batches, n updates at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from isr_jax import settings
from isr_jax.data import pool
from isr_jax.degrade import make_degradation, sharpen
from isr_jax.images import to_float
from isr_jax.models import generator
from isr_jax.perceptual import load_vgg19, make_perceptual_loss
from isr_jax.update import Batch, Metrics, State, init_state, make_update
from isr_jax.upscale import make_enlarge

AXIS = "devices"


def on_all(devices: Sequence[jax.Device], *axes: str) -> NamedSharding:
    """The sharding of an array copied to all devices, or split over them along its first axis."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(*axes))


Update = Callable[[State, Batch, Key[Array, ""], Any], tuple[State, Metrics]]


class Program(NamedTuple):
    """The functions of a config, without data.

    Attributes:
        init: key -> State.
        frozen: () -> what the updates need and do not train: VGG19's parameters, or ().
        pretrain: (state, batch, key, frozen) -> (state, metrics), without the adversarial part.
        update: the whole update.
        enlarge: (params, stats, uint8 image) -> uint8 image.
    """

    init: Callable[[Key[Array, ""]], State]
    frozen: Callable[[], Any]
    pretrain: Update
    update: Update
    enlarge: Callable[[Any, Any, Any], Array]


def make_program(config: ConfigDict) -> Program:
    """The networks, optimizers and update of a config."""
    axis_name = AXIS if config.train.parallel == "pmap" else None
    g = generator(config.generator.to_dict(), scale=config.scale, axis_name=axis_name)
    d = settings.make_discriminator(config, axis_name=axis_name)
    g_optimizer = settings.make_optimizer(config.g_optimizer, steps=config.train.steps)
    # The discriminator's updates begin with the adversarial part.
    d_steps = max(1, config.train.steps - config.loss.adversarial_from)
    d_optimizer = settings.make_optimizer(config.d_optimizer, steps=d_steps)
    vgg19 = config.loss.perceptual
    layers = dict(zip(vgg19.layers, vgg19.layer_weights, strict=True)) if vgg19.weight else {}

    def init(key: Key[Array, ""]) -> State:
        return init_state(
            key, generator=g, discriminator=d, g_optimizer=g_optimizer, d_optimizer=d_optimizer
        )

    def frozen() -> Any:
        return load_vgg19(layers, path=vgg19.path or None) if layers else ()

    update = partial(
        make_update,
        generator=g,
        discriminator=d,
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        content=config.loss.content.to_dict(),
        perceptual=make_perceptual_loss(layers, criterion=vgg19.criterion) if layers else None,
        perceptual_weight=vgg19.weight,
        adversarial=config.loss.adversarial,
        discriminator_crop=config.discriminator.crop,
        ema_decay=config.train.ema_decay,
        axis_name=axis_name,
    )
    return Program(
        init=init,
        frozen=frozen,
        pretrain=update(adversarial_weight=0.0),
        update=update(
            adversarial_weight=config.loss.adversarial_weight,
            feature_matching=config.loss.feature_matching,
        ),
        enlarge=make_enlarge(g),
    )


def make_prepare(
    config: ConfigDict,
) -> Callable[[Key[Array, ""], Batch, int | Int[Array, ""]], Batch]:
    """(key, batch, first) -> batch: the degradation of HR crops, and sharpened targets.

    With data.degradation=bicubic LR crops stay as they were cut, from the bicubic of the whole
    image. Otherwise they are made of the HR crop and a margin around it, which is then cut away.
    Example i depends on key, first + i and its own image alone.
    """
    options, scale = config.data, config.scale
    degrade = make_degradation(options.degradation, scale=scale)

    def prepare(key: Key[Array, ""], batch: Batch, first: int | Int[Array, ""]) -> Batch:
        lr, hr = batch["lr"], batch["hr"]
        sharp = sharpen(hr) if options.sharpen else hr
        if options.degradation != "bicubic":
            lr = degrade(key, sharp, first=first)
        cut = {"lr": (lr, options.margin // scale), "hr": (hr, options.margin)}
        if options.sharpen:
            cut["target"] = (sharp, options.margin)
        return {
            name: x[:, edge : x.shape[1] - edge, edge : x.shape[2] - edge]
            for name, (x, edge) in cut.items()
        }

    return prepare


# The metrics of n updates.
Series = dict[str, Float[Array, " n"]]
Dispatch = Callable[[State, Any, Any, Key[Array, ""], int], tuple[State, Series]]


def make_dispatch(config: ConfigDict, update: Update, devices: Sequence[jax.Device]) -> Dispatch:
    """(state, frozen, data, key, n) -> (state, metrics [n]): n updates in one compiled program.

    `data` is the pool, from which each update draws its batch inside the program, or n batches
    {"lr", "hr"} of uint8 [n batch h w 3] from the stream. The state is donated. What an update does
    depends on (state, key, step) alone, and its batch not on the number of devices.
    """
    options, batch = config.data, config.data.batch
    streaming, pmapped = options.loader == "stream", config.train.parallel == "pmap"
    share = batch // len(devices) if pmapped else batch
    prepare = make_prepare(config)

    def steps(
        state: State, frozen: Any, data: Any, key: Key[Array, ""], first: Array, n: int
    ) -> tuple[State, Series]:
        def one(state: State, i: Array) -> tuple[State, Metrics]:
            keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
            sample_key, update_key, degrade_key = keys
            drawn: Mapping[str, Array]
            if streaming:
                drawn = {name: to_float(batches[i]) for name, batches in data.items()}
            else:
                drawn = pool.sample(
                    sample_key,
                    data,
                    batch=share,
                    crop=settings.sampled_crop(config),
                    scale=config.scale,
                    first=first,
                )
            if not pmapped:
                drawn = lax.with_sharding_constraint(drawn, on_all(devices, AXIS))
            drawn = prepare(degrade_key, drawn, first)
            return update(state, drawn, update_key, frozen)

        if n == 1:  # XLA's convolutions on a CPU are ten times slower inside a loop (benchmarks/).
            state, values = one(state, jnp.zeros((), jnp.int32))
            return state, jax.tree.map(lambda x: x[None], values)
        return lax.scan(one, state, jnp.arange(n))

    @cache
    def compiled(n: int) -> Callable:
        def run(
            state: State, frozen: Any, data: Any, key: Key[Array, ""], first: Array
        ) -> tuple[State, Series]:
            return steps(state, frozen, data, key, first, n)

        if not pmapped:
            return jax.jit(run, donate_argnums=0, out_shardings=on_all(devices))
        axes = (None, None, 1 if streaming else None, None, 0)
        return jax.pmap(
            run, AXIS, in_axes=axes, out_axes=None, donate_argnums=0, devices=list(devices)
        )

    def dispatch(
        state: State, frozen: Any, data: Any, key: Key[Array, ""], n: int
    ) -> tuple[State, Series]:
        if not pmapped:
            return compiled(n)(state, frozen, data, key, jnp.zeros((), jnp.int32))
        if streaming:
            data = jax.tree.map(lambda x: x.reshape(n, len(devices), share, *x.shape[2:]), data)
        first = jnp.arange(len(devices), dtype=jnp.int32) * share
        return compiled(n)(state, frozen, data, key, first)

    return dispatch
