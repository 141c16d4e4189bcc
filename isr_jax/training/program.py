"""Training as pure functions made from a config: the update, its batches, n updates at once."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Integer, Key
from ml_collections import ConfigDict

from isr_jax.config import sampled_crop
from isr_jax.data import pool
from isr_jax.degrade import make_degradation, sharpen
from isr_jax.images import to_float
from isr_jax.models import discriminators, generator
from isr_jax.models.generators import make_enlarge
from isr_jax.perceptual.vgg_loss import load_vgg19, make_perceptual_loss
from isr_jax.state import State
from isr_jax.training import optimizers
from isr_jax.training.update import Batch, Metrics, init_state, make_update

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


def make_program(
    config: ConfigDict, *, g_learning_rate: float | Float[Array, ""] | None = None
) -> Program:
    """The networks, optimizers and update of a config.

    `g_learning_rate` stands for the config's own; it may be traced, so that one compiled program
    serves several.
    """
    axis_name = AXIS if config.train.parallel == "pmap" else None
    g = generator(config.generator.to_dict(), scale=config.scale, axis_name=axis_name)
    d = discriminators.make_discriminator(config, axis_name=axis_name)
    g_optimizer = optimizers.make_optimizer(
        config.g_optimizer, steps=config.train.steps, learning_rate=g_learning_rate
    )
    # The discriminator's updates begin with the adversarial part.
    d_steps = max(1, config.train.steps - config.loss.adversarial_from)
    d_optimizer = optimizers.make_optimizer(config.d_optimizer, steps=d_steps)
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


# The metrics of n updates; of several runs at once, those of each.
Series = dict[str, Float[Array, "*runs n"]]
Dispatch = Callable[[State, Any, Any, Key[Array, ""], int], tuple[State, Series]]
# (key, data, i, first) -> the batch of update i of a dispatch; first is its first example's number
Draw = Callable[[Key[Array, ""], Any, Int[Array, ""], int | Int[Array, ""]], Batch]


def run_keys(seed: int | Integer[Array, ""]) -> Key[Array, "2"]:
    """The keys of a run: of its initial state, and of all that its updates draw."""
    return jax.random.split(jax.random.key(seed))


def run_of(states: Any, r: int) -> Any:
    """Run r of a tree whose arrays are [runs ...]."""
    return jax.tree.map(lambda x: x[r], states)


def make_draw(config: ConfigDict, *, batch: int) -> Draw:
    """Crops from the pool: what each update draws depends on its key alone."""

    def draw(key: Key[Array, ""], data: pool.Pool, i: Array, first: int | Array) -> Batch:
        crop = sampled_crop(config)
        return pool.sample(key, data, batch=batch, crop=crop, scale=config.scale, first=first)

    return draw


def make_steps(config: ConfigDict, update: Update, draw: Draw) -> Callable:
    """(state, frozen, data, key, first, n) -> (state, metrics [n]): n updates, to be compiled."""
    prepare = make_prepare(config)

    def steps(
        state: State, frozen: Any, data: Any, key: Key[Array, ""], first: int | Array, n: int
    ) -> tuple[State, Series]:
        def one(state: State, i: Array) -> tuple[State, Metrics]:
            keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
            sample_key, update_key, degrade_key = keys
            batch = prepare(degrade_key, draw(sample_key, data, i, first), first)
            return update(state, batch, update_key, frozen)

        if n == 1:  # XLA's convolutions on a CPU are ten times slower inside a loop (benchmarks/).
            state, values = one(state, jnp.zeros((), jnp.int32))
            return state, jax.tree.map(lambda x: x[None], values)
        return lax.scan(one, state, jnp.arange(n))

    return steps


def make_dispatch(config: ConfigDict, update: Update, devices: Sequence[jax.Device]) -> Dispatch:
    """(state, frozen, data, key, n) -> (state, metrics [n]): n updates in one compiled program.

    `data` is the pool, from which each update draws its batch inside the program, or n batches
    {"lr", "hr"} of uint8 [n batch h w 3] from the stream. The state is donated. What an update does
    depends on (state, key, step) alone, and its batch not on the number of devices.
    """
    streaming, pmapped = config.data.loader == "stream", config.train.parallel == "pmap"
    share = config.data.batch // len(devices) if pmapped else config.data.batch
    from_pool = make_draw(config, batch=share)

    def draw(key: Key[Array, ""], data: Any, i: Array, first: int | Array) -> Batch:
        if streaming:
            drawn: Batch = {name: to_float(batches[i]) for name, batches in data.items()}
        else:
            drawn = from_pool(key, data, i, first)
        return drawn if pmapped else lax.with_sharding_constraint(drawn, on_all(devices, AXIS))

    steps = make_steps(config, update, draw)

    @cache
    def compiled(n: int) -> Callable:
        run = partial(steps, n=n)
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


# (states, frozen, pool, keys, learning rates, n) -> (states, metrics [runs n])
RunsDispatch = Callable[
    [State, Any, pool.Pool, Key[Array, " runs"], Float[Array, " runs"], int], tuple[State, Series]
]


def make_runs_dispatch(
    config: ConfigDict,
    devices: Sequence[jax.Device],
    *,
    pretrain: bool = False,
    together: Literal["vmap", "unroll"],
) -> RunsDispatch:
    """Build n updates of several runs of one config, all in one compiled program.

    Run r has state [r], keys[r] and the generator's learning rate rates[r], and does what
    `make_dispatch` would do for it alone, with a pool that all share. The states are donated. The
    runs are split over the devices where their number divides, and on each device either batched
    (vmap) or written one after another (unroll): XLA's convolutions on a CPU are several times
    slower when each example of a batch has a kernel of its own (benchmarks/seeds.py).

    Args:
        config: of every run.
        devices: those to split the runs over.
        pretrain: do the updates before the adversarial part.
        together: how the runs of one device are put into one program.
    """
    draw = make_draw(config, batch=config.data.batch)

    def run(
        state: State, frozen: Any, data: pool.Pool, key: Array, rate: Array, n: int
    ) -> tuple[State, Series]:
        program = make_program(config, g_learning_rate=rate)
        update = program.pretrain if pretrain else program.update
        return make_steps(config, update, draw)(state, frozen, data, key, 0, n)

    def local(
        states: State, frozen: Any, data: pool.Pool, keys: Array, rates: Array, n: int
    ) -> tuple[State, Series]:
        if together == "vmap":
            axes = (0, None, None, 0, 0, None)
            return jax.vmap(run, in_axes=axes)(states, frozen, data, keys, rates, n)
        each = [
            run(run_of(states, r), frozen, data, keys[r], rates[r], n) for r in range(keys.shape[0])
        ]
        return jax.tree.map(lambda *runs: jnp.stack(runs), *each)

    @cache
    def compiled(n: int) -> Callable:
        mesh = Mesh(np.array(devices), (AXIS,))
        split, whole = PartitionSpec(AXIS), PartitionSpec()
        sharded = jax.shard_map(
            partial(local, n=n),
            mesh=mesh,
            in_specs=(split, whole, whole, split, split),
            out_specs=split,
            check_vma=False,  # every run is of one device: nothing is summed over them
        )
        return jax.jit(sharded, donate_argnums=0)

    def dispatch(
        states: State, frozen: Any, data: pool.Pool, keys: Array, rates: Array, n: int
    ) -> tuple[State, Series]:
        return compiled(n)(states, frozen, data, keys, rates)

    return dispatch
