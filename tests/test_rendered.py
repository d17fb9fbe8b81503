"""The embedded dataset: fixed pictures, the sizes of the official one, no easy cue."""

import hashlib
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from train import data
from train.data import cues, prepare, read, rendered
from train.data.drawing import pool, scene
from train.data.drawing.builder import Rendered

STRIDE = {"train": 3, "test": 2}  # of the pictures, every third and every other one
DRAWN = {"train": (167, 176), "test": (64, 64)}  # horses and humans


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """A part of the data set, prepared."""
    builder = Rendered(data_dir=tmp_path_factory.mktemp("tensorflow_datasets"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "draw_all", draw_a_part)
        return prepare.prepare(builder)


def draw_a_part(split, indices, draw_all=pool.draw_all):
    return draw_all(split, indices[:: STRIDE[split]])


@pytest.fixture(scope="module")
def splits(builder):
    splits = {split: read.read_split(builder, split) for split in ("train", "test")}
    return {name: (split.images, split.labels) for name, split in splits.items()}


@pytest.mark.parametrize(
    ("split", "index", "digest"),
    [
        ("train", 0, "6e6e226c2c027f44"),
        ("train", 7, "89ea06cea23b9849"),
        ("train", 500, "bd6756b12f7090c5"),
        ("train", 1026, "09085a2d2867885a"),
        ("test", 0, "dca5c2e6cfb3a4d8"),
        ("test", 255, "8bea353b45143633"),
    ],
)
def test_picture_has_the_same_bytes_on_every_machine(split, index, digest):
    picture, _ = scene.draw(split, index)
    assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == digest


def test_png_holds_the_picture_without_loss():
    png, label = scene.draw_png("test", 3)
    picture, drawn_label = scene.draw("test", 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), picture)
    assert label == drawn_label


def test_splits_do_not_share_pictures():
    assert not np.array_equal(scene.draw("train", 0)[0], scene.draw("test", 0)[0])


def test_the_sizes_are_those_of_horses_or_humans():
    assert scene.SPLITS == {"train": (500, 527), "test": (128, 128)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_has_its_sizes(builder, splits, split):
    images, labels = splits[split]
    assert images.shape == (sum(DRAWN[split]), 300, 300, 3)
    assert images.dtype == np.uint8
    assert tuple(np.bincount(labels)) == DRAWN[split]
    assert builder.info.splits[split].num_examples == sum(DRAWN[split])


def test_label_names_are_in_the_order_of_horses_or_humans(builder):
    assert builder.info.features["label"].names == ["horses", "humans"]


def test_prepared_images_are_those_drawn_and_shuffled(splits):
    drawn = [scene.draw("test", i)[0].tobytes() for i in (6, 200)]
    stored = [image.tobytes() for image in splits["test"][0]]
    labels = splits["test"][1]
    assert [labels[stored.index(image)] for image in drawn] == [0, 1]
    assert set(labels[:30]) == {0, 1}


def test_prepared_data_is_not_drawn_again(builder, monkeypatch):
    def refuse(*_):
        raise AssertionError("drew images that were on disk")

    monkeypatch.setattr(pool, "draw_all", refuse)
    again = Rendered(data_dir=builder.data_dir_root)
    again = prepare.prepare(again)
    assert len(again.as_data_source("test")) == sum(DRAWN["test"])


@pytest.mark.parametrize(
    ("side", "bound"), [(1, 0.60), (16, 0.80)], ids=["mean_colour", "thumbnail"]
)
def test_linear_classifier_finds_no_trivial_cue(splits, side, bound):
    train, test = (
        (cues.thumbnails(images, side), labels)
        for images, labels in (splits["train"], splits["test"])
    )
    assert cues.best_test_accuracy(train, test) < bound


def test_linear_classifier_finds_a_cue_that_is_there():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = rng.normal(size=(200, 5)) + 2 * labels[:, None]
    train, test = (features[:100], labels[:100]), (features[100:], labels[100:])
    assert cues.best_test_accuracy(train, test) > 0.9


def test_thumbnail_is_the_mean_of_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    features = cues.thumbnails(image[None], 16)
    assert features.shape == (1, 16 * 16 * 3)
    np.testing.assert_allclose(features[0, :3], image[:18, :18].mean((0, 1)))
    np.testing.assert_allclose(features[0, -3:], image[281:, 281:].mean((0, 1)))


def test_contact_sheet_has_the_rows_and_columns_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    monkeypatch.setattr("sys.argv", ["rendered", str(path), "--rows=1", "--columns=2"])
    rendered.main()
    with Image.open(path) as sheet:
        assert sheet.size == (300, 150)


FEW = """
import pathlib, sys
from train import data
from train.data.drawing import scene
scene.SPLITS = {"train": (1, 0), "test": (1, 0)}
print("pictures:", len(data.load("rendered", pathlib.Path(sys.argv[1])).train))
"""


@pytest.mark.parametrize("way", ["script", "standard input"])
def test_drawing_needs_nothing_of_the_main_module(tmp_path, way):
    """A program from standard input has no file that a new process could import."""
    (tmp_path / "script.py").write_text(FEW)
    program, text = (tmp_path / "script.py", "") if way == "script" else ("-", FEW)
    done = subprocess.run(
        [sys.executable, "-W", "error", program, tmp_path / "data"],
        input=text, capture_output=True, text=True, timeout=100, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(data.__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pictures: 1\n" in done.stdout


def test_a_process_that_cannot_draw_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "__init__.py").write_text("raise SystemExit('no memory')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    message = r"^a drawing process ended early \(no memory\)\. Try again\.$"
    with pytest.raises(data.DataError, match=message):
        list(pool.draw_all("test", range(3)))


def test_drawing_preparing_and_reading_need_no_tensorflow(splits):
    assert splits
    assert "tensorflow" not in sys.modules
