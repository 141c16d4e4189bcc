"""Several models, by the names that end those of their outputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isr_jax.errors import UserError
from isr_jax.upscaling.any_size import SizedUpscaler, load_any_size
from isr_jax.upscaling.sizes import Target
from isr_jax.upscaling.upscaler import Upscaler, load


def load_several(
    models: Sequence[str | Path], *, target: Target | None, options: Mapping[str, Any]
) -> dict[str, Upscaler | SizedUpscaler]:
    """Load models by name: a file's without its suffix, or a run folder's, or one that is shipped.

    Args:
        models: as of `upscaler.load`.
        target: the size of every image; None for the scale of each model.
        options: other arguments of `load`.

    Raises:
        UserError: there is no such model, or two have one name.
    """
    loaded: dict[str, Upscaler | SizedUpscaler] = {}
    for model in models:
        name = name_of(model)
        if name in loaded:
            raise UserError(f"two models are called {name}, as their outputs would be: rename one")
        if target is None:
            loaded[name] = load(model, **options)
        else:
            loaded[name] = load_any_size(model=model, **options).at(target)
    return loaded


def name_of(model: str | Path) -> str:
    """Return what outputs of a model are called by."""
    path = Path(model)
    if path.is_file():
        return path.stem
    path = path.absolute() if path.exists() else path
    return f"{path.parents[1].name}-{path.name}" if path.parent.name == "checkpoints" else path.name
