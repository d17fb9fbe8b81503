"""Draws a contact sheet of the drawn data set.

python -m train.data.rendered contact.png --rows 6 --columns 8
"""

import argparse

from PIL import Image, ImageDraw

from train.config import expanded
from train.data.drawing import scene


def contact_sheet(rows: int, columns: int, side: int = 150) -> Image.Image:
    """Returns a grid of labelled training images, horses and humans in turn."""
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
    parser = argparse.ArgumentParser(
        prog="python -m train.data.rendered",
        description="Draw a contact sheet of the data set.",
    )
    parser.add_argument("path", type=expanded, help="the PNG to write")
    parser.add_argument("--rows", type=int, default=6, help="images down the sheet")
    parser.add_argument("--columns", type=int, default=8, help="images across it")
    options = parser.parse_args()
    contact_sheet(options.rows, options.columns).save(options.path)


if __name__ == "__main__":
    main()
