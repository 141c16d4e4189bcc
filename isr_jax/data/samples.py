"""The embedded sample photographs, as a TFDS data set.

scikit-image ships a handful of freely licensed photographs inside its wheel. They make a data set
small enough to try everything on, offline: enough to see a network learn, far too few for a paper.
"""

from collections.abc import Iterator
from pathlib import Path

import skimage.data
import tensorflow_datasets as tfds

from isr_jax.errors import UserError

# What a network can learn from. Left out: drawings and silhouettes (chessboards, phantom, color,
# horse, logo), blurred by motion or focus (clock_motion, text), and images which bicubic already
# upscales almost without error, whose crops would teach next to nothing (cell, moon, retina).
TRAIN = (
    "astronaut.png",  # NASA, public domain
    "brick.png",  # CC0Textures, CC0
    "grass.png",  # linolafett, CC0
    "gravel.png",  # CC0Textures, CC0
    "hubble_deep_field.jpg",  # NASA, public domain
    "ihc.png",  # CMMI, no known copyright restrictions
    "motorcycle_left.png",  # Middlebury stereo pair: both sides stay on one side of the split
    "motorcycle_right.png",
    "page.png",  # scikit-image, BSD-3-Clause
    "rocket.jpg",  # SpaceX, public domain
)
VALIDATION = (
    "camera.png",  # Lav Varshney, CC0
    "chelsea.png",  # Stefan van der Walt, CC0
    "coffee.png",  # Rachel Michetti, CC0
    "coins.png",  # Brooklyn Museum, no known copyright restrictions
)

DESCRIPTION = """\
Fourteen photographs from scikit-image's wheel (skimage.data), 10 to train on and 4 to validate on,
no scene in both. Public domain or CC0: astronaut and hubble_deep_field (NASA), rocket (SpaceX),
brick and gravel (CC0Textures), grass (linolafett), camera (Lav Varshney), chelsea (Stefan van der
Walt), coffee (Rachel Michetti). No known copyright restrictions: coins (Brooklyn Museum), ihc
(Center for Microscopy and Molecular Imaging). motorcycle_left and motorcycle_right are a pair of
the Middlebury 2014 stereo benchmark; page comes with scikit-image (BSD-3-Clause)."""


class IsrSamples(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The sample photographs as `{"image", "name"}`, splits train (10) and validation (4).

    It is not registered by name: importing a module must change nothing elsewhere. Images are
    handed over as paths, for a NumPy image would make TFDS import TensorFlow.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(), "name": tfds.features.Text()}
            ),
            homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # everything is on this disk already
        return {
            "train": self._generate_examples(TRAIN),
            "validation": self._generate_examples(VALIDATION),
        }

    def _generate_examples(self, files: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
        folder = Path(skimage.data.__file__).parent
        for file in files:
            if not (folder / file).is_file():
                raise UserError(f"scikit-image ships no {file}: reinstall scikit-image")
            yield file, {"image": folder / file, "name": file}
