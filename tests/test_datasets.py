"""Other sets of images and labels are trained on, or refused in one line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import lines, make_dataset, pictures
from tensorflow_datasets.testing import mocking

from train import horses
from train.data import catalog, read
from train.engine import checkpoint
from train.engine.step import weighted_totals
from train.tasks.cnn import CNN
from train.tasks.scores import cross_entropy


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [
        ("cifar10", 10, (96, 96, 3)),
        ("rock_paper_scissors", 3, (300, 300, 3)),
        ("mnist", 10, (96, 96, 1)),
        ("beans", 3, (500, 500, 3)),
        ("oxford_flowers102", 102, (300, 300, 3)),
    ],
)
def test_mocked_data_sets_are_read_by_their_metadata(
    tmp_path, monkeypatch, name, classes, shape
):
    array_record = tfds.core.FileFormat.ARRAY_RECORD  # what we prepare
    monkeypatch.setattr(tfds.core.DatasetInfo, "file_format", array_record)
    # TFDS's mock of a source is called with no self for this method, unlike its others.
    some = functools.partial(mocking._getitems, None)
    monkeypatch.setattr(mocking, "_getitems", some)
    with tfds.testing.mock_data(num_examples=3):
        builder = catalog.find(name, tmp_path)
        catalog.check_features(builder, catalog.IMAGES)
        split = read.read_split(builder, "train", horses.ENLARGE)
    assert split.images.shape == (3, *shape)
    assert split.images.dtype == np.uint8
    assert builder.info.features["label"].num_classes == classes
    assert ((split.labels >= 0) & (split.labels < classes)).all()


@pytest.mark.parametrize(
    ("declared", "kept"),
    [
        ((300, 300, 3), (300, 300, 3)),
        ((94, 200, 3), (94, 200, 3)),
        ((93, 94, 3), (96, 97, 3)),
        ((32, 64, 1), (96, 192, 1)),
        ((None, None, 3), (300, 300, 3)),
        ((200, 200, 4), (200, 200, 3)),
    ],
)
def test_images_are_kept_at_their_size_unless_the_network_cannot_take_them(
    declared, kept
):
    assert read.image_shape(declared, horses.ENLARGE) == kept


def test_resampling_is_pillows_for_color_and_gray():
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        image = rng.integers(0, 256, (10, 20, channels), np.uint8)
        larger = read.resize(image, (30, 40, channels))
        assert larger.shape == (30, 40, channels)
        assert abs(larger.mean() - image.mean()) < 3
        flat = np.full((10, 20, channels), 7, np.uint8)
        assert (read.resize(flat, (30, 40, channels)) == 7).all()


def test_softmax_totals_are_by_hand():
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [2.0, 0.0, 0.0]])
    labels, weights = np.array([1, 0, 2]), np.array([1.0, 1.0, 0.0])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses = -np.log(probabilities[np.arange(3), labels])
    scores = cross_entropy(jnp.array(logits, jnp.float32), jnp.array(labels, jnp.int32))
    totals = weighted_totals(scores, jnp.array(weights, jnp.float32))
    np.testing.assert_allclose(totals.loss, losses[:2].sum(), rtol=1e-6)
    assert float(totals.score) == 1.0


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_head_has_one_output_a_class_but_one_for_two(classes):
    images = jnp.zeros((2, 94, 94, 3))
    model = CNN(classes)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs = 1 if classes == 2 else classes
    assert variables["params"]["Dense_1"]["kernel"].shape == (512, outputs)
    logits = jax.eval_shape(model.apply, variables, images)
    assert logits.shape == ((2,) if classes == 2 else (2, classes))


@pytest.fixture(scope="module")
def three_classes(run_small, tmp_path_factory):
    """A run on gray images of three classes, with "validation" as held-out split."""
    path = tmp_path_factory.mktemp("three")
    shape = (40, 48, 1)
    train = [(image[..., 0], label) for image, label in pictures(12, shape, 3)]
    held_out = [(image[..., 0], label) for image, label in pictures(5, shape, 3)]
    make_dataset(path, {"train": train, "validation": held_out}, shape, 3, "grays")
    done = run_small(
        "--gc", "--dataset=grays", f"--data-dir={path}", "--epochs=2",
        "--batch-size=5", f"--workdir={path / 'run'}",
    )  # fmt: skip
    return path / "run", done


def test_a_run_on_three_classes(three_classes):
    workdir, done = three_classes
    assert done.returncode == 0, done.stderr
    assert "12 training and 5 test images, (96, 115, 1) uint8" in done.stdout
    params = checkpoint.load_params(workdir / "params")
    assert params["Conv_0"]["kernel"].shape == (8, 8, 1, 16)
    assert params["Dense_0"]["kernel"].shape[1] == 3
    for epoch in lines(workdir, "metrics.jsonl"):
        assert 0 < epoch["train_loss"] < 2 * np.log(3)
        assert 0 <= epoch["test_accuracy"] <= 1


def test_parameters_for_other_classes_are_refused(
    three_classes, small_data_dir, tmp_path, capsys
):
    workdir, _ = three_classes
    args = [
        "--dataset=pictures", f"--data-dir={small_data_dir}", "--batch-size=4",
        f"--init-from={workdir}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert horses.main(args) == 2
    assert "--init-from must be a run on images of (94, 94, 3) with 2 classes" in (
        capsys.readouterr().err
    )
