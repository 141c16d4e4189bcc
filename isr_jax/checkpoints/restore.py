"""A generator, restored from whatever a MODEL is."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from isr_jax.checkpoints import single_files as model_files
from isr_jax.checkpoints.single_files import PRETRAINED
from isr_jax.config import flatten, tuples
from isr_jax.errors import UserError
from isr_jax.models import Generator, generator
from isr_jax.models.generators import complete
from isr_jax.pytorch.files import SUFFIXES as TORCH_SUFFIXES
from isr_jax.pytorch.state_dicts import import_torch
from isr_jax.state import State


def architecture(config: ConfigDict) -> dict[str, Any]:
    """Return the scale of a configuration and its generator's fields, except its dtype."""
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
    # Imported here: Orbax takes longer to import than a small photo to upscale.
    from isr_jax.checkpoints.runs import read_generator

    network, parts, config, step = read_generator(run, checkpoint=checkpoint)
    chosen = parts["ema" if weights == "ema" else "params"]
    return Restored(network, chosen, parts["stats"], config, step)


def _from_file(saved: model_files.Saved) -> Restored:
    config = ConfigDict(tuples(saved.config))
    network = generator(config.generator.to_dict(), scale=config.scale)
    params, stats = jax.tree.map(jnp.asarray, (saved.params, saved.stats))
    return Restored(network, params, stats, config, 0)


def _from_torch(file: Path) -> Restored:
    imported = import_torch(file)
    if "generator" not in imported.config:
        raise UserError(f"{file} holds a discriminator ({imported.key_map}); give a generator's")
    config = ConfigDict(imported.config)
    network = generator(imported.config["generator"], scale=config.scale)
    params, stats = jax.tree.map(jnp.asarray, (imported.params, imported.stats))
    return Restored(network, params, stats, config, 0)


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
