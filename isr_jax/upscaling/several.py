"""The models of a run: one, or several by the names that end those of their outputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isr_jax.errors import UserError
from isr_jax.upscaling.any_size import SizedUpscaler, load_any_size
from isr_jax.upscaling.sizes import Target
from isr_jax.upscaling.upscaler import Upscaler, load

DEFAULT = "compact-x4"


def load_models(
    models: Sequence[str | Path], *, target: Target | None, options: Mapping[str, Any]
) -> dict[str, Upscaler | SizedUpscaler]:
    """Load models by name: a single one by none, each of several by that of its file or folder.

    Args:
        models: as of `upscaler.load`; none for those that are shipped.
        target: the size of every image; None for the scale of each model.
        options: other arguments of `load`.

    Raises:
        UserError: there is no such model, or two have one name.
    """
    if len(models) < 2:
        return {"": _load(models[0] if models else None, target, options)}
    names = [name_of(model) for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two models are called {name}, as their outputs would be: rename one")
    loaded = (_load(model, target, options) for model in models)
    return dict(zip(names, loaded, strict=True))


def _load(
    model: str | Path | None, target: Target | None, options: Mapping[str, Any]
) -> Upscaler | SizedUpscaler:
    if target is None:
        return load(model or DEFAULT, **options)
    return load_any_size(model=model, **options).at(target)


def name_of(model: str | Path) -> str:
    """Return what outputs of a model are called by: a file without its suffix, or a run folder."""
    path = Path(model)
    if path.is_file():
        return path.stem
    path = path.absolute() if path.exists() else path
    return f"{path.parents[1].name}-{path.name}" if path.parent.name == "checkpoints" else path.name
