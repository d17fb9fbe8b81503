"""TFDS's own builders, on small archives of the published formats, by themselves."""

import contextlib
import gzip
import io
import os
import pathlib
import sys
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import zipped
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.image_classification import mnist

from train import data
from train.data import catalog, prepare, standin
from train.faults import UsageError
from train.study.folds import stage

SIZES = {"train": 5, "test": 3}


def idx(header: int, values: np.ndarray) -> bytes:
    """Returns bytes behind a header, as the files of MNIST are, compressed."""
    return gzip.compress(bytes(header) + values.tobytes())


def tar_gz(files: dict[str, bytes]) -> bytes:
    """Returns a compressed tar archive of files by their paths."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as writer:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            writer.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def mnist_files(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]):
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(16, images[split])
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx(8, labels[split])
    return files


def cifar_records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """Returns each image's labels and its planes."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.column_stack([*labels, planes]).tobytes()


def cifar10_files(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]):
    folder = "cifar-10-batches-bin"
    names = "\n".join(f"class {i}" for i in range(10))
    files = {f"{folder}/batches.meta.txt": names.encode()}
    for i in range(SIZES["train"]):
        records = cifar_records(images["train"][i : i + 1], labels["train"][i : i + 1])
        files[f"{folder}/data_batch_{i + 1}.bin"] = records
    records = cifar_records(images["test"], labels["test"])
    files[f"{folder}/test_batch.bin"] = records
    return {"cifar-10-binary.tar.gz": tar_gz(files)}


