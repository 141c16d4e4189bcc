"""What starting costs: help, the import, and one small photograph from the command line.

    python -m benchmarks.startup [--rounds N]

Each is a process of its own; the least of its CPU time and of its wall time. The
photograph is a PNG of 160x120 pixels that compact-x4 upscales.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import imagecodecs
import skimage.data

from benchmarks import timing
from isr_jax.resize import resize_uint8

MAIN = "import sys; from isr_jax.cli import main; sys.exit(main())"


def main() -> None:
    """Print a Markdown table."""
    options = timing.parser(__doc__, rounds=5).parse_args()
    timing.print_machine()
    with TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        photo.write_bytes(
            imagecodecs.png_encode(resize_uint8(skimage.data.coffee(), size=(120, 160)))
        )
        upscale = ["upscale", str(photo), "--model", "compact-x4", "--overwrite"]
        programs = {
            "`python -c pass`": ["pass"],
            "`isr --help`": [MAIN, "--help"],
            "`import isr_jax`": ["import isr_jax"],
            "`isr upscale`, a photograph of 160x120": [MAIN, *upscale],
        }
        print("| | CPU time, s | wall time, s |\n|---|---|---|", flush=True)
        for name, program in programs.items():
            # The first call fills caches: bytecode, files, and compiled programs if they are kept.
            _, *runs = (timing.run_python(["-c", *program]) for _ in range(options.rounds + 1))
            least = min(run.processor_seconds for run in runs)
            print(f"| {name} | {least:.2f} | {min(run.seconds for run in runs):.2f} |", flush=True)


if __name__ == "__main__":
    main()
