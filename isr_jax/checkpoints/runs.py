"""Run folders: Orbax checkpoints of everything that training changes.

    RUN/config.json             the configuration of the last start
    RUN/checkpoints/STEP/       generator (params, stats, ema), training (the rest), config, data,
                                digests (SHA-256 of each array, and of config and data)
    RUN/quarantine/STEP/        a checkpoint that could not be read

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
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from isr_jax import distributed
from isr_jax.checkpoints.digests import digests_of, digests_of_json, verify
from isr_jax.config import flatten, tuples
from isr_jax.errors import UserError, one_line
from isr_jax.files import new_folder, read_json, to_quarantine, write_json
from isr_jax.models import Generator
from isr_jax.models.generators import generator_of
from isr_jax.protocols import Scores
from isr_jax.scoring import LATEST, METRICS, merit_by
from isr_jax.state import State

# The parts of a config that must be the same for a run to resume.
ARCHITECTURE = ("scale", "generator", "discriminator")
_FREE = ("generator.remat",)  # changes no number
# What older run folders keep.
KEEPING: dict[str, Any] = {"keep": 2, "keep_best": "psnr", "keep_every": 0}
# The values of fields that older configs lack.
IMPLIED = {
    "generator.name": "resnet",
    "generator.channels": 3,
    "generator.img_range": 1.0,
    "generator.equivariant": False,
    "discriminator.name": "classifier",
    **dict.fromkeys(("g_optimizer.name", "d_optimizer.name"), "adam"),
}


def open_manager(run: Path, *, keeping: Mapping[str, Any] | None = None) -> ocp.CheckpointManager:
    """Open a run folder's checkpoints.

    An old one is removed when a new one is complete, so that there is always one.

    Args:
        run: the run folder.
        keeping: "keep", "keep_best" and "keep_every", as in config.train; None for those of
            RUN/config.json.
    """
    keeping = KEEPING | (_saved_keeping(run) if keeping is None else dict(keeping))
    policies: list[Any] = [checkpoint_managers.LatestN(keeping["keep"])]
    # -inf where a validation of an earlier start lacks the metric.
    score = None if keeping["keep_best"] == LATEST else merit_by(keeping["keep_best"])
    if score:
        scored = {"get_metric_fn": score, "keep_checkpoints_without_metrics": False}
        policies.append(checkpoint_managers.BestN(n=1, **scored))
    if keeping["keep_every"]:
        policies.append(checkpoint_managers.EveryNSteps(keeping["keep_every"]))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies), best_fn=score
    )
    return ocp.CheckpointManager((run / "checkpoints").absolute(), options=options)


def _saved_keeping(run: Path) -> dict[str, Any]:
    """Return what RUN/config.json says of checkpoints to keep; {} where it says nothing.

    Where it is damaged, the latest checkpoint says it.
    """
    config = read_json(run / "config.json")
    if config is None:
        steps = [int(x.name) for x in run.glob("checkpoints/*") if x.name.isdecimal()]
        latest = run / "checkpoints" / str(max(steps, default=0))
        config = read_json(latest / "config" / "metadata") or {}
    train = config.get("train")
    if not isinstance(train, dict):
        return {}
    found = {name: train[name] for name in KEEPING if name in train}
    same = all(type(value) is type(KEEPING[name]) for name, value in found.items())
    return found if same and found.get("keep_best", "psnr") in (LATEST, *METRICS) else {}


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
        data: the loader state, as JSON; {} for the pool, which has none.
        scores: of the validation, with "psnr" in dB, where this step was validated.
    """
    if jax.process_count() == 1:
        # Copied on the device, because the next dispatch overwrites donated buffers.
        item = _items(_copied(jax.tree.map(_on_one_device, state)))
    else:
        # Which the first process alone writes: a checkpoint does not tell how many there were.
        item = _items(jax.tree.map(np.asarray, state))
    texts = {"config": config.to_dict(), "data": dict(data)}
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            generator=ocp.args.StandardSave(item["generator"]),
            training=ocp.args.StandardSave(item["training"]),
            config=ocp.args.JsonSave(texts["config"]),
            data=ocp.args.JsonSave(texts["data"]),
            digests=ocp.args.JsonSave(digests_of(item) | digests_of_json(texts)),
        ),
        metrics=dict(scores) if scores else None,
    )


def _on_one_device(x: jax.Array) -> jax.Array:
    # Of an array that all devices have, Orbax would have each write a part, and compile a program
    # that cuts it out for every shape.
    whole = x.is_fully_addressable and x.is_fully_replicated
    return x.addressable_data(0) if whole else x


