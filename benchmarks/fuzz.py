"""Feed mutated files to everything that reads files, and count what goes wrong.

    pip install hypothesis
    python -m benchmarks.fuzz [--images N] [--models N] [--runs N] [--requests N] [--seed N]

Images of every format, PyTorch's and our model files, run folders, and requests to the page of
`isr demo` are made here, then cut and changed by hypothesis. Each input goes to a process of its
own kind, which is killed after 10 s. A good answer is a result, or a UserError of one line. Counted
are all other ends: another exception (a crash), no end (a hang), more than 1 GB of memory, and code
that an input brought along and that was executed. The exit code is 1 where there is any.
"""

import io
import json
import os
import pickle
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import jax
import numpy as np
import tifffile
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import timing
from isr_jax.checkpoints import single_files
from isr_jax.checkpoints.runs import write_generator
from isr_jax.demo.worker import BugError, Worker
from isr_jax.errors import UserError
from isr_jax.models import generator
from isr_jax.photo.reading import open_photo
from isr_jax.pytorch.state_dicts import to_state_dict

SECONDS, GIB = 10.0, 1.0
SMALL = {"name": "srvggnet", "width": 4, "layers": 1}
MARK = "executed"  # a file that code in an input would write
COUNTS = ("inputs", "refused", "crashes", "hangs", f"memory above {GIB:g} GB", "executed")

# Where to change an input, as a share of its length, and the bytes to put there.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6)
CUTS = st.one_of(st.just(1.0), st.floats(0, 1))


def main() -> None:
    """Print a Markdown table of what went wrong."""
    parser = timing.parser(__doc__)
    for name, count in {"images": 20_000, "models": 3_000, "runs": 300, "requests": 2_000}.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that crash")
    options = parser.parse_args()
    timing.print_machine()
    keep = options.keep.absolute() if options.keep else None
    print(f"| | {' | '.join(COUNTS)} |\n|---|{'---:|' * len(COUNTS)}")
    bad = 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # where code in an input would leave its mark
        kinds: dict[str, tuple[dict[str, bytes], Callable[..., Any], int]] = {
            "images": (_images(), read_image, options.images),
            "model files": (_models(folder), read_model, options.models),
            "run folders": (_run_files(folder), read_run, options.runs),
            "requests": (_requests(), read_request, options.requests),
        }
        for kind, (seeds, read, count) in kinds.items():
            row = _fuzz(seeds, partial(read, folder), count, options.seed, keep)
            print(f"| {kind} | {' | '.join(str(row[name]) for name in COUNTS)} |", flush=True)
            bad += sum(row[name] for name in COUNTS[2:])
    sys.exit(bad > 0)


def _fuzz(
    seeds: Mapping[str, bytes], read: Callable[..., Any], count: int, start: int, keep: Path | None
) -> Counter:
    """Read so many mutated inputs; return the counts."""
    found: Counter = Counter()
    workers = [Worker("fuzz", seconds=SECONDS)]
    names = sorted(seeds)

    def keep_input(what: str, name: str, data: bytes) -> None:
        found[what] += 1
        print(f"{what}: {name}", file=sys.stderr)
        if keep:
            keep.mkdir(exist_ok=True)
            (keep / f"{what.split()[0]}-{found[what]}-{Path(name).name}").write_bytes(data)

    @seed(start)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(name=st.sampled_from(names), edits=EDITS, cut=CUTS)
    def attempt(name: str, edits: list[tuple[float, bytes]], cut: float) -> None:
        data = bytearray(seeds[name])
        for share, new in edits:
            at = int(share * len(data))
            data[at : at + len(new)] = new
        data = data[: int(cut * len(data))] if cut < 1 else data
        found["inputs"] += 1
        try:
            if workers[0].call(partial(read, name, bytes(data))) > GIB:
                keep_input(COUNTS[4], name, data)
                workers[0].close()  # its peak would be counted again
                workers[0] = Worker("fuzz", seconds=SECONDS)
        except BugError as error:
            print(str(error).splitlines()[-1], file=sys.stderr)
            keep_input("crashes", name, data)
        except UserError as error:
            found["refused"] += 1
            for what, said in {"hangs": "took longer than", "crashes": "decoder crashed"}.items():
                if said in str(error):
                    keep_input(what, name, data)
        found["executed"] += Path(MARK).exists()
        Path(MARK).unlink(missing_ok=True)

    attempt()
    workers[0].close()
    return found


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def read_image(folder: Path, name: str, data: bytes, *, progress: Any) -> float:
    """Decode all pages of an image file; return the peak memory in GiB."""
    file = folder / name
    file.write_bytes(data)
    photo = open_photo(file, max_pixels=10**8).read()
    for _ in photo.pages:
        pass
    return _peak_gib()


