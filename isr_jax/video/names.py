"""Video files by name: which are videos, what they become, and which codecs their containers hold.

Nothing heavy is imported here: the command line reads the tables before it is parsed.
"""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from isr_jax.errors import UsageError, UserError
from isr_jax.files import expanded
from isr_jax.upscaling.tasks import Task, check_distinct, without_outputs


class Container(NamedTuple):
    """A kind of file that videos are written to.

    Attributes:
        format: FFmpeg's name of its writer.
        codecs: the keys in CODECS that it holds; the first is used where the input's own is none.
    """

    format: str
    codecs: tuple[str, ...]


class Codec(NamedTuple):
    """A video codec.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        crf: the default quality, 0 to 51, lower is better; None for a lossless codec.
        options: of the encoder.
        sampling: the chroma sampling that it holds: 420, 422, 444, or rgb.
        deep: the most bits per sample.
    """

    encoder: str
    crf: int | None
    options: dict[str, str]
    sampling: tuple[str, ...]
    deep: int


CODECS = {
    "h264": Codec("libx264", 18, {"preset": "medium"}, ("420", "422", "444"), 10),
    "h265": Codec("libx265", 20, {"preset": "medium"}, ("420", "422", "444"), 10),
    "av1": Codec("libsvtav1", 25, {"preset": "8"}, ("420",), 10),
    "ffv1": Codec("ffv1", None, {"level": "3", "slicecrc": "1", "g": "1"}, ("rgb",), 16),
}
CONTAINERS = {
    ".mp4": Container("mp4", ("h264", "h265", "av1")),
    ".m4v": Container("mp4", ("h264", "h265", "av1")),
    ".mov": Container("mov", ("h264", "h265")),
    ".mkv": Container("matroska", ("h264", "h265", "av1", "ffv1")),
    ".webm": Container("webm", ("av1",)),
}
# Containers that are read only: their videos are written to Matroska, which holds nearly all.
OTHERS = (".3gp", ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".wmv")


class Inputs(NamedTuple):
    """The inputs of a command line.

    Attributes:
        photos: what names photos, as it was given.
        videos: video files that were named, each with its path below the folder of a pattern.
        left: a line for each folder with videos, which are skipped.
    """

    photos: list[str]
    videos: list[tuple[Path, Path]]
    left: list[str]


def is_video(file: Path) -> bool:
    """Return whether a path is named like a video, and is not hidden."""
    return file.suffix.lower() in (*CONTAINERS, *OTHERS) and not file.name.startswith(".")


def split_inputs(inputs: Sequence[str]) -> Inputs:
    """Separate the videos that are named, or match a pattern, from what names photos.

    Videos in a folder are skipped, with a message: a video takes hours, and who gives a folder of
    photos may not know that it holds one.

    Raises:
        UserError: a folder holds videos and no photos.
    """
    from isr_jax.photo.finding import all_files, image_files, matching

    found = Inputs([], [], [])
    for entry in inputs:
        path = expanded(entry)
        if path.is_dir():
            if videos := [file for file in all_files(path) if is_video(file)]:
                count = f"{len(videos)} video{'s' * (len(videos) > 1)}"
                hint = f"name them, as in {videos[0].parent / '*'}{videos[0].suffix}"
                if not image_files(path):
                    raise UserError(f"{path} holds no photos, but {count}: {hint}")
                found.left.append(f"{count} in {path} skipped: {hint}")
            found.photos.append(entry)
        elif glob.has_magic(str(path)) and not path.is_file():
            matches = matching(path)
            videos = [file for file in matches if is_video(file) and file.is_file()]
            parts = path.parts
            fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
            root = Path(*parts[:fixed])
            found.videos.extend((file, file.relative_to(root)) for file in videos)
            if len(videos) < len(matches) or not matches:
                found.photos.append(entry)
        elif is_video(path) and path.is_file():
            found.videos.append((path, Path(path.name)))
        else:
            found.photos.append(entry)
    return found


def without_earlier(
    videos: Sequence[tuple[Path, Path]], suffix: str
) -> Sequence[tuple[Path, Path]]:
    """Return the videos without those that are named as the output, at another size, of another.

    Args:
        videos: files, each with its path below an input folder.
        suffix: of the outputs of this run, which `plan_videos` leaves out.
    """
    from isr_jax.upscaling.planning import earlier_outputs

    original = earlier_outputs(is_video)
    stems = {file.resolve().with_suffix("") for file, _ in videos}

    def is_input(file: Path) -> bool:
        name = original(file)
        return name not in stems or file.stem == f"{name.name}{suffix}"

    return [video for video in videos if is_input(video[0].resolve())]


def plan_videos(
    videos: Sequence[tuple[Path, Path]], *, out: str | Path | None, suffix: str, codec: str
) -> list[Task]:
    """Return what is upscaled to what, sorted by output.

    A container is kept where it holds the codec; otherwise the video is written to a .mkv file.
    Inputs that are the output of another input are left out.

    Args:
        videos: files, each with its path below an input folder.
        out: a folder, or for a single video the file to write. None to write beside each.
        suffix: appended to each name.
        codec: a key of CODECS, or same.

    Raises:
        UserError: two videos would be written to one file, or `out` cannot hold the codec.
    """
    if os.path.basename(suffix) != suffix:
        raise UsageError(f"--suffix {suffix} cannot be part of a file name")
    out = None if out is None else expanded(out)
    files = {file.resolve(): (file, place) for file, place in videos}
    if out and is_video(out) and not out.is_dir():
        if len(files) > 1:
            raise UsageError(f"--out {out} is one file, but there are {len(files)} videos")
        if not _holds(out.suffix, codec):
            raise UsageError(
                f"--out {out} cannot hold {codec if codec != 'same' else 'what is written'}: "
                f"name a file with the suffix {' or '.join(_suffixes(codec))}"
            )
        return [Task(file, out) for file, _ in files.values()]
    plan = []
    for resolved, (file, place) in files.items():
        kind = file.suffix if _holds(file.suffix, codec) else ".mkv"
        target = (out / place if out else file).with_name(place.stem + suffix + kind)
        plan.append((resolved, Task(file, target)))
    tasks = [task for _, task in without_outputs(plan)]
    check_distinct(tasks)
    return sorted(tasks, key=lambda task: task.target.as_posix())


def choose_codec(own: str, *, target: Path, bits: int) -> str:
    """Return the codec of an output where none was chosen: its own, or one that it can be read by.

    Args:
        own: FFmpeg's name of the input's codec.
        target: the output.
        bits: per sample of the input.
    """
    held = CONTAINERS[target.suffix.lower()].codecs
    known = {"h264": "h264", "hevc": "h265", "av1": "av1", "ffv1": "ffv1"}.get(own)
    if known in held:
        return str(known)
    # Few players decode H.264 of 10 bits.
    return "h265" if bits > 8 and "h265" in held else held[0]


def _holds(suffix: str, codec: str) -> bool:
    return suffix.lower() in _suffixes(codec)


def _suffixes(codec: str) -> list[str]:
    return [name for name, kind in CONTAINERS.items() if codec in ("same", *kind.codecs)]
