"""Frames a second of Real-ESRGAN's own video script, to lay beside `python -m benchmarks.video`.

    PYTHON benchmarks/realesrgan_video.py inference_realesrgan_video.py CLIP

PYTHON is of an environment with Real-ESRGAN, BasicSR, PyTorch and ffmpeg-python; the script is that
of Real-ESRGAN's repository, and CLIP a video without sound. The network is realesr-animevideov3's,
SRVGGNetCompact of 16 layers at 4x, with random weights, since only the speed is looked at. On a
machine without a GPU the script starts no process, and synchronises a GPU that is not there: both
are circumvented here. The clip of `benchmarks.video` is made by its functions `moving` and `write`.
"""

import argparse
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Print the frames a second, from the start of the script to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", type=Path)
    parser.add_argument("clip", type=Path)
    options = parser.parse_args()
    script, clip = options.script.resolve(), options.clip.resolve()

    import cv2
    import torch
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    if not torch.cuda.is_available():
        torch.cuda.device_count = lambda: 1
        torch.cuda.synchronize = lambda device=None: None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("weights").mkdir()
        name = "realesr-animevideov3"
        weights = SRVGGNetCompact(3, 3, 64, 16, 4, "prelu").state_dict()
        torch.save({"params": weights}, f"weights/{name}.pth")
        sys.argv = [str(script), "-i", str(clip), "-n", name, "-s", "4", "-o", "out", "--fp32"]
        begin = time.perf_counter()
        runpy.run_path(str(script), run_name="__main__")
        seconds = time.perf_counter() - begin
        (written,) = Path("out").glob("*.mp4")
        frames = int(cv2.VideoCapture(str(written)).get(cv2.CAP_PROP_FRAME_COUNT))
    print(f"{frames} frames, {frames / seconds:.2f} a second")


if __name__ == "__main__":
    main()
