"""Run folders: Orbax checkpoints of everything that training changes, and what to make of them.

    RUN/config.json             the configuration of the last start
    RUN/checkpoints/STEP/       generator (params, stats, ema), training (the rest), config, data

The generator is an item of its own, so that inference reads it without the optimizers' moments.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from isr_jax.checkpoints import single_files as model_files
from isr_jax.checkpoints.single_files import PRETRAINED
from isr_jax.errors import UserError, one_line
from isr_jax.models import Generator, generator
from isr_jax.models.generators import complete
from isr_jax.pytorch.files import SUFFIXES as TORCH_SUFFIXES
from isr_jax.pytorch.weights import import_torch
from isr_jax.training.settings import flatten
from isr_jax.training.update import State

# What must be equal for one run's state to be another's.
ARCHITECTURE = ("scale", "generator", "discriminator")
# What configs saved before a field existed meant by its absence.
IMPLIED = {
    "generator.name": "resnet",
    "generator.img_range": 1.0,
    "generator.equivariant": False,
    "discriminator.name": "classifier",
}


def open_manager(run: Path, *, keep: int = 2) -> ocp.CheckpointManager:
    """A run folder's checkpoints: the latest `keep` and the one of the best PSNR-Y stay."""
    newest = checkpoint_managers.LatestN(keep)
    best = checkpoint_managers.BestN(
        get_metric_fn=_psnr, n=1, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, best]),
        best_fn=_psnr,
    )
    return ocp.CheckpointManager((run / "checkpoints").absolute(), options=options)


def _psnr(scores: Mapping[str, float]) -> float:
    return scores["psnr"]


def save(
    manager: ocp.CheckpointManager,
    state: State,
    config: ConfigDict,
    *,
    data: Mapping[str, Any],
    scores: Mapping[str, float] | None,
) -> None:
    """Write a checkpoint in the background; it appears whole or not at all.

    Args:
        manager: from `open_manager`.
        state: the training state; it may be donated as soon as this returns.
        config: the run's configuration.
        data: the data loader's place, as JSON; {} for the pool, which has none.
        scores: validation's, with "psnr" in dB, where this step was validated.
    """
    # Copied on the device, because the next dispatch overwrites the donated buffers.
    item = _items(jax.tree.map(jnp.copy, state))
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            generator=ocp.args.StandardSave(item["generator"]),
            training=ocp.args.StandardSave(item["training"]),
            config=ocp.args.JsonSave(config.to_dict()),
            data=ocp.args.JsonSave(dict(data)),
        ),
        metrics=dict(scores) if scores else None,
    )


def _items(state: State) -> dict[str, dict[str, Any]]:
    fields = state._asdict()
    names = {"g_params": "params", "g_stats": "stats", "ema": "ema"}
    # Checkpoints are older than d_stats, and go on without an empty one.
    if not fields["d_stats"]:
        del fields["d_stats"]
    return {
        "generator": {short: fields.pop(name) for name, short in names.items()},
        "training": fields,
    }


class Resumed(NamedTuple):
    """A restored place: the state and the data loader's, as given to `save`."""

    state: State
    data: dict[str, Any]


def resume(
    manager: ocp.CheckpointManager,
    like: State,
    config: ConfigDict,
    *,
    warn: Callable[[str], None],
) -> Resumed | None:
    """The newest readable checkpoint, or None where there is none.

    Those that cannot be read are moved to RUN/set_aside/ and said so by `warn`, once one before
    them has been read.

    Args:
        manager: from `open_manager`.
        like: a state of the same shapes and shardings.
        config: of the run that goes on.
        warn: takes one line for the person.

    Raises:
        UserError: where the run folder is of another architecture, or no checkpoint can be read.
    """
    run = Path(manager.directory).parent
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            state, data, saved = _restore(manager, step, like, config)
        except UserError:
            raise
        # Whatever a damaged file makes of itself: Orbax, TensorStore and JSON each raise their own.
        except Exception as error:
            damaged[step] = one_line(error, limit=120)
            continue
        for number, reason in damaged.items():
            set_aside(run, number)
            warn(f"checkpoint {number} cannot be read ({reason}); it is now in {run}/set_aside")
        manager.reload()
        for name, then, now in _differences(saved, config):
            warn(f"config.{name} is {now} from here on; it was {then}")
        return Resumed(state, data)
    if damaged:
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"no checkpoint in {run} can be read (the latest, {step}: {reason}); "
            "give another --workdir to start anew"
        )
    return None