def cifar100_files(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]):
    folder = "cifar-100-binary"
    files = {}
    for kind, count in (("coarse", 20), ("fine", 100)):
        names = "\n".join(f"{kind} {i}" for i in range(count))
        files[f"{folder}/{kind}_label_names.txt"] = names.encode()
    for split, fine in labels.items():
        records = cifar_records(images[split], fine // 5, fine)
        files[f"{folder}/{split}.bin"] = records
    return {"cifar-100-binary.tar.gz": tar_gz(files)}


SETS = {
    "mnist": (mnist_files, (28, 28, 1), 10),
    "fashion_mnist": (mnist_files, (28, 28, 1), 10),
    "kmnist": (mnist_files, (28, 28, 1), 10),
    "cifar10": (cifar10_files, (32, 32, 3), 10),
    "cifar100": (cifar100_files, (32, 32, 3), 100),
}
FIRST_CLASS = {
    "mnist": "0",
    "fashion_mnist": "T-shirt/top",
    "kmnist": "o",
    "cifar10": "class 0",
    "cifar100": "fine 0",
}


def arrays(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns random images and labels of each split."""
    _, shape, classes = SETS[name]
    rng = np.random.default_rng(0)
    images = {
        split: rng.integers(0, 256, (n, *shape), np.uint8) for split, n in SIZES.items()
    }
    labels = {
        split: rng.integers(0, classes, n, np.uint8) for split, n in SIZES.items()
    }
    return images, labels


@pytest.fixture
def small_mnist(monkeypatch):
    """Has TFDS expect as many images as our archives of MNIST's format have."""
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", SIZES["train"])
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", SIZES["test"])


@pytest.mark.usefixtures("small_mnist", "no_network")
@pytest.mark.parametrize("name", SETS)
def test_images_prepare_themselves_without_tensorflow(tmp_path, name):
    images, labels = arrays(name)
    files, shape, classes = SETS[name]
    stage(tmp_path, name, files(images, labels))
    dataset = data.load(name, tmp_path)
    assert dataset.image_shape == shape
    assert len(dataset.class_names) == classes
    assert dataset.class_names[0] == FIRST_CLASS[name]
    for split, read in (("train", dataset.train), ("test", dataset.test)):
        pairs = zip(images[split], labels[split], strict=True)
        published = {(image.tobytes(), int(label)) for image, label in pairs}
        pairs = zip(read.images, read.labels, strict=True)
        assert {(image.tobytes(), int(label)) for image, label in pairs} == published
        assert len(read) == SIZES[split]
    assert tfds.builder(name, data_dir=tmp_path).is_prepared()
    assert "tensorflow" not in sys.modules


TEXT = "First Citizen:\r\nBefore we proceed, é, hear me speak.\n" * 2


@pytest.mark.usefixtures("no_network")
def test_text_prepares_itself_without_tensorflow_to_the_byte(tmp_path):
    stage(tmp_path, "tiny_shakespeare", {"input.txt": TEXT.encode()})
    text = data.load_text("tiny_shakespeare", tmp_path)
    assert text.name == "tiny_shakespeare/1.0.0"
    splits = (text.train, text.validation, text.test)
    assert {split.dtype for split in splits} == {np.dtype(np.uint8)}
    lengths = [len(split.tobytes().decode()) for split in splits]
    assert lengths == [95, 5, 6]  # characters: 90, 5 and 5 % of 106
    assert b"".join(split.tobytes() for split in splits) == TEXT.encode()


def test_tfds_is_as_it_was_once_all_is_prepared(tmp_path):
    before = extractor.tf, mnist.tf, image_feature._ImageEncoder._encode_image
    builder = tfds.builder("mnist", data_dir=tmp_path)
    with standin.for_tensorflow(builder):
        assert extractor.tf is mnist.tf is standin.TENSORFLOW
    assert before == (extractor.tf, mnist.tf, image_feature._ImageEncoder._encode_image)


@pytest.mark.usefixtures("small_mnist", "no_network")
def test_images_are_enlarged_only_where_the_caller_says_so(tmp_path):
    images, labels = arrays("mnist")
    stage(tmp_path, "mnist", mnist_files(images, labels))
    assert data.load("mnist", tmp_path, (29, 56)).image_shape == (56, 56, 1)
    assert data.load("mnist", tmp_path, (28, 56)).image_shape == (28, 28, 1)


@pytest.mark.usefixtures("small_mnist")
def test_a_cut_archive_is_said_to_be_damaged(tmp_path):
    files = mnist_files(*arrays("mnist"))
    stage(tmp_path, "mnist", {name: file[:-20] for name, file in files.items()})
    with pytest.raises(data.DataError, match=r"could not be prepared .*delete it"):
        data.load("mnist", tmp_path)


def test_a_builder_that_needs_more_of_tensorflow_says_so(tmp_path):
    archive = zipped({"Kather_texture_2016_image_tiles_5000/01_TUMOR/1.tif": b""})
    files = {"Kather_texture_2016_image_tiles_5000.zip": archive}
    stage(tmp_path, "colorectal_histology", files)
    needs_tensorflow = (
        r"colorectal_histology could not be prepared \(ModuleNotFoundError: No module "
        r"named 'tensorflow'\)\. It needs TensorFlow: prepare it once with "
        rf"`tfds build colorectal_histology --data_dir {tmp_path}` where"
    )
    with pytest.raises(data.DataError, match=needs_tensorflow):
        data.load("colorectal_histology", tmp_path)


def test_unpacking_that_needs_tensorflow_is_not_called_damage(tmp_path, monkeypatch):
    stage(tmp_path, "mnist", mnist_files(*arrays("mnist")))
    message = r"ExtractError.*needs TensorFlow: .*`tfds build mnist"
    monkeypatch.setattr(standin, "for_tensorflow", contextlib.nullcontext)
    with pytest.raises(data.DataError, match=message) as told:
        data.load("mnist", tmp_path)
    assert "damaged" not in str(told.value)


def test_another_package_that_is_missing_is_named(tmp_path):
    class Audio(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "audio"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return tfds.core.lazy_imports.crepe

        def _generate_examples(self):
            raise NotImplementedError

    message = r"No module named 'crepe'.* Install what is missing, then try again"
    with pytest.raises(data.DataError, match=message):
        prepare.prepare(Audio(data_dir=tmp_path))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("load", "name"),
    [(data.load, "fashion_mnist"), (data.load_text, "tiny_shakespeare")],
)
def test_without_data_and_network_one_line_says_how_to_get_it(tmp_path, load, name):
    with pytest.raises(data.DataError) as told:
        load(name, tmp_path)
    assert str(told.value) == (
        f"{name} is not prepared in {tmp_path} and its server cannot be reached "
        "([Errno 111] Connection refused). Connect to the internet, or give the folder "
        "of prepared data with --data-dir."
    )


def test_images_are_not_taken_for_text(tmp_path):
    with pytest.raises(
        UsageError, match=r"needs the features text \(Text\), got mnist"
    ):
        data.load_text("mnist", tmp_path)


def test_what_a_killed_drawing_left_is_removed_and_what_others_download_is_not(
    tmp_path,
):
    drawn = prepare.Rendered(data_dir=tmp_path)
    left = pathlib.Path(drawn.data_dir).parent / f"incomplete.ABC_{drawn.version}"
    other = pathlib.Path(catalog.HorsesOrHumans(data_dir=tmp_path).data_dir)
    theirs = other.parent / f"incomplete.ABC_{other.name}"
    for folder in (left, theirs):
        folder.mkdir(parents=True)
    prepare.remove_unfinished(drawn)
    prepare.remove_unfinished(catalog.HorsesOrHumans(data_dir=tmp_path))
    assert (left.exists(), theirs.exists()) == (False, True)
    os.utime(theirs, (0, 0))  # untouched for more than an hour
    prepare.remove_unfinished(catalog.HorsesOrHumans(data_dir=tmp_path))
    assert not theirs.exists()