def read_model(folder: Path, name: str, data: bytes, *, progress: Any) -> float:
    """Load a model file, and upscale by it; return the peak memory in GiB."""
    import isr_jax

    file = folder / name
    file.write_bytes(data)
    isr_jax.load(file)(np.zeros((8, 8, 3), np.uint8))
    return _peak_gib()


def read_run(folder: Path, name: str, data: bytes, *, progress: Any) -> float:
    """Load a run folder of which one file is changed; return the peak memory in GiB."""
    import isr_jax

    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "run", copy)
    (copy / name).write_bytes(data)
    isr_jax.load(copy)(np.zeros((8, 8, 3), np.uint8))
    return _peak_gib()


def read_request(folder: Path, name: str, data: bytes, *, progress: Any) -> float:
    """Parse what a visitor asks for; return the peak memory in GiB."""
    import asyncio

    from starlette.requests import Request

    from isr_jax.demo.models import Choice
    from isr_jax.demo.requests import wanted_of

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    asyncio.run(wanted_of(request, [Choice("nearest", None), Choice("compact-x4", 4)]))
    return _peak_gib()


def _images() -> dict[str, bytes]:
    """Return small images of every format and kind of pixels, by name."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 17, 4), np.uint8)
    modes = {"L": pixels[..., 0], "RGB": pixels[..., :3], "RGBA": pixels}
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    images = {}
    for mode, array in modes.items():
        image = Image.fromarray(np.ascontiguousarray(array))
        images[f"{mode}.jxl"] = bytes(imagecodecs.jpegxl_encode(np.asarray(image), lossless=True))
        for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif", "avif"):
            if suffix == "jpg" and mode == "RGBA":
                continue
            buffer = io.BytesIO()
            options: dict[str, Any] = {} if suffix in ("bmp", "gif", "tif") else {"exif": exif}
            form = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
            (image.convert("P") if suffix == "gif" else image).save(buffer, form, **options)
            images[f"{mode}.{suffix}"] = buffer.getvalue()
    frames = [Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)) for _ in range(3)]
    for suffix in ("png", "webp", "gif", "tif"):
        buffer = io.BytesIO()
        form = "TIFF" if suffix == "tif" else suffix.upper()
        frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
        images[f"frames.{suffix}"] = buffer.getvalue()
    deep = rng.integers(0, 65536, (12, 17, 3), np.uint16)
    for name, options in {
        "deep": {},
        "big": {"bigtiff": True},
        "zip": {"compression": "zlib"},
        **{name: {"compression": name} for name in ("jpegxl", "jpeg2000", "lerc", "png", "zstd")},
    }.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, deep, photometric="rgb", **options)
        images[f"{name}.tif"] = buffer.getvalue()
    images["deep.png"] = imagecodecs.png_encode(deep)
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file closefile\n"
    images["script.png"] = script
    return images


class _Code:
    """What a pickle could bring along."""

    def __reduce__(self) -> Any:
        return open, (MARK, "w")


def _models(folder: Path) -> dict[str, bytes]:
    """Return model files by name."""
    network = generator(SMALL, scale=2)
    params, stats = network.init(jax.random.key(0))
    config = {"scale": 2, "generator": SMALL}
    models = {"ours.safetensors": single_files.to_bytes(params, stats, config)}
    state = to_state_dict(params, stats, options=SMALL, size=2)
    from safetensors import numpy as safetensors

    models["theirs.safetensors"] = safetensors.save(dict(state))
    models["code.pth"] = pickle.dumps({"params": _Code()})
    try:
        import torch
    except ImportError:
        print("PyTorch is missing: no .pth but a pickle of code", file=sys.stderr)
        return models
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    for name, old in {"new.pth": False, "old.pth": True}.items():
        buffer = io.BytesIO()
        torch.save({"params": tensors}, buffer, _use_new_zipfile_serialization=not old)
        models[name] = buffer.getvalue()
    buffer = io.BytesIO()
    torch.save({"params": tensors, "code": _Code()}, buffer)
    models["code_zip.pth"] = buffer.getvalue()
    return models


def _run_files(folder: Path) -> dict[str, bytes]:
    """Write a run folder; return its files by their paths in it."""
    run = folder / "run"
    params, stats = generator(SMALL, scale=2).init(jax.random.key(0))
    write_generator(run, params, stats, {"scale": 2, "generator": SMALL})
    return {
        str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()
    }


def _requests() -> dict[str, bytes]:
    """Return bodies of requests by name."""
    wanted = {"model": 0, "size": {"scale": 2}, "tile": None}
    return {
        "good": json.dumps(wanted).encode(),
        "tiles": json.dumps({**wanted, "tile": 64, "model": 1}).encode(),
        "deep": b"[" * 5000,
        "large": b'{"model": ' + b"9" * 5000 + b"}",
    }


if __name__ == "__main__":
    main()
