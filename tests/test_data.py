"""Images through TensorFlow Datasets: which, and exactly as published."""

import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds

from train import data
from train.data import catalog, read

RAW = tfds.decode.DeserializeMethod.RAW_BYTES


@pytest.fixture(scope="module")
def dataset(data_dir):
    return data.load("horses_or_humans", data_dir)


def test_the_official_archives_become_arrays_without_alpha(dataset, images):
    assert dataset.name == "horses_or_humans/3.0.0"
    assert dataset.class_names == ("horses", "humans")
    for split, originals in ((dataset.train, "train"), (dataset.test, "test")):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(images[originals]), 300, 300, 3)
        expected = {image[..., :3].tobytes() for image in images[originals]}
        assert {image.tobytes() for image in split.images} == expected


def test_horses_are_0_and_humans_are_1(dataset):
    is_bright = dataset.train.images.mean((1, 2, 3)) > 100
    np.testing.assert_array_equal(dataset.train.labels, is_bright)
    assert dataset.train.labels.dtype == np.int32


def test_the_prepared_folder_is_the_official_one(dataset, data_dir):
    folder = data_dir / "horses_or_humans" / "3.0.0"
    assert (folder / "dataset_info.json").exists()
    official = tfds.builder("horses_or_humans", data_dir=data_dir)
    assert official.is_prepared()
    assert len(official.as_data_source("train")) == len(dataset.train)


@pytest.mark.usefixtures("no_network", "dataset")
def test_prepared_images_are_used_as_they_are(data_dir):
    archives = list((data_dir / "downloads").iterdir())
    for path in archives:
        path.rename(path.with_name(f"away-{path.name}"))
    again = data.load("auto", data_dir)
    for path in archives:
        path.with_name(f"away-{path.name}").rename(path)
    assert again.name == "horses_or_humans/3.0.0"
    assert again.reason == f"found prepared in {data_dir}"


def test_images_prepared_as_tfrecords_are_read_too(dataset, data_dir, tmp_path):
    source = data_dir / "horses_or_humans" / "3.0.0"
    target = tmp_path / "horses_or_humans" / "3.0.0"
    target.mkdir(parents=True)
    for path in source.glob("*.json"):
        text = path.read_text().replace("array_record", "tfrecord")
        (target / path.name).write_text(text)
    builder = tfds.builder("horses_or_humans", data_dir=data_dir)
    for split in ("train", "test"):
        name = f"horses_or_humans-{split}.tfrecord-00000-of-00001"
        with (target / name).open("wb") as file:
            for record in builder.as_data_source(split, deserialize_method=RAW):
                file.write(struct.pack("<QI", len(record), 0) + record + bytes(4))
    again = data.load("horses_or_humans", tmp_path)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    np.testing.assert_array_equal(again.train.labels, dataset.train.labels)


@pytest.mark.parametrize("kept", [5, 20, 36])
def test_a_cut_tfrecord_file_is_an_error(tmp_path, kept):
    path = tmp_path / "records"
    record = struct.pack("<QI", 8, 0) + b"8 bytes." + bytes(4)
    path.write_bytes((record + record)[:kept])
    with pytest.raises(data.DataError, match=f"{path} ends inside a record. Delete"):
        list(read.tfrecords(path))


@pytest.mark.usefixtures("no_network")
def test_without_a_server_auto_means_the_embedded_images(tmp_path):
    builder, reason = catalog.choose("auto", tmp_path)
    assert builder.name == "rendered"
    assert f"not prepared in {tmp_path} and its server cannot be reached (" in reason
    assert "insist with --dataset horses_or_humans" in reason
