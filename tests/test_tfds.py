"""TFDS data sets without TensorFlow: their images are found, their faults told in one line."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import lazy_imports_utils

from isr_jax.data import prepare
from isr_jax.data.loading import load_all
from isr_jax.data.sources import open_source
from tests.helpers.encoded import encode, error_of, noise


class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS data set of HR and LR images, a mask to be overlooked, and a few other features."""

    VERSION = tfds.core.Version("1.2.3")

    def _info(self):
        features = {
            "a_mask": tfds.features.LabeledImage(labels=2, shape=(None, None, 1)),
            "hr": tfds.features.Image(),
            "label": tfds.features.ClassLabel(num_classes=2),
            "lr": tfds.features.Image(),
            "zoom": tfds.features.Image(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(2)}

    def _generate_examples(self, n):
        for i in range(n):
            image = encode(noise(30, 22, seed=i))
            lr = encode(noise(8, 6, seed=100 + i))  # 30/4 and 22/4, rounded up as MATLAB does
            mask = encode(np.zeros((30, 22), np.uint8))
            yield i, {"hr": image, "lr": lr, "a_mask": mask, "label": 1, "zoom": lr}


class Texts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": iter([(0, {"text": "a"})])}

    def _generate_examples(self):
        return iter(())


@pytest.fixture(scope="module")
def prepared(tfds_dir):
    """A folder with data sets that TFDS has no code for."""
    for builder in (Pairs(data_dir=tfds_dir), Texts(data_dir=tfds_dir)):
        builder.download_and_prepare(file_format="array_record")
    return tfds_dir


class TestTfds:
    def test_reads_prepared_files_without_their_code(self, prepared):
        source = open_source("tfds:pairs", "train", scale=4, tfds_dir=prepared)
        images = {noise(30, 22, seed=i).tobytes(): i for i in range(10)}
        found = set()
        for photo in map(source.load, range(len(source))):
            (i,) = {i for i in range(10) if (noise(30, 22, seed=i)[:28, :20] == photo.hr).all()}
            found.add(i)
            np.testing.assert_array_equal(photo.lr, noise(8, 6, seed=100 + i)[:7, :5])
        assert len(found) == len(images) == 10
        assert source.load(3).name == "tfds:pairs[3]"

    def test_its_own_lr_images_are_kept(self, prepared):
        source = open_source("tfds:pairs", "train", scale=4, tfds_dir=prepared)
        photos = load_all(source, min_size=20, warn=pytest.fail)
        np.testing.assert_array_equal(photos[0].lr, source.load(0).lr)

    @pytest.mark.parametrize(
        ("spec", "split", "length"),
        [
            ("tfds:pairs", "train", 10),
            ("tfds:pairs", "validation", 2),
            ("tfds:pairs:1.2.3", "train", 10),
            ("tfds:pairs:1.*.*:test", "train", 2),
            ("tfds:pairs:train[:80%]", "train", 8),
            ("tfds:pairs:train[8:]", "validation", 2),
            ("tfds:pairs:train+test", "train", 12),
        ],
    )
    def test_splits_and_versions(self, prepared, spec, split, length):
        assert len(open_source(spec, split, scale=4, tfds_dir=prepared)) == length

    def test_survives_pickling(self, prepared, tmp_path):
        (tmp_path / "a.png").write_bytes(encode(noise(8, 8)))
        for spec in ("tfds:pairs", f"folder:{tmp_path}"):
            source = open_source(spec, "train", scale=4, tfds_dir=prepared)
            again = pickle.loads(pickle.dumps(source))
            np.testing.assert_array_equal(again.load(0).hr, source.load(0).hr)

    def test_mistakes_are_told_in_one_line(self, prepared):
        def open_(spec, *, split="train", scale=4):
            return error_of(lambda: open_source(spec, split, scale=scale, tfds_dir=prepared))

        assert "did you mean div2k" in open_("tfds:div2")
        assert "did you mean div2k" in open_("tfds:DIV2K")
        assert "no config bicubic_x5: use bicubic_x" in open_("tfds:div2k/bicubic_x5")
        assert "9.9.9" in open_("tfds:div2k/bicubic_x4:9.9.9")
        assert "nothing to read in nowhere (the splits are train" in open_("tfds:pairs:nowhere")
        assert "nothing to read in train[:80%" in open_("tfds:pairs:train[:80%")
        assert "nothing to read in train[:0]" in open_("tfds:pairs:train[:0]")
        assert "holds no images" in open_("tfds:texts")
        assert "no validation or test split" in open_("tfds:texts", split="validation")
        assert "is not tfds:NAME" in open_("tfds:pairs:1.2.3:")
        wrong = open_("tfds:pairs", scale=2)
        assert "LR image is 6x8" in wrong and "a scale of 2 has LR of 11x15" in wrong

    def test_tfrecord_has_no_random_access(self, tmp_path):
        builder = Pairs(data_dir=tmp_path)
        builder.download_and_prepare(file_format="array_record")
        info = Path(builder.data_dir) / "dataset_info.json"
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
        for file in Path(builder.data_dir).glob("*.array_record*"):
            file.rename(str(file).replace("array_record", "tfrecord"))
        message = error_of(
            lambda: open_source("tfds:pairs", "train", scale=4, tfds_dir=str(tmp_path))
        )
        assert "as tfrecord" in message and str(builder.data_dir) in message

    def test_an_incomplete_folder_is_pointed_at(self, tmp_path):
        (tmp_path / "div2k" / "bicubic_x4" / "2.0.0").mkdir(parents=True)
        message = error_of(
            lambda: open_source("tfds:div2k/bicubic_x4", "train", scale=4, tfds_dir=str(tmp_path))
        )
        assert "incomplete: delete it" in message


def test_the_stand_in_is_the_private_attribute_by_which_tfds_finds_tensorflow():
    """TFDS's lazy module looks at `_module` first; a version that does not must be adapted to."""
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed, so nothing stands in for it")
    lazy = lazy_imports_utils.tensorflow
    with prepare.tensorflow_stand_in():
        assert lazy.io is vars(lazy)["_module"].io, "no longer found by the attribute _module"
        with pytest.raises(AttributeError, match=r"needs TensorFlow \(data\)"):
            _ = lazy.data
    assert "_module" not in vars(lazy)
