"""What a MODEL is, and how its generator is restored.

A MODEL is the name of an interpolation (INTERPOLATIONS) or of a model shipped with the package
(PRETRAINED), a run folder, one of its checkpoints RUN/checkpoints/STEP, a .safetensors file of
`isr export`, or a file of PyTorch's or ncnn's, under any name, for which `pytorch` has a key map.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from ml_collections import ConfigDict

from isr_jax import distributed, errors
from isr_jax.checkpoints import single_files
from isr_jax.config import flatten, tuples
from isr_jax.errors import UserError
from isr_jax.files import expanded
from isr_jax.models import Generator
from isr_jax.models.generators import complete, generator_of
from isr_jax.pretrained import PRETRAINED, card_of
from isr_jax.pytorch.key_maps import KEY_MAPS
from isr_jax.pytorch.leaves import torch_leaves
from isr_jax.pytorch.state_dicts import choose_key_map, import_torch
from isr_jax.resize import METHODS
from isr_jax.state import State
from isr_jax.tensor_files import check_weights

INTERPOLATIONS = tuple(METHODS)
WEIGHTS = ("ema", "raw")


class Restored(NamedTuple):
    """A generator ready for use.

    Attributes:
        generator: its functions, built once, for `tiling` and `export` to use.
        params, stats: its arrays.
        config: the configuration that trained it; at least "scale" and "generator".
        step: the update after which its parameters were saved; 0 for a file.
    """

    generator: Generator
    params: Any
    stats: Any
    config: ConfigDict
    step: int


def restore_generator(
    model: str | Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
    dtype: Literal["float32", "bfloat16"] | None = None,
    strength: float = 1.0,
) -> Restored:
    """Restore the generator of a MODEL.

    Args:
        model: any MODEL except an interpolation; a checkpoint folder determines the step.
        weights: the EMA, or the raw parameters; a file holds only one of them.
        checkpoint: the best of the validations, the latest, or a step.
        dtype: of the computation; None for that of the configuration.
        strength: in [0, 1]; below 1, the model is mixed with the one that it was initialised from,
            parameter by parameter; see `interpolate`.

    Raises:
        UserError: there is no such model or checkpoint, or it holds no generator that can be read;
            or it was not initialised from one that it can be mixed with.
    """
    if strength != 1.0:
        return _mixed(model, strength, weights=weights, checkpoint=checkpoint, dtype=dtype)
    name, path = str(model), PRETRAINED.get(str(model), expanded(model))
    if name in INTERPOLATIONS:
        raise UserError(f"{name} is an interpolation and has no network")
    if weights not in WEIGHTS:
        raise errors.unknown("weights", weights, WEIGHTS)
    if dtype not in (None, "float32", "bfloat16"):
        raise errors.unknown("dtype", dtype, ("float32", "bfloat16"))
    if not os.path.exists(path):  # unlike that of Path, also for names that are too long
        known = ", ".join((*PRETRAINED, *INTERPOLATIONS))
        raise UserError(
            f"there is no model {name}: give a run folder, a .pth or .safetensors file, or one of "
            f"{known}"
        )
    if path.is_file():
        return _from_file(path, dtype)
    run = path
    if run.parent.name == "checkpoints" and run.name.isdigit():
        run, checkpoint = run.parent.parent, int(run.name)
    if not is_run_folder(run):
        raise UserError(f"{name} is not a run folder: it has no checkpoints; train one with run.py")
    # Imported here: Orbax takes longer to import than a small photo to upscale.
    from isr_jax.checkpoints.runs import read_generator

    network, parts, config, step = read_generator(run, checkpoint=checkpoint, dtype=dtype)
    params = parts["ema" if weights == "ema" else "params"]
    flat = flatten_dict({"params": params, "stats": parts["stats"]}, sep="/")
    try:
        check_weights({path: np.asarray(x) for path, x in flat.items()})
    except UserError as error:
        raise UserError(f"checkpoint {step} of {run} cannot be used: {error}") from None
    return Restored(network, params, parts["stats"], config, step)


def _mixed(model: str | Path, strength: float, **options: Any) -> Restored:
    """Mix a model with its base."""
    if not isinstance(strength, int | float | np.number) or not 0.0 <= strength <= 1.0:
        raise UserError(f"strength is {strength}; it must be from 0 to 1")
    restored = restore_generator(model, **options)
    base = card_of(model).get("base") or restored.config.get("train", {}).get("init_from")
    if not base:
        raise UserError(
            f"{model} was not initialised from another model, with which strength could mix it"
        )
    try:
        start = restore_generator(base, dtype=options["dtype"])
        params, stats = interpolate(start, restored, alpha=strength)
    except UserError as error:
        raise UserError(f"{base} and {model} cannot be mixed: {error}") from error
    return restored._replace(params=params, stats=stats)


def is_run_folder(path: Path) -> bool:
    """Return whether a path is a run folder with a checkpoint."""
    return any(path.glob("checkpoints/[0-9]*/"))


def saved_scale(run: Path) -> int:
    """Return the scale factor of a run folder, without reading its checkpoints.

    Raises:
        UserError: its config.json cannot be read or has no scale.
    """
    try:
        return int(json.loads((run / "config.json").read_text())["scale"])
    except (OSError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{run}: its config.json has no scale") from error


def _from_file(file: Path, dtype: str | None) -> Restored:
    """Restore a safetensors file of ours, or a file of PyTorch's."""
    saved = single_files.read(file) or import_torch(file)
    if "generator" not in saved.config:
        raise UserError(f"{file} holds a discriminator; give a generator's")
    config = ConfigDict(tuples(saved.config))
    try:
        network = generator_of(config, dtype=dtype)
    except UserError as error:
        raise UserError(f"{file} cannot be used: {error}") from None
    params, stats = jax.tree.map(jnp.asarray, (saved.params, saved.stats))
    return Restored(network, params, stats, config, 0)


