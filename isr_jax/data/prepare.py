"""Find and prepare TFDS data sets, as ArrayRecord and without TensorFlow."""

import contextlib
import difflib
import importlib.util
import io
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.utils import lazy_imports_utils

from isr_jax.errors import UserError, one_line


def find_builder(name: str, data_dir: str | None, spec: str) -> tfds.core.DatasetBuilder:
    """Return the builder NAME[/CONFIG][:VERSION], one of TFDS's or of files in `data_dir`.

    Raises:
        UserError: there is none; the message has the nearest names. `spec` is the user's input.
    """
    base, _, config = name.partition(":")[0].partition("/")
    try:
        known = tfds.list_builders(with_community_datasets=False)
        configs = list(tfds.builder_cls(base).builder_configs) if base in known else []
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(base.lower(), known)
        hint = f"did you mean {' or '.join(near)}?" if near else "see tensorflow.org/datasets"
        raise UserError(f"{spec}: TFDS has no such data set: {hint}") from error
    # An unknown config or version, or a package which the data set needs: TFDS raises ValueError,
    # AssertionError or ImportError, and says which.
    except (ValueError, AssertionError, ImportError) as error:
        if config and configs and config not in configs:
            near = difflib.get_close_matches(config, configs, n=4) or configs
            raise UserError(
                f"{spec}: {base} has no config {config}: use {' or '.join(near)}"
            ) from error
        raise UserError(f"{spec}: {one_line(error)}") from error


def prepare(
    make: Callable[[], tfds.core.DatasetBuilder], spec: str, *, quiet: bool
) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set on disk, which is prepared as ArrayRecord where missing.

    Args:
        make: returns the builder; called again once the files exist.
        spec: the user's input, for messages.
        quiet: whether to keep TFDS's own reports from the terminal.

    Raises:
        UserError: it could not be downloaded or prepared.
    """
    builder = make()
    if _is_prepared(builder):
        return builder
    config = tfds.download.DownloadConfig(try_download_gcs=False)  # GCS has TFRecord only
    failure: Exception | str = "it exists but is incomplete: delete it"
    # TFDS reports to standard output, which belongs to the program's results.
    report = io.StringIO() if quiet else sys.stderr
    try:
        with (
            contextlib.redirect_stdout(report),
            contextlib.redirect_stderr(report),
            tensorflow_stand_in(),
        ):
            builder.download_and_prepare(download_config=config, file_format="array_record")
    # Download, unpacking and the data set's own code can raise anything; a bug there only means
    # that this data set is not available.
    except Exception as error:
        failure = error
    # Made anew, and asked even after a failure: TFDS writes beside the final place and renames, so
    # of two processes the second is refused, and finds the data whole.
    builder = make()
    if not _is_prepared(builder):
        raise UserError(
            f"{spec}: could not be prepared in {builder.data_path}: {one_line(failure)}; fix "
            "that and try again, or set config.data.tfds_dir to where it is already prepared"
        ) from (failure if isinstance(failure, Exception) else None)
    return builder


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # Checked first, because TFDS warns about a missing folder.
    return builder.data_path.exists() and builder.is_prepared()


class _StandIn(types.SimpleNamespace):
    """A namespace that says what is missing when an attribute is."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"preparing it needs TensorFlow ({name}), which is not installed")


@contextlib.contextmanager
def tensorflow_stand_in() -> Iterator[None]:
    """Lend TFDS the file functions of `tf.io.gfile` where TensorFlow is not installed.

    TFDS unpacks archives, and many of its builders (DIV2K's among them) list folders, through
    `tf.io.gfile`; nothing else of TensorFlow is needed to write ArrayRecord.
    """
    if importlib.util.find_spec("tensorflow"):
        yield
        return
    gfile = _StandIn(
        GFile=lambda path, mode="r": epath.Path(path).open(mode),
        exists=lambda path: epath.Path(path).exists(),
        glob=lambda pattern: [os.fspath(p) for p in epath.Path().glob(os.fspath(pattern))],
        isdir=lambda path: epath.Path(path).is_dir(),
        listdir=lambda path: [p.name for p in epath.Path(path).iterdir()],
        walk=os.walk,
    )
    as_text = _StandIn(as_text=os.fsdecode)
    # The cached value behind TFDS's lazy import, not sys.modules: nothing but TFDS may believe that
    # TensorFlow is installed.
    lazy: Any = vars(lazy_imports_utils.tensorflow)
    lazy["_module"] = _StandIn(io=_StandIn(gfile=gfile), compat=as_text)
    try:
        yield
    finally:
        lazy.pop("_module", None)
