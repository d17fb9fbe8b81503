"""An image file as a square of pixels."""

import math
import pathlib

import numpy as np
from PIL import Image, ImageOps

from train.data.prepare import describe
from train.data.sets import Picture
from train.faults import UsageError

SAMPLE = "grace_hopper.jpg"  # a photograph that Matplotlib ships; public domain


def load_picture(path: pathlib.Path | None, side: int) -> Picture:
    """Returns the middle square of an image, resampled (bilinear) to a side in pixels.

    The image is turned as its EXIF orientation says. It is gray if the file is, else in
    color, with transparent areas on white. Values of more than 8 bits are scaled to 8,
    from the smallest to the largest. An animation gives its first frame.

    Args:
      path: the file, in any format that Pillow reads; None for Matplotlib's sample.
      side: the side of the square.

    Raises:
      UsageError: if there is no such file, or it cannot be read.
    """
    file = sample() if path is None else path
    try:
        with Image.open(file) as image:
            upright = flattened(ImageOps.exif_transpose(image))
    except Exception as error:  # reading a damaged file may raise anything
        raise UsageError(
            "--image must be an image that Pillow can read, "
            f"got {file} ({describe(error)})."
        ) from error
    square = ImageOps.fit(upright, (side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(square).reshape(side, side, -1)
    reason = "a photograph that Matplotlib ships" if path is None else "as asked"
    return Picture(file.name, reason, pixels)


def sample() -> pathlib.Path:
    """Returns the path of Matplotlib's sample image."""
    from matplotlib import cbook

    return pathlib.Path(cbook.get_sample_data(SAMPLE, asfileobj=False))


def flattened(image: Image.Image) -> Image.Image:
    """Returns an 8-bit image without transparency, in gray ("L") or in color ("RGB").

    Raises:
      ValueError: if some values are not finite.
    """
    is_gray = Image.getmodebase(image.mode) == "L"
    if np.asarray(image).dtype not in (np.uint8, np.bool_):
        image = stretched(np.asarray(image, np.float64))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if is_gray else "RGB")


def stretched(values: np.ndarray) -> Image.Image:
    """Returns values as gray, from black for the smallest to white for the largest."""
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        raise ValueError(f"its values must be finite, got {low} to {high}")
    share = (values - low) / ((high - low) or 1)
    return Image.fromarray(np.round(255 * share).astype(np.uint8))
