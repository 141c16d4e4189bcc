"""Updates and upscaling on a GPU, beside PyTorch as its users run it and at its best.

    python -m benchmarks.gpu [--rounds N] [--small]

Prints Markdown tables: updates of MSRResNet, SRGAN, ESRGAN-23 and Real-ESRGAN (without perceptual
losses) in float32 and bfloat16, with peak memory and compile time; the rate of a matrix product and
the time of sampling a batch; and the rate of upscaling 640x480 at 4x. Needs PyTorch.
--small runs the same on a CPU with tiny sizes, to show that it works.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, timing, torch_cases
from benchmarks.upscale import drawn, usual_tiles
from isr_jax.models import GENERATORS
from isr_jax.models.generators import make_upscale

NETWORKS = ("MSRResNet", "SRGAN", "ESRGAN-23", "Real-ESRGAN")
UPSCALED: dict[str, Mapping[str, Any]] = {
    "RRDBNet-23": GENERATORS["rrdbnet"],
    "SRVGG-16": cases.UPSCALED["SRVGG-16"],
}


class Size(NamedTuple):
    """Of the measurements: networks, updates per dispatch, batch and crop (None: published)."""

    networks: tuple[str, ...]
    updates: int
    batch: int | None
    crop: int | None
    photo: tuple[int, int]
    matrix: int


FULL = Size(NETWORKS, 20, None, None, (480, 640), 8192)
SMALL = Size(("MSRResNet",), 1, 2, 32, (24, 32), 128)


def seconds(run: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the seconds of the first call, and the median of the later ones."""
    taken = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken[0], median(taken[2:])


def ceiling(size: Size, dtype: Any, rounds: int) -> float:
    """Return the TFLOP/s of a product of square matrices."""
    a = jnp.ones((size.matrix, size.matrix), dtype)
    product = jax.jit(jnp.matmul)
    _, took = seconds(lambda: jax.block_until_ready(product(a, a)), rounds)
    return 2 * size.matrix**3 / took / 1e12


def changed(size: Size, dtype: str) -> dict[str, Any]:
    """Return the fields that differ from the published config."""
    fields: dict[str, Any] = {"generator.dtype": dtype, "discriminator.dtype": dtype}
    if size.batch:
        fields |= {"data.batch": size.batch, "data.crop": size.crop}
        fields |= {"generator.width": 8, "generator.blocks": 1}
    return fields


def ours(name: str, size: Size, dtype: str, rounds: int) -> list[str]:
    """Measure an update in JAX: ms, seconds of the first call, and peak memory so far in GiB."""
    run = cases.update(name, changed=changed(size, dtype), n=size.updates)
    first, took = seconds(run, rounds)
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", 0) / 2**30
    return [f"{1e3 * took / size.updates:.1f}", f"{first:.0f}", f"{peak:.1f}"]


def theirs(name: str, size: Size, rounds: int, **how: Any) -> str:
    """Measure an update in PyTorch, in ms."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = torch_cases.update(name, device=device, batch=size.batch, crop=size.crop, **how)
    _, took = seconds(run, rounds)
    return f"{1e3 * took:.1f}"


def report_updates(size: Size, rounds: int) -> None:
    """Print the table of updates."""
    rates = [f"{ceiling(size, dtype, rounds):.1f}" for dtype in (jnp.float32, jnp.bfloat16)]
    print(f"Product of {size.matrix}x{size.matrix}: {rates[0]} (float32), {rates[1]} TFLOP/s\n")
    titles = ("ms", "first call, s", "peak, GiB")
    columns = [f"isr_jax {dtype}, {t}" for dtype in ("float32", "bfloat16") for t in titles]
    columns += ["PyTorch, ms", "PyTorch at its best, ms"]
    print(f"| update | {' | '.join(columns)} |\n|---{'|---:' * len(columns)}|")
    best = {"channels_last": True, "mixed": True, "compiled": size is FULL}
    for name in size.networks:
        row = [*ours(name, size, "float32", rounds), *ours(name, size, "bfloat16", rounds)]
        row += [theirs(name, size, rounds), theirs(name, size, rounds, **best)]
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def report_sampling(size: Size, rounds: int) -> None:
    """Print the time that sampling the batch of an update takes."""
    from isr_jax.data import pool
    from isr_jax.training.loaders import open_loader

    config = cases.published(size.networks[0])
    config.update_from_flattened_dict(changed(size, "float32"))
    images = open_loader(config, jax.devices(), warn=print).take(1).images
    draw = jax.jit(
        partial(pool.sample, batch=config.data.batch, crop=config.data.crop, scale=config.scale)
    )
    _, took = seconds(lambda: jax.block_until_ready(draw(jax.random.key(0), images)), rounds)
    print(f"\nSampling a batch of {size.networks[0]} from the pool: {1e3 * took:.2f} ms\n")


def report_upscaling(size: Size, rounds: int) -> None:
    """Print the table of upscaling, in images per second."""
    import torch

    lr = np.random.default_rng(0).integers(0, 256, (*size.photo, 3), np.uint8)
    print(f"| {lr.shape[1]}x{lr.shape[0]} at 4x, images/s | whole | tiles | PyTorch | its tiles |")
    print("|---|---:|---:|---:|---:|")
    for name, options in UPSCALED.items():
        if size is SMALL and name != "SRVGG-16":
            continue
        network = drawn(name, options if size is FULL else {**options, "width": 8})
        whole = make_upscale(network.whole)
        peer = torch_cases.upscaler(name, device="cuda" if torch.cuda.is_available() else "cpu")
        ways: list[Callable[[], Any]] = [
            partial(lambda w, n: np.asarray(w(n.params, n.stats, lr)), whole, network),
            partial(network.tiled(), lr),
            partial(peer, lr),
            partial(usual_tiles, lr, peer, tile=256),
        ]
        figures = [f"{1 / seconds(way, rounds)[1]:.2f}" for way in ways]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = timing.parser(__doc__, rounds=5)
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a CPU")
    options = parser.parse_args()
    size = SMALL if options.small else FULL
    timing.print_machine()
    report_updates(size, options.rounds)
    report_sampling(size, options.rounds)
    report_upscaling(size, options.rounds)


if __name__ == "__main__":
    main()