def architecture(config: ConfigDict) -> dict[str, Any]:
    """Return a configuration's scale and its generator's fields, except its dtype."""
    fields = complete(config.generator.to_dict(), scale=config.scale)
    del fields["dtype"]
    return {"scale": config.scale, "generator": fields}


def begin_from(model: str, state: State, config: ConfigDict) -> State:
    """Return an initial state with the EMA generator of another model.

    The other may have another scale or another tail. Arrays are taken by their published names
    where both generators have such, by our own otherwise; those of other names or shapes keep their
    initial values.

    Args:
        model: a MODEL, as for `restore_generator`.
        state: the initial state; its shardings are kept.
        config: of the new run.

    Raises:
        UserError: there is no such model, or its generator's fields differ.

    Source: Lim et al. 2017 (EDSR), section 3.2, initialises 3x and 4x from 2x.
    """
    try:
        restored = restore_generator(model)
    except UserError as error:
        raise UserError(f"config.train.init_from: {error}") from error
    then, now = (flatten(architecture(x)["generator"]) for x in (restored.config, config))
    for name in then:
        if then[name] != now.get(name) and name not in _TAIL:
            raise UserError(
                f"config.train.init_from: {model} has a generator with generator.{name}="
                f"{then[name]}, this run one with {now.get(name)}"
            )

    theirs, ours = (_published_names(x) for x in (restored.config, config))
    arrays: Any = flatten_dict({"params": restored.params, "stats": restored.stats}, sep="/")
    found = arrays | {theirs.get(path, path): x for path, x in arrays.items()}

    def place(part: str, like: Any) -> Any:
        placed, flat = {}, flatten_dict(like, sep="/")
        for path, y in cast(dict[str, Array], flat).items():
            x = found.get(ours.get(f"{part}/{path}", f"{part}/{path}"))
            taken = x is not None and x.shape == y.shape
            # Copied, because the state is donated.
            placed[path] = distributed.on_devices(np.asarray(x), y.sharding) if taken else y
        return unflatten_dict(placed, sep="/")

    # Imported here: upscaling does not need it.
    from optax.contrib import ScheduleFreeState

    def is_free(part: Any) -> bool:
        return isinstance(part, ScheduleFreeState)

    def begun(part: Any) -> Any:
        # The one optimizer whose state holds parameters.
        return part._replace(z=place("params", part.z)) if is_free(part) else part

    return state._replace(
        g_params=place("params", state.g_params),
        ema=place("params", state.ema),
        g_opt=jax.tree.map(begun, state.g_opt, is_leaf=is_free),
        g_stats=place("stats", state.g_stats),
    )


# Fields of a generator that change only how it upsamples.
_TAIL = ("doublings", "unshuffle", "tail", "tail_width", "tail_activation")


def _published_names(config: ConfigDict) -> dict[str, str]:
    """Return PyTorch's name of each array by its path; {} where no key map fits the generator."""
    options = complete(config.generator.to_dict(), scale=config.scale)
    try:
        key_map = KEY_MAPS[choose_key_map(options)]
    except UserError:
        return {}
    leaves = torch_leaves(key_map, options, config.scale)
    return {path: leaf.key for path, leaf in leaves.items()}


def interpolate(a: Restored, b: Restored, *, alpha: float) -> tuple[Any, Any]:
    """Return the parameters and statistics (1 - alpha) a + alpha b of two generators.

    Between a generator trained for PSNR (a) and the GAN that started from it (b), alpha trades
    fidelity for texture; the ESRGAN paper shows 0 to 1 in steps of 0.2.

    Raises:
        UserError: the architectures differ.

    Source: Wang et al. 2018 (ESRGAN), section 3.4; Wang et al. 2019, "Deep Network Interpolation
    for Continuous Imagery Effect Transition".
    """
    first, second = (flatten(architecture(x.config)) for x in (a, b))
    for name in first:
        if first[name] != second.get(name):
            raise UserError(
                f"the first has {name}={first[name]} and the second {second.get(name)}; "
                "only generators of one architecture can be interpolated"
            )
    return jax.tree.map(
        lambda x, y: (1.0 - alpha) * x + alpha * y, (a.params, a.stats), (b.params, b.stats)
    )