def _restore(
    manager: ocp.CheckpointManager, step: int, like: State, config: ConfigDict
) -> tuple[State, dict[str, Any], dict[str, Any]]:
    """The state, the data loader's place and the configuration that were saved at a step."""
    saved = manager.restore(
        step, args=ocp.args.Composite(config=ocp.args.JsonRestore(), data=ocp.args.JsonRestore())
    )
    check_architecture(saved.config, config, run=Path(manager.directory).parent)
    abstract = _items(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
    arrays = manager.restore(
        step,
        args=ocp.args.Composite(
            generator=ocp.args.StandardRestore(abstract["generator"]),
            training=ocp.args.StandardRestore(abstract["training"]),
        ),
    )
    parts, training = arrays.generator, {"d_stats": {}, **arrays.training}
    state = State(g_params=parts["params"], g_stats=parts["stats"], ema=parts["ema"], **training)
    return state, dict(saved.data), saved.config


def architecture(config: ConfigDict) -> dict[str, Any]:
    """The scale of a configuration and its generator's fields, but for the type that computes."""
    fields = complete(config.generator.to_dict(), scale=config.scale)
    del fields["dtype"]
    return {"scale": config.scale, "generator": fields}


def begin_from(path: str, state: State, config: ConfigDict) -> State:
    """The state before the first update, with the averaged generator of another run.

    That one may enlarge by another factor. The arrays which then have another shape, those of the
    tail for the most, begin as initialised.

    Args:
        path: a run folder, or what else `restore_generator` takes.
        state: as initialised; its shardings are kept.
        config: of the run that begins.

    Raises:
        UserError: where there is no such run, or its generator is another.

    Source: Lim et al. 2017 (EDSR), section 3.2, begins 3x and 4x as 2x.
    """
    restored = restore_generator(path)
    then, now = (flatten(architecture(x)["generator"]) for x in (restored.config, config))
    for name in then:
        if then[name] != now.get(name):
            raise UserError(
                f"config.train.init_from: {path} has a generator with generator.{name}="
                f"{then[name]}, this run one with {now.get(name)}"
            )

    def place(source: Any, like: Any) -> Any:
        found = dict(jax.tree_util.tree_leaves_with_path(source))

        def one(at: Any, y: Array) -> Array:
            if at not in found or found[at].shape != y.shape:
                return y
            # A copy, because the state is donated.
            return jax.device_put(np.asarray(found[at]), y.sharding)

        return jax.tree_util.tree_map_with_path(one, like)

    return state._replace(
        g_params=place(restored.params, state.g_params),
        ema=place(restored.params, state.ema),
        g_stats=place(restored.stats, state.g_stats),
    )


def clear_up(run: Path, *, warn: Callable[[str], None]) -> None:
    """Before `open_manager`: remove what a killed run had begun to write.

    A checkpoint whose scores are damaged would keep Orbax from opening any, and is set aside.
    """
    # Orbax can do the first itself, but in a thread that outlives a quick exit.
    for unfinished in run.glob(f"checkpoints/*{ocp.utils.TMP_DIR_SUFFIX}*"):
        shutil.rmtree(unfinished)
    for scores in run.glob("checkpoints/*/metrics/metrics"):
        try:
            json.loads(scores.read_text())
        except ValueError:
            step = int(scores.parent.parent.name)
            set_aside(run, step)
            warn(f"checkpoint {step} cannot be read (its scores); it is now in {run}/set_aside")


def set_aside(run: Path, step: int) -> None:
    """Move a checkpoint to RUN/set_aside/."""
    target = run / "set_aside" / str(step)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    shutil.move(run / "checkpoints" / str(step), target)


def last_good(manager: ocp.CheckpointManager, step: int) -> Path | None:
    """The newest checkpoint from which an update came out finite, where update `step` did not.

    One saved right before `step` holds the very parameters that failed, and is set aside.
    """
    manager.wait_until_finished()
    if step - 1 in manager.all_steps():
        set_aside(Path(manager.directory).parent, step - 1)
        manager.reload()
    newest = manager.latest_step()
    return None if newest is None else Path(manager.directory) / str(newest)


def check_architecture(saved: Mapping[str, Any], config: ConfigDict, *, run: Path) -> None:
    """Raise a UserError naming the first field in which two architectures differ."""
    fields: tuple[str, ...] = ARCHITECTURE
    # A discriminator without a crop of its own has a dense layer for the whole crop.
    if not config.discriminator.crop:
        fields = (*fields, "data.crop")
    differences = _differences(saved, config)
    # An architecture's name says more than the fields that come and go with it.
    for name, then, now in sorted(differences, key=lambda field: not field[0].endswith(".name")):
        if name in fields or name.split(".")[0] in fields:
            raise UserError(
                f"{run} holds a run with {name}={then}, this one has {now}; "
                "give another --workdir, or the same architecture"
            )


def _differences(saved: Mapping[str, Any], config: ConfigDict) -> list[tuple[str, Any, Any]]:
    """(field, saved value, value now) of each field in which they differ."""
    now = flatten(config.to_dict())
    then = {name: value for name, value in IMPLIED.items() if name in now} | flatten(saved)
    # What the saved one does not have did not exist yet.
    return [(n, then[n], now.get(n)) for n in sorted(then) if then[n] != now.get(n)]


class Restored(NamedTuple):
    """A generator ready for use, with the configuration that trained it."""

    generator: Generator
    params: Any
    stats: Any
    config: ConfigDict
    step: int


def restore_generator(
    path: str | Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
) -> Restored:
    """The generator of a run folder, of one checkpoint RUN/checkpoints/STEP, or of a file.

    Args:
        path: a run folder, or one of its checkpoints, which then decides the step; the name of a
            model of `model_files.PRETRAINED`; a .safetensors file of `isr export`; or a .pth or
            .safetensors file of PyTorch's, of an architecture that `torch_weights` knows.
        weights: the moving average, or the parameters as they were last updated.
        checkpoint: the one of the best validation PSNR-Y, the latest, or a step.

    Raises:
        UserError: where there is no such folder, checkpoint or file.
    """
    run = PRETRAINED.get(str(path), Path(path).expanduser())
    if run.suffix in TORCH_SUFFIXES and not run.is_dir():
        saved = model_files.read(run) if run.suffix == ".safetensors" else None
        return _from_file(saved) if saved else _from_torch(run)
    if run.parent.name == "checkpoints" and run.name.isdigit():
        run, checkpoint = run.parent.parent, int(run.name)
    if not (run / "checkpoints").is_dir():
        raise UserError(f"{path} is no run folder: it holds no checkpoints/; train one by run.py")
    if weights not in ("ema", "raw"):
        raise UserError(f"weights is {weights!r}; it can be ema or raw")
    with open_manager(run) as manager:
        steps, latest, best = manager.all_steps(), manager.latest_step(), manager.best_step()
        # Before the first validation none is the best yet.
        choices: dict[str | int, int | None] = {
            "latest": latest,
            "best": latest if best is None else best,
        }
        step = choices.get(checkpoint, checkpoint)
        if not isinstance(step, int) or step not in steps:
            raise UserError(
                f"{run} has no checkpoint {step}; there are best, latest and {sorted(steps)}"
            )
        try:
            network, parts, config = _restore_item(manager, step)
        # Whatever a damaged file makes of itself.
        except Exception as error:
            raise UserError(
                f"checkpoint {step} of {run} cannot be read ({one_line(error, limit=120)}); "
                f"choose another of {sorted(steps)}"
            ) from error
    chosen = parts["ema" if weights == "ema" else "params"]
    return Restored(network, chosen, parts["stats"], config, step)


def _from_file(saved: model_files.Saved) -> Restored:
    config = ConfigDict(_tuples(saved.config))
    network = generator(config.generator.to_dict(), scale=config.scale)
    params, stats = jax.tree.map(jnp.asarray, (saved.params, saved.stats))
    return Restored(network, params, stats, config, 0)


def _from_torch(file: Path) -> Restored:
    imported = import_torch(file)
    if "generator" not in imported.config:
        raise UserError(f"{file} holds a discriminator ({imported.naming}); give a generator's")
    config = ConfigDict(imported.config)
    network = generator(imported.config["generator"], scale=config.scale)
    params, stats = jax.tree.map(jnp.asarray, (imported.params, imported.stats))
    return Restored(network, params, stats, config, 0)


def new_folder(path: str | Path) -> Path:
    """A folder that is there and empty, made where it is missing.

    Raises:
        UserError: where it holds something or cannot be made.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name another folder") from error
    if used:
        raise UserError(f"{path} is in use: name a new folder")
    return folder


def write_generator(run: str | Path, params: Any, stats: Any, config: Mapping[str, Any]) -> None:
    """Make a run folder that holds one generator: checkpoint 0, for `restore_generator`.

    Args:
        run: a new folder.
        params, stats: the generator's; params stand for their average too.
        config: "scale", and "generator", its name and fields.

    Raises:
        UserError: where the folder is in use or cannot be made.
    """
    folder = new_folder(run)
    arrays = {"params": params, "stats": stats, "ema": params}
    with open_manager(folder) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                generator=ocp.args.StandardSave(jax.tree.map(jnp.asarray, arrays)),
                config=ocp.args.JsonSave(dict(config)),
            ),
        )
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")


def interpolate(a: Restored, b: Restored, *, alpha: float) -> tuple[Any, Any]:
    """Parameters and statistics (1 - alpha) a + alpha b of two generators of one architecture.

    Between a generator trained for PSNR (a) and the GAN that began as it (b), alpha trades
    fidelity for texture; the ESRGAN paper shows 0 to 1 in steps of 0.2.

    Raises:
        UserError: where the architectures differ.

    Source: Wang et al. 2018 (ESRGAN), section 3.4; Wang et al. 2019, "Deep Network Interpolation
    for Continuous Imagery Effect Transition".
    """
    first, second = (flatten(architecture(x.config)) for x in (a, b))
    for name in first:
        if first[name] != second.get(name):
            raise UserError(
                f"the first has {name}={first[name]} and the second {second.get(name)}; "
                "only generators of one architecture mix"
            )
    return jax.tree.map(
        lambda x, y: (1.0 - alpha) * x + alpha * y, (a.params, a.stats), (b.params, b.stats)
    )


def _restore_item(
    manager: ocp.CheckpointManager, step: int
) -> tuple[Generator, dict[str, Any], ConfigDict]:
    """The generator, its saved arrays and the configuration of a step."""
    saved = manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
    config = ConfigDict(_tuples(saved.config))
    network = generator(config.generator.to_dict(), scale=config.scale)
    # Onto one device here, whatever the devices that it was trained on.
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, stats = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    abstract = {"params": params, "stats": stats, "ema": params}
    parts = manager.restore(
        step, args=ocp.args.Composite(generator=ocp.args.StandardRestore(abstract))
    ).generator
    return network, parts, config


def _tuples(tree: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(tree, Mapping):
        return {name: _tuples(value) for name, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree
