"""The embedded dataset as a TFDS builder, and its contact sheet.

python -m train.data.rendered contact.png --rows 6 --columns 8
"""

import argparse
import concurrent.futures
import io
import multiprocessing
import pathlib
from collections.abc import Iterator

import rich.console
import rich.progress
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from train.data.drawing import scene


class Rendered(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Drawn horses and humans, shaped like TFDS's ``horses_or_humans``.

    The same features, split sizes and class balance, from no network and without
    TensorFlow. Not for comparing with published figures: it is another dataset.

    Images are drawn by one process per core, started by "spawn": JAX may already run
    threads in this process, which a fork would break. As always with spawn, a script
    that prepares it needs its ``if __name__ == "__main__":``.
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
        for index, (png, label) in enumerate(_draw_all(split, range(count))):
            yield index, {"image": io.BytesIO(png), "label": label}


def _draw_all(split: str, indices: range) -> Iterator[tuple[bytes, int]]:
    """Yields each image as PNG, and its label, in order, drawn on all cores."""
    spawn = multiprocessing.get_context("spawn")
    console = rich.console.Console(stderr=True)
    with concurrent.futures.ProcessPoolExecutor(mp_context=spawn) as pool:
        yield from rich.progress.track(
            pool.map(scene.draw_png, [split] * len(indices), indices, chunksize=4),
            description=f"Drawing {split} images",
            total=len(indices),
            console=console,
            disable=not console.is_terminal,
        )


def contact_sheet(rows: int, columns: int, side: int = 150) -> Image.Image:
    """Returns a grid of training images, horses and humans in turn, with labels."""
    sheet = Image.new("RGB", (columns * side, rows * side))
    pen = ImageDraw.Draw(sheet)
    for cell in range(rows * columns):
        label = cell % 2
        index = cell // 2 + label * scene.SPLITS["train"][0]
        image, label = scene.draw("train", index)
        corner = (cell % columns * side, cell // columns * side)
        tile = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(tile, corner)
        pen.text(
            (corner[0] + 5, corner[1] + 3),
            scene.NAMES[label].removesuffix("s"),
            fill="white",
            stroke_fill="black",
            stroke_width=2,
        )
    return sheet


def main() -> None:
    """Writes a contact sheet."""
    parser = argparse.ArgumentParser(description="Draw a contact sheet of the dataset.")
    parser.add_argument("path", type=pathlib.Path, help="the PNG to write")
    parser.add_argument("--rows", type=int, default=6, help="images down the sheet")
    parser.add_argument("--columns", type=int, default=8, help="images across it")
    options = parser.parse_args()
    contact_sheet(options.rows, options.columns).save(options.path)


if __name__ == "__main__":
    main()
