"""The drawn data set as a TFDS builder."""

import io
from collections.abc import Iterator

import rich.console
import rich.progress
import tensorflow_datasets as tfds

from train.data.drawing import pool, scene


class Rendered(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Drawn horses and humans, shaped like TFDS's ``horses_or_humans``.

    It has the same features, split sizes and class balance, and needs neither internet
    access nor TensorFlow. It is a different data set: do not compare its figures with
    published ones.
    """

    name = "rendered"
    VERSION = tfds.core.Version(scene.VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (scene.SIZE, scene.SIZE, 3)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn horses and humans.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape),
                    "label": tfds.features.ClassLabel(names=scene.NAMES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in scene.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        count = sum(scene.SPLITS[split])
        for index, (png, label) in enumerate(_drawn_with_a_bar(split, count)):
            yield index, {"image": io.BytesIO(png), "label": label}


def _drawn_with_a_bar(split: str, count: int) -> Iterator[tuple[bytes, int]]:
    console = rich.console.Console(stderr=True)
    return rich.progress.track(
        pool.draw_all(split, range(count)),
        description=f"Drawing {split} images",
        total=count,
        console=console,
        disable=not console.is_terminal,
    )