@jax.jit
def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _items(state: State) -> dict[str, dict[str, Any]]:
    fields = state._asdict()
    names = {"g_params": "params", "g_stats": "stats", "ema": "ema"}
    # Older checkpoints have no d_stats, so an empty one is not written.
    if not fields["d_stats"]:
        del fields["d_stats"]
    return {
        "generator": {short: fields.pop(name) for name, short in names.items()},
        "training": fields,
    }


class Resumed(NamedTuple):
    """A restored checkpoint: the training state and the loader state, as given to `save`."""

    state: State
    data: dict[str, Any]


def resume(
    manager: ocp.CheckpointManager,
    like: State,
    config: ConfigDict,
    *,
    warn: Callable[[str], None],
) -> Resumed | None:
    """Restore the newest readable checkpoint; return None where there is none.

    Damaged checkpoints are moved to RUN/quarantine/, with a warning, once an older one has been
    read.

    Args:
        manager: from `open_manager`.
        like: a state of the same shapes and shardings.
        config: of the run that resumes.
        warn: called with one line for the user.

    Raises:
        UserError: the run has another architecture, or none of its checkpoints can be read.
    """
    run = Path(manager.directory).parent
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            state, data, saved = _restore(manager, step, like, config)
        except UserError:
            raise
        # A damaged file can raise anything: Orbax, TensorStore and JSON raise their own errors.
        except Exception as error:
            damaged[step] = one_line(error, limit=120)
            continue
        for number, reason in damaged.items():
            quarantine_checkpoint(run, number)
            warn(f"checkpoint {number} cannot be read ({reason}); moved to {run}/quarantine")
        manager.reload()
        for name, then, now in _differences(saved, config):
            warn(f"config.{name} is {now} from here on; it was {then}")
        return Resumed(state, data)
    if damaged:
        step, reason = next(iter(damaged.items()))
        raise UserError(
            f"no checkpoint in {run} can be read (the latest, {step}: {reason}); "
            "give another --workdir to start a new run"
        )
    return None


def _restore(
    manager: ocp.CheckpointManager, step: int, like: State, config: ConfigDict
) -> tuple[State, dict[str, Any], dict[str, Any]]:
    """Return the training state, the loader state and the configuration saved at a step."""
    saved: Any = manager.restore(
        step, args=ocp.args.Composite(config=ocp.args.JsonRestore(), data=ocp.args.JsonRestore())
    )
    verify(digests_of_json({"config": saved.config, "data": saved.data}), manager, step=step)
    check_architecture(saved.config, config, run=Path(manager.directory).parent)
    abstract = _items(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
    arrays: Any = manager.restore(
        step,
        args=ocp.args.Composite(
            generator=ocp.args.StandardRestore(abstract["generator"]),
            training=ocp.args.StandardRestore(abstract["training"]),
        ),
    )
    verify(digests_of({k: arrays[k] for k in ("generator", "training")}), manager, step=step)
    parts, training = arrays.generator, {"d_stats": {}, **arrays.training}
    state = State(g_params=parts["params"], g_stats=parts["stats"], ema=parts["ema"], **training)
    return state, dict(saved.data), saved.config


def clear_up(run: Path, *, warn: Callable[[str], None]) -> None:
    """Remove unfinished checkpoints of a killed run; call it before `open_manager`.

    A checkpoint with damaged scores, with which Orbax would open none, is moved to quarantine/.
    """
    # Orbax can remove them itself, but in a thread that outlives a quick exit.
    for unfinished in run.glob(f"checkpoints/*{ocp.utils.TMP_DIR_SUFFIX}*"):
        shutil.rmtree(unfinished)
    for folder in run.glob("checkpoints/[0-9]*"):
        scores = folder / "metrics" / "metrics"
        if not folder.is_dir() or (scores.exists() and not _are_scores(scores)):
            aside = to_quarantine(folder, run)
            warn(f"checkpoint {folder.name} cannot be read (its scores); moved to {aside}")


def _are_scores(file: Path) -> bool:
    """Return whether a checkpoint's scores are what the best is chosen by."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    known = isinstance(content, dict) and content.keys() >= {*Scores._fields}
    return known and all(isinstance(value, int | float) for value in content.values())


def quarantine_checkpoint(run: Path, step: int) -> None:
    """Move a checkpoint to RUN/quarantine/; all processes call it, and the first one does it."""
    if distributed.is_first():
        to_quarantine(run / "checkpoints" / str(step), run)
    distributed.wait("quarantine")


def last_good(manager: ocp.CheckpointManager, step: int) -> Path | None:
    """Return the newest checkpoint from before the parameters that made update `step` fail.

    One saved right before `step` holds those parameters, and is moved to quarantine/.
    """
    manager.wait_until_finished()
    if step - 1 in manager.all_steps():
        quarantine_checkpoint(Path(manager.directory).parent, step - 1)
        manager.reload()
    newest = manager.latest_step()
    return None if newest is None else Path(manager.directory) / str(newest)


def check_architecture(saved: Mapping[str, Any], config: ConfigDict, *, run: Path) -> None:
    """Raise a UserError naming the first field in which two architectures or optimizers differ."""
    fields: tuple[str, ...] = (*ARCHITECTURE, "g_optimizer.name", "d_optimizer.name")
    # Schedule-free's parameters are a mixture by b1.
    free = "schedule_free_adamw"
    fields += tuple(f"{x}.b1" for x in ("g_optimizer", "d_optimizer") if config[x].name == free)
    # Without a crop of its own, a discriminator has a dense layer sized for data.crop.
    if not config.discriminator.crop:
        fields = (*fields, "data.crop")
    differences = _differences(saved, config)
    # An architecture's name first: it explains the fields that differ with it.
    for name, then, now in sorted(differences, key=lambda field: not field[0].endswith(".name")):
        if name in _FREE:
            continue
        if name in fields or name.split(".")[0] in fields:
            same = "optimizer" if "_optimizer." in name else "architecture"
            raise UserError(
                f"{run} holds a run with {name}={then}, this one has {now}; "
                f"give another --workdir, or the same {same}"
            )


def _differences(saved: Mapping[str, Any], config: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Return (field, saved value, value now) of each field that differs."""
    now = flatten(config.to_dict())
    then = {name: value for name, value in IMPLIED.items() if name in now} | flatten(saved)
    # A field that the saved config lacks is newer than that run.
    return [(n, then[n], now.get(n)) for n in sorted(then) if then[n] != now.get(n)]


def write_generator(run: str | Path, params: Any, stats: Any, config: Mapping[str, Any]) -> None:
    """Write a run folder that holds one generator as checkpoint 0, for `restore_generator`.

    Args:
        run: a new folder.
        params, stats: the generator's; params are also written as the EMA.
        config: "scale", and "generator", its name and fields.

    Raises:
        UserError: the folder is not empty, or cannot be created.
    """
    folder = new_folder(run)
    arrays = jax.tree.map(jnp.asarray, {"params": params, "stats": stats, "ema": params})
    digests = digests_of({"generator": arrays}) | digests_of_json({"config": dict(config)})
    with open_manager(folder) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                generator=ocp.args.StandardSave(arrays),
                config=ocp.args.JsonSave(dict(config)),
                digests=ocp.args.JsonSave(digests),
            ),
        )
    write_json(folder / "config.json", dict(config))


