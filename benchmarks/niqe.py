"""NIQE beside published scores, and beside pyiqa where it is installed.

    python -m benchmarks.niqe --model FILE --calibration FOLDER

FILE holds NIQE's parameters (niqe_modelparameters.mat), and FOLDER five images of TID2013:
ResultsCalibra/dist_dir of IQA-PyTorch's repository, whose results_official.csv and
calibration_summary.csv have the scores of the authors' MATLAB code and of pyiqa. The photographs of
the second table come with scikit-image, and from $ISR_DATA/benchmarks where that is set.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from benchmarks import timing
from isr_jax.perceptual.niqe import load_niqe
from isr_jax.protocols import luma_uint8

# By the authors' MATLAB code, and by pyiqa.
PUBLISHED = {
    "I03": (15.7536293917814, 15.6538),
    "I04": (3.65492152353770, 3.6549),
    "I06": (3.23547743716998, 3.2342),
    "I08": (3.18403333858339, 3.1922),
    "I19": (8.63519663862637, 9.0722),
}
BABOON = 5.72957338  # of luma, by MATLAB R2021a; the documentation of BasicSR's calculate_niqe
SHIPPED = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket")


def photographs() -> Iterator[tuple[str, np.ndarray]]:
    """Yield a name and uint8 pixels, gray as one channel."""
    for name in SHIPPED:
        yield name, getattr(data, name)()
    for file in sorted(Path(os.environ.get("ISR_DATA", ".")).glob("benchmarks/Set*/x2/hr/*.png")):
        with Image.open(file) as image:
            yield f"{file.parts[-4]} {file.stem}", np.array(image)


def main() -> None:
    """Print a Markdown table for each source of reference scores."""
    parser = timing.parser(__doc__)
    parser.add_argument("--model", metavar="FILE", help="NIQE's parameters; default: as cached")
    parser.add_argument("--calibration", metavar="FOLDER", help="folder of I03.bmp and so on")
    options = parser.parse_args()
    forms = {form: load_niqe(form, folder=options.model) for form in ("matlab", "pyiqa")}
    if options.calibration:
        print("| | MATLAB | `matlab` | difference | pyiqa | `pyiqa` | difference |")
        print("|---|---|---|---|---|---|---|")
        for name, scores in PUBLISHED.items():
            with Image.open(Path(options.calibration) / f"{name}.bmp") as image:
                pixels = np.array(image)
            cells = []
            for measure, score in zip(forms.values(), scores, strict=True):
                ours = measure(pixels)
                cells += [f"{score:.4f}", f"{ours:.4f}", f"{ours - score:+.4f}"]
            print(f"| {name} | {' | '.join(cells)} |")
        print()
    if "ISR_DATA" in os.environ:
        file = Path(os.environ["ISR_DATA"]) / "benchmarks/Set14/x2/hr/001.png"
        with Image.open(file) as image:
            ours = forms["matlab"](luma_uint8(np.array(image)))
        print(f"Luma of Set14's baboon: MATLAB {BABOON}, `matlab` {ours:.8f}\n")
    if not find_spec("pyiqa"):
        print("pyiqa is not installed: pip install pyiqa")
        return
    import torch
    from pyiqa.archs.niqe_arch import NIQE

    peer = NIQE(pretrained_model_path=options.model)
    print("| | pyiqa | `pyiqa` | difference | `matlab` |\n|---|---|---|---|---|")
    worst = 0.0
    for name, pixels in photographs():
        planes = np.atleast_3d(pixels).transpose(2, 0, 1)[None].astype(np.float32) / 255
        theirs = float(peer(torch.from_numpy(planes)))
        ours = forms["pyiqa"](pixels)
        worst = max(worst, abs(ours - theirs))
        print(f"| {name} | {theirs:.4f} | {ours:.4f} | {ours - theirs:+.4f} | "
              f"{forms['matlab'](pixels):.4f} |")  # fmt: skip
    print(f"\nLargest difference: {worst:.1e}")


if __name__ == "__main__":
    main()
