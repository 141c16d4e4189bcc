"""What each part of the GAN of configs/gan.py:standard contributes: discriminator, losses, weights.

    python -m benchmarks.gan_parts PHOTOGRAPHS [--steps 600] [--only NAME ...] [--folder runs/parts]

Each row changes one thing in the recipe with the vanilla loss and without its lattice loss, begins
as standard-x4, and trains for as many updates on the same crops of all but the last 40 photographs,
by which it is measured: see benchmarks/texture.py for the columns. Of BSD400, standard-x4 was not
trained on these 40 either; it is the first row, and HR the last. Runs in FOLDER are kept and
continued.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

import isr_jax
from benchmarks import texture, timing
from benchmarks.budget import HELD_OUT, changed, make_parser, milliseconds, split
from configs import gan
from isr_jax.models.discriminators import DISCRIMINATORS
from isr_jax.photo.finding import image_files

VARIANTS: dict[str, dict[str, Any]] = {
    "vanilla, without a lattice loss": {},
    "patches of 16 pixels": {"discriminator.layers": 1},
    "patches of 70 pixels": {"discriminator.layers": 3},
    "another place each time": {"discriminator.crop": 92},
    "classifier": {
        "discriminator": {
            **DISCRIMINATORS["classifier"],
            "widths": (32, 64, 128, 256),
            "dense": 256,
        }
    },
    "U-Net": {"discriminator": {**DISCRIMINATORS["unet"], "width": 24}},
    "relativistic": {"loss.adversarial": "relativistic"},
    "hinge": {"loss.adversarial": "hinge"},
    "least squares": {"loss.adversarial": "least_squares"},
    "adversarial weight 0.01": {"loss.adversarial_weight": 0.01},
    "adversarial weight 0.1": {"loss.adversarial_weight": 0.1},
    "no feature matching": {"loss.feature_matching": 0.0},
    "feature matching 0.2": {"loss.feature_matching": 0.2},
    "LDL 1": {"loss.ldl": 1.0},
    "R1 0.002": {"loss.r1": 0.002},
    "lattice loss 10": {"loss.lattice": 10.0},
    "lattice loss 10, hinge: the recipe": {"loss.lattice": 10.0, "loss.adversarial": "hinge"},
}


def main() -> None:
    """Print a Markdown table, a row as soon as a variant is done."""
    parser = make_parser(__doc__, names=list(VARIANTS), folder=Path("runs/parts"))
    parser.add_argument("--steps", type=int, default=600, help="updates; default: 600")
    options = parser.parse_args()
    timing.print_machine()
    data = split(options.photographs, options.folder)
    photos = texture.read_photos(image_files(options.photographs)[-HELD_OUT:], scale=4)
    print(texture.HEADER.replace("| PSNR", "| ms/update | PSNR").replace("|---:", "|---:|---:", 1))
    began = isr_jax.load("standard-x4")
    print(texture.row("standard-x4 |", texture.measure_all(photos, began, scale=4)), flush=True)
    for name in options.only:
        folder = options.folder / name.translate(str.maketrans(" /:", "___"))
        config = _config(VARIANTS[name], data, steps=options.steps)
        _train(config, folder)
        measured = texture.measure_all(photos, isr_jax.load(folder), scale=4)
        print(texture.row(f"{name} | {milliseconds(config):.0f}", measured), flush=True)
    print(texture.row("HR |", texture.mean([texture.measure(x, x, scale=4) for x in photos])))


def _config(fields: Mapping[str, Any], data: Mapping[str, str], *, steps: int) -> ConfigDict:
    config = gan.get_config("standard")
    config.loss.lattice = 0.0
    config.loss.adversarial = "vanilla"
    config = changed(config, fields, data, network="discriminator")
    config.train.steps = config.train.validate_every = config.train.checkpoint_every = steps
    return config


def _train(config: ConfigDict, folder: Path) -> None:
    """Train, and go on with the run that the folder holds."""
    if isr_jax.train(config, folder, console=Console(quiet=True)).step < config.train.steps:
        raise SystemExit("stopped")


if __name__ == "__main__":
    main()
