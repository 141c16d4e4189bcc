"""Published networks beside their authors' PyTorch code: difference, speed and compile time.

    python -m benchmarks.networks [--only NAME ...] [--side N]
    python -m benchmarks.networks --tiles PHOTO [--only NAME ...]

Each has its published size and random weights. The difference is the largest over three images of
odd sides, of outputs whose deviation is about 1; the speed is of an image of N x N pixels, the
median of three runs after a first one. The authors' code comes from the registry. With --tiles,
192x256 pixels of a photo as a whole are compared with tiles of 64 pixels, padded with 32; outputs
are spread over 0 to 255 first.
"""

import statistics
import time
import warnings
from typing import Any

import jax
import numpy as np
import torch
from PIL import Image

from benchmarks import timing
from isr_jax.models import generator
from isr_jax.pytorch import state_dicts
from isr_jax.tiling.tiles import make_tiled, plan
from isr_jax.tiling.windows import windowed
from tests.helpers.published import network

SIZES = ((17, 19), (33, 21), (25, 40))
CLASSIC: dict[str, Any] = {
    "window_size": 8,
    "depths": [6] * 6,
    "embed_dim": 180,
    "num_heads": [6] * 6,
    "mlp_ratio": 2,
}
LIGHT = {**CLASSIC, "depths": [6] * 4, "embed_dim": 60, "num_heads": [6] * 4}
DAT: dict[str, Any] = {
    "split_size": [8, 32],
    "depth": [6] * 6,
    "num_heads": [6] * 6,
    "expansion_factor": 4,
}
DAT_LIGHT = {
    "embed_dim": 60,
    "split_size": [8, 32],
    "depth": [18],
    "num_heads": [6],
    "expansion_factor": 2,
    "resi_connection": "3conv",
    "upsampler": "pixelshuffledirect",
}
HAT: dict[str, Any] = {**CLASSIC, "window_size": 16}
# Each at 4x: module and class of the authors' code, and its arguments.
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "span": ("SPAN.__arch.span", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "upscale": 4}),
    "plksr": (
        "PLKSR.__arch.PLKSR",
        "PLKSR",
        {"ccm_type": "DCCM", "upscaling_factor": 4},
    ),
    "realplksr": ("PLKSR.__arch.RealPLKSR", "RealPLKSR", {"upscaling_factor": 4}),
    "realplksr_dysample": (
        "PLKSR.__arch.RealPLKSR",
        "RealPLKSR",
        {"upscaling_factor": 4, "dysample": True},
    ),
    "swinir": (
        "SwinIR.__arch.SwinIR",
        "SwinIR",
        {**CLASSIC, "upscale": 4, "upsampler": "pixelshuffle"},
    ),
    "swinir_light": (
        "SwinIR.__arch.SwinIR",
        "SwinIR",
        {**LIGHT, "upscale": 4, "upsampler": "pixelshuffledirect"},
    ),
    "hat": ("HAT.__arch.HAT", "HAT", {**HAT, "upscale": 4}),
    "dat": ("DAT.__arch.DAT", "DAT", {**DAT, "upscale": 4}),
    "dat_light": ("DAT.__arch.DAT", "DAT", {**DAT_LIGHT, "upscale": 4}),
    "omnisr": ("OmniSR.__arch.OmniSR", "OmniSR", {"res_num": 5, "up_scale": 4}),
    "rcan": ("RCAN.__arch.rcan_arch", "RCAN", {"scale": 4}),
}


def main() -> None:
    """Print a Markdown table."""
    parser = timing.parser(__doc__)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--side", type=int, default=64, help="of the timed image, pixels")
    parser.add_argument("--tiles", metavar="PHOTO", help="compare tiles with the whole")
    options = parser.parse_args()
    timing.print_machine()
    if options.tiles:
        photo = np.asarray(Image.open(options.tiles).convert("RGB"))[:192, :256]
        print("| network | largest difference | more than 1 level off | PSNR, dB |")
        print("|---|---:|---:|---:|")
        for name in options.only:
            print(f"| {name} | {' | '.join(_tiles(name, photo))} |", flush=True)
        return
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| network | largest difference of outputs in [0, 1] | isr_jax, s | PyTorch, s ", end="")
    print("| isr_jax / PyTorch | compiling, s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in options.only:
        print(f"| {name} | {' | '.join(_row(name, options.side))} |", flush=True)


def _both(name: str) -> tuple[Any, Any, Any, Any]:
    """Return the authors' network, ours, and our arrays."""
    module, kind, arguments = NETWORKS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = network(module, kind)(**arguments).eval()
    _draw(theirs)
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    detected = state_dicts.detect(state)
    params, stats = jax.device_put(state_dicts.to_params(state, detected))
    return theirs, generator(detected.options, scale=detected.size), params, stats


def _tiles(name: str, photo: np.ndarray) -> list[str]:
    """Compare tiles with the whole."""
    _, ours, params, stats = _both(name)
    windows = windowed(ours)
    plain, lr = windows.whole, (photo / np.float32(255))[None]
    sr = jax.jit(plain)(params, stats, lr)
    low, high = float(sr.min()), float(sr.max())

    def spread(params: Any, stats: Any, lr: Any) -> Any:
        return (plain(params, stats, lr) - low) / (high - low)

    windows = windows._replace(whole=spread)
    whole, tiled = (
        make_tiled(windows, plan(windows, tile=tile, overlap=32))(params, stats)(photo[None], None)
        for tile in (0, 64)
    )
    off = np.abs(whole.astype(int) - tiled)
    psnr = 10 * np.log10(255**2 / max(np.mean(off**2), 1e-9))
    return [f"{off.max()} levels", f"{100 * np.mean(off > 1):.1f}%", f"{psnr:.1f}"]


def _row(name: str, side: int) -> list[str]:
    theirs, ours, params, stats = _both(name)

    @jax.jit
    def apply(params: Any, stats: Any, lr: Any) -> Any:
        return ours.apply(params, stats, lr, train=False)[0]

    difference = 0.0
    for h, w in SIZES:
        lr = np.random.default_rng(0).uniform(size=(1, h, w, 3)).astype(np.float32)
        difference = max(
            difference, float(np.abs(_run(theirs, lr) - apply(params, stats, lr)).max())
        )
    lr = np.random.default_rng(0).uniform(size=(1, side, side, 3)).astype(np.float32)
    start = time.perf_counter()
    jax.block_until_ready(apply(params, stats, lr))
    first = time.perf_counter() - start
    _run(theirs, lr)
    mine = _median(lambda: jax.block_until_ready(apply(params, stats, lr)))
    other = _median(lambda: _run(theirs, lr))
    figures = (f"{mine:.2f}", f"{other:.2f}", f"{mine / other:.2f}", f"{first - mine:.0f}")
    return [f"{difference:.0e}", *figures]


def _draw(theirs: Any) -> None:
    """Draw weights that keep the deviation of features near 1."""
    drawn = torch.Generator().manual_seed(1)
    for key, values in theirs.named_parameters():
        if values.ndim > 1 and not key.startswith(("sub_mean", "add_mean")):
            values.data.normal_(0, 0.5 * values[0].numel() ** -0.5, generator=drawn)


def _run(theirs: Any, lr: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        sr = theirs(torch.from_numpy(lr.transpose(0, 3, 1, 2)).contiguous())
    return sr.numpy().transpose(0, 2, 3, 1)


def _median(work: Any) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