def read_generator(
    run: Path, *, checkpoint: Literal["best", "latest"] | int, dtype: str | None = None
) -> tuple[Generator, dict[str, Any], ConfigDict, int]:
    """Return the generator of a run folder, its saved arrays, its configuration and the step.

    Args:
        run: the run folder.
        checkpoint: the best by config.train.keep_best, the latest, or a step.
        dtype: of the computation; None for that of the configuration.

    Raises:
        UserError: there is no such checkpoint, or it cannot be read.
    """
    with open_manager(run) as manager:
        steps, latest, best = manager.all_steps(), manager.latest_step(), manager.best_step()
        if not steps:
            raise UserError(f"{run} has no complete checkpoint; resume its training with run.py")
        # Before the first validation, the latest counts as the best.
        choices: dict[str | int, int | None] = {
            "latest": latest,
            "best": latest if best is None else best,
        }
        step = choices[checkpoint] if checkpoint in (*choices,) else checkpoint
        if isinstance(step, np.integer):
            step = int(step)
        if not isinstance(step, int) or step not in steps:
            raise UserError(
                f"{run} has no checkpoint {step}; there are best, latest and {sorted(steps)}"
            )
        try:
            return (*_restore_item(manager, step, dtype), step)
        # A damaged file can raise anything.
        except Exception as error:
            others = sorted({*steps} - {step})
            raise UserError(
                f"checkpoint {step} of {run} cannot be read ({one_line(error, limit=120)}); "
                + (f"choose another of {others}" if others else "there is no other")
            ) from error


def _restore_item(
    manager: ocp.CheckpointManager, step: int, dtype: str | None
) -> tuple[Generator, dict[str, Any], ConfigDict]:
    """Return the generator, its saved arrays and the configuration of a step."""
    saved: Any = manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
    verify(digests_of_json({"config": saved.config}), manager, step=step)
    config = ConfigDict(tuples(saved.config))
    network = generator_of(config, dtype=dtype)
    # Onto one local device, whichever devices it was trained on.
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, stats = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    abstract = {"params": params, "stats": stats, "ema": params}
    restored: Any = manager.restore(
        step, args=ocp.args.Composite(generator=ocp.args.StandardRestore(abstract))
    )
    verify(digests_of({"generator": restored.generator}), manager, step=step)
    return network, restored.generator, config
