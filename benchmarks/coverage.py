"""The share of OpenModelDB's models that isr_jax opens, by year.

    python -m benchmarks.coverage CHECKOUT

CHECKOUT is a checkout of github.com/OpenModelDB/open-model-database. A model counts where its
architecture has a key map, its network the scale and the channels, and its files are PyTorch's or
safetensors.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from isr_jax.models.generators import ARCHITECTURES

# OpenModelDB's name of an architecture -> ours.
NAMES = {
    "esrgan": "rrdbnet",
    "esrgan+": "rrdbnet",
    "compact": "srvggnet",
    "edsr": "resnet",
    "sr-res-net": "resnet",
    "span": "span",
    "plksr": "plksr",
    "realplksr": "realplksr",
    "realplksr-dysample": "realplksr",
    "swinir": "swinir",
    "hat": "hat",
    "dat": "dat",
    "omnisr": "omnisr",
    "rcan": "rcan",
}
# Networks of other channels than RGB.
OTHERS = ("rrdbnet", "srvggnet", "span", "swinir", "hat", "dat", "omnisr", "rcan")


def main() -> None:
    """Print a Markdown table, and what is missing most."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    folder = parser.parse_args().checkout / "data" / "models"
    models = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    if not models:
        parser.error(f"{folder} holds no models")
    reasons = [(model.get("date", "")[:4], why_not(model)) for model in models]
    print("| year | models | opened | share |\n|---|---:|---:|---:|")
    years = sorted({year for year, _ in reasons})
    for title, chosen in [
        *((year, {year}) for year in years),
        ("2024 on", {year for year in years if year >= "2024"}),
        ("all", set(years)),
    ]:
        found = [why for year, why in reasons if year in chosen]
        opened = sum(why is None for why in found)
        print(f"| {title} | {len(found)} | {opened} | {opened / len(found):.0%} |")
    missing = Counter(why for _, why in reasons if why)
    print("\nNot opened:", ", ".join(f"{why} ({n})" for why, n in missing.most_common()))


def why_not(model: dict[str, Any]) -> str | None:
    """Return why a model is not opened; None where it is."""
    name = NAMES.get(str(model.get("architecture")))
    if name is None:
        return str(model.get("architecture"))
    if model.get("scale") not in ARCHITECTURES[name].scales:
        return f"{name} at {model.get('scale')}x"
    channels = model.get("inputChannels"), model.get("outputChannels")
    if channels != (3, 3) and (name not in OTHERS or channels not in ((1, 1), (4, 4))):
        return f"{name} from {channels[0]} to {channels[1]} channels"
    if not any(file.get("type") in ("pth", "safetensors") for file in model["resources"]):
        return "no file of PyTorch's"
    return None


if __name__ == "__main__":
    main()
