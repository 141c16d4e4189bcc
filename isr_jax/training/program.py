"""Training as pure functions of a config: the update, its batches, n updates at once, the plan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Integer, Key
from ml_collections import ConfigDict

from isr_jax.config import sampled_crop
from isr_jax.data import pool
from isr_jax.data.augment import augment
from isr_jax.degrade import make_degradation, sharpen
from isr_jax.images import to_float
from isr_jax.models import discriminators
from isr_jax.models.generators import Generator, channels_of, generator_of
from isr_jax.perceptual import distances
from isr_jax.state import State
from isr_jax.training import optimizers
from isr_jax.training.update import Batch, Metrics, Update, init_state, make_update

AXIS = "devices"
# "lr" and "hr", float32 [n h w c] in [0, 1], and, where a degradation makes some LR crops, "own",
# bool [n]: whether LR is the data set's own.
Drawn = Mapping[str, Array]
Devices = Sequence[jax.Device]  # pyright: ignore[reportInvalidTypeForm] (jax hides its class)


def on_all(devices: Devices, *, axis: str | None = None, at: int = 0) -> NamedSharding:
    """Return the sharding that copies to all devices, or splits arrays over them.

    Args:
        devices: all of them.
        axis: AXIS to split.
        at: which axis of the arrays is split.
    """
    spec = PartitionSpec(*[None] * at, axis) if axis else PartitionSpec()
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), spec)


class Program(NamedTuple):
    """The functions of a config, without data.

    Attributes:
        init: key -> State.
        frozen: () -> what updates need and do not train: the parameters of the networks that the
            loss compares in, by name.
        update: (state, batch, key, frozen, *, adversarial) -> (state, metrics).
        generator: the network that is trained.
    """

    init: Callable[[Key[Array, ""]], State]
    frozen: Callable[[], Any]
    update: Update
    generator: Generator


def make_program(
    config: ConfigDict, *, g_learning_rate: float | Float[Array, ""] | None = None
) -> Program:
    """Return the networks, optimizers and update of a config as functions.

    `g_learning_rate` replaces the config's own; it may be traced, so that one compiled program
    serves several.
    """
    axis_name = AXIS if config.train.parallel == "pmap" else None
    g = generator_of(config, axis_name=axis_name)
    d = discriminators.make_discriminator(config, channels=g.channels, axis_name=axis_name)
    g_optimizer = optimizers.make_optimizer(
        config.g_optimizer, steps=config.train.steps, learning_rate=g_learning_rate
    )
    # The discriminator's updates begin with the adversarial part.
    d_steps = max(1, config.train.steps - config.loss.adversarial_from)
    d_optimizer = optimizers.make_optimizer(config.d_optimizer, steps=d_steps)

    def init(key: Key[Array, ""]) -> State:
        return init_state(
            key, generator=g, discriminator=d, g_optimizer=g_optimizer, d_optimizer=d_optimizer
        )

    update = make_update(
        config.loss,
        generator=g,
        discriminator=d,
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        discriminator_crop=config.discriminator.crop,
        ema_decay=config.train.ema_decay,
        ema_from=config.train.ema_from,
        accumulate=config.train.accumulate,
        axis_name=axis_name,
    )
    return Program(
        init=init,
        frozen=partial(distances.load_frozen, config.loss),
        update=update,
        generator=g,
    )


def make_prepare(
    config: ConfigDict,
) -> Callable[[Key[Array, ""], Drawn, int | Int[Array, ""]], Batch]:
    """Build (key, batch, first) -> batch: degradation, sharpened targets and augmentation.

    With data.degradation=bicubic LR crops stay as they were cut, from the bicubic of the whole
    image. Otherwise they are made of the HR crop and a margin around it, which is then cut away,
    except of examples whose LR crops are the data set's own.
    Example i depends on key, first + i and its own image alone, and with data.augment.mixup on its
    neighbour's.
    """
    options, scale = config.data, config.scale
    chances = options.augment.to_dict()
    degrade = make_degradation(options.degradation, scale=scale)

    def prepare(key: Key[Array, ""], batch: Drawn, first: int | Int[Array, ""]) -> Batch:
        lr, hr = batch["lr"], batch["hr"]
        sharp = sharpen(hr) if options.sharpen else hr
        if options.degradation != "bicubic":
            made = degrade(key, sharp, first=first)
            lr = jnp.where(batch["own"][:, None, None, None], lr, made) if "own" in batch else made
        cut = {"lr": (lr, options.margin // scale), "hr": (hr, options.margin)}
        if options.sharpen:
            cut["target"] = (sharp, options.margin)
        prepared = {
            name: x[:, edge : x.shape[1] - edge, edge : x.shape[2] - edge]
            for name, (x, edge) in cut.items()
        }
        if not any(chances.values()):
            return prepared
        # Degradations split the key in two, which are its folds 0 and 1.
        return augment(jax.random.fold_in(key, 2), prepared, chances=chances, first=first)

    return prepare


class Inputs(NamedTuple):
    """What updates read and leave as it is; one value, put on the devices once.

    Attributes:
        frozen: parameters of the networks that the loss compares in, by name.
        images: the pool, from which each update draws its batch inside the program, or the batches
            {"lr", "hr"} of n updates from the stream, uint8 [n batch h w c], new in each dispatch.
    """

    frozen: Any
    images: Any


class Planned(NamedTuple):
    """One dispatch of a run.

    Attributes:
        updates: how many, in one compiled program.
        adversarial: the stage: whether `loss.adversarial_from` has been reached.
        validate, save: whether to do so after it.
    """

    updates: int
    adversarial: bool
    validate: bool
    save: bool


def plan_dispatches(config: ConfigDict, *, step: int) -> Iterator[Planned]:
    """Yield the dispatches of a run from `step` on.

    They end at the same steps whether or not the run was killed in between, so that the same
    programs run on the same states.
    """
    options, joins = config.train, config.loss.adversarial_from
    everies = (options.steps_per_dispatch, options.validate_every, options.checkpoint_every)
    while step < options.steps:
        end = min(
            *((step // every + 1) * every for every in everies),
            *(stage for stage in (joins, options.steps) if stage > step),
        )
        last = end == options.steps
        yield Planned(
            updates=end - step,
            adversarial=step >= joins,
            validate=last or end % options.validate_every == 0,
            save=last or end % options.checkpoint_every == 0,
        )
        step = end


# The metrics of n updates; of several runs at once, those of each.
Series = dict[str, Float[Array, "*runs n"]]
# (key, images, i, first) -> the batch of update i of a dispatch; first numbers its first example
Draw = Callable[[Key[Array, ""], Any, Int[Array, ""], int | Int[Array, ""]], Drawn]


def run_keys(seed: int | Integer[Array, ""]) -> Key[Array, "2"]:
    """Return the keys of a run: of its initial state, and of all that its updates draw."""
    return jax.random.split(jax.random.key(seed))


def run_of(states: Any, r: int) -> Any:
    """Return run r of a tree whose arrays are [runs ...]."""
    return jax.tree.map(lambda x: x[r], states)


def make_draw(config: ConfigDict, *, batch: int, devices: Devices = ()) -> Draw:
    """Build the drawing of crops from the pool: what an update draws depends on its key alone.

    Args:
        config: of the run.
        batch: number of crops.
        devices: those that each have a part of a sharded pool; () for a whole pool.
    """
    sample = partial(pool.sample, batch=batch, crop=sampled_crop(config), scale=config.scale)
    sample = partial(sample, channels=channels_of(config))

    def draw(key: Key[Array, ""], images: pool.Pool, i: Array, first: int | Array) -> Drawn:
        if not devices:
            return sample(key, images, first=first)
        split, whole = PartitionSpec(AXIS), PartitionSpec()
        specs = pool.Pool._make(split if n in pool.PAGES else whole for n in images._fields)
        cut = jax.shard_map(
            partial(sample, axis_name=AXIS),
            mesh=Mesh(np.array(devices), (AXIS,)),
            in_specs=(whole, specs),
            out_specs=split,
        )
        return cut(key, images)

    return draw


def make_steps(config: ConfigDict, update: Update, draw: Draw) -> Callable:
    """Build n updates, to be compiled: (state, inputs, key, first) -> (state, metrics [n]).

    `n` and the stage, `adversarial`, are static.
    """
    prepare = make_prepare(config)

    def steps(
        state: State,
        inputs: Inputs,
        key: Key[Array, ""],
        first: int | Array,
        *,
        n: int,
        adversarial: bool,
    ) -> tuple[State, Series]:
        def one(state: State, i: Array) -> tuple[State, Metrics]:
            keys = jax.random.split(jax.random.fold_in(key, state.step), 3)
            sample_key, update_key, degrade_key = keys
            batch = prepare(degrade_key, draw(sample_key, inputs.images, i, first), first)
            return update(state, batch, update_key, inputs.frozen, adversarial=adversarial)

        if n == 1:  # XLA's convolutions on a CPU are ten times slower inside a loop (benchmarks/).
            state, values = one(state, jnp.zeros((), jnp.int32))
            return state, jax.tree.map(lambda x: x[None], values)
        return lax.scan(one, state, jnp.arange(n))

    return steps


@runtime_checkable
class Dispatch(Protocol):
    """n updates in one compiled program, as `make_dispatch` builds it."""

    def __call__(
        self, state: State, inputs: Inputs, key: Key[Array, ""], *, n: int, adversarial: bool
    ) -> tuple[State, Series]:
        """Return the state after n updates of one stage, and the metrics of each."""
        ...


def make_dispatch(config: ConfigDict, update: Update, devices: Devices) -> Dispatch:
    """Build (state, inputs, key, *, n, adversarial) -> (state, metrics [n]).

    The state is donated. What an update does depends on (state, key, step) alone, and its batch
    does not depend on the number of devices.
    """
    streaming, pmapped = config.data.loader == "stream", config.train.parallel == "pmap"
    share = config.data.batch // len(devices) if pmapped else config.data.batch
    sharded = config.data.loader == "sharded_pool"
    from_pool = make_draw(config, batch=share, devices=devices if sharded else ())

    def draw(key: Key[Array, ""], images: Any, i: Array, first: int | Array) -> Drawn:
        if streaming:
            drawn: Drawn = {
                name: batches[i] if name == "own" else to_float(batches[i])
                for name, batches in images.items()
            }
        else:
            drawn = from_pool(key, images, i, first)
        return drawn if pmapped else lax.with_sharding_constraint(drawn, on_all(devices, axis=AXIS))

    steps = make_steps(config, update, draw)

    @cache
    def compiled(n: int, adversarial: bool) -> Callable:
        run = partial(steps, n=n, adversarial=adversarial)
        if not pmapped:
            return jax.jit(run, donate_argnums=0, out_shardings=on_all(devices))
        axes = (None, Inputs(frozen=None, images=1 if streaming else None), None, 0)
        return jax.pmap(
            run, AXIS, in_axes=axes, out_axes=None, donate_argnums=0, devices=list(devices)
        )

    def dispatch(
        state: State, inputs: Inputs, key: Key[Array, ""], *, n: int, adversarial: bool
    ) -> tuple[State, Series]:
        run = compiled(n, adversarial)
        if not pmapped:
            return run(state, inputs, key, jnp.zeros((), jnp.int32))
        if streaming:
            shares = jax.tree.map(
                lambda x: x.reshape(n, len(devices), share, *x.shape[2:]), inputs.images
            )
            inputs = inputs._replace(images=shares)
        first = jnp.arange(len(devices), dtype=jnp.int32) * share
        return run(state, inputs, key, first)

    return dispatch


@runtime_checkable
class RunsDispatch(Protocol):
    """n updates of several runs in one compiled program, as `make_runs_dispatch` builds it."""

    def __call__(
        self,
        states: State,
        inputs: Inputs,
        keys: Key[Array, " runs"],
        rates: Float[Array, " runs"],
        *,
        n: int,
        adversarial: bool,
    ) -> tuple[State, Series]:
        """Return the states after n updates of one stage, and the metrics, [runs n]."""
        ...


def make_runs_dispatch(
    config: ConfigDict,
    devices: Devices,
    *,
    together: Literal["vmap", "unroll"],
) -> RunsDispatch:
    """Build n updates of several runs of one config in one compiled program.

    Run r has state [r], keys[r] and the generator's learning rate rates[r], and does what
    `make_dispatch` would do for it alone, with a pool that all share. The states are donated. The
    runs are split over the devices, whose number must divide theirs, and on each device either
    batched (vmap) or written one after another (unroll): XLA's convolutions on a CPU are several
    times slower when each example of a batch has a kernel of its own (benchmarks/seeds.py).

    Args:
        config: of every run.
        devices: those to split the runs over.
        together: how the runs of one device are put into one program.
    """
    draw = make_draw(config, batch=config.data.batch)

    @cache
    def compiled(n: int, adversarial: bool) -> Callable:
        def run(state: State, inputs: Inputs, key: Array, rate: Array) -> tuple[State, Series]:
            update = make_program(config, g_learning_rate=rate).update
            steps = make_steps(config, update, draw)
            return steps(state, inputs, key, 0, n=n, adversarial=adversarial)

        def local(states: State, inputs: Inputs, keys: Array, rates: Array) -> tuple[State, Series]:
            if together == "vmap":
                return jax.vmap(run, in_axes=(0, None, 0, 0))(states, inputs, keys, rates)
            each = [run(run_of(states, r), inputs, keys[r], rates[r]) for r in range(keys.shape[0])]
            return jax.tree.map(lambda *runs: jnp.stack(runs), *each)

        mesh = Mesh(np.array(devices), (AXIS,))
        split, whole = PartitionSpec(AXIS), PartitionSpec()
        sharded = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(split, whole, split, split),
            out_specs=split,
            check_vma=False,  # every run is of one device: nothing is summed over them
        )
        return jax.jit(sharded, donate_argnums=0)

    def dispatch(
        states: State, inputs: Inputs, keys: Array, rates: Array, *, n: int, adversarial: bool
    ) -> tuple[State, Series]:
        return compiled(n, adversarial)(states, inputs, keys, rates)

    return dispatch
