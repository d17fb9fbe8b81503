"""A stand-in for TensorFlow while TFDS prepares a data set.

TFDS's builders open their archives with TensorFlow's file functions, and its image
feature encodes arrays with TensorFlow's PNG encoder. Here Python and Pillow do both.
"""

import contextlib
import operator
import os
import sys
import unittest.mock
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.core.utils import lazy_imports_utils


class StandIn:
    """Has some of TensorFlow's names, and looks up any other in TensorFlow itself.

    Args:
      path: where in TensorFlow the names are: "io.gfile", or "" for its top level.
      names: the stand-in for each name.
    """

    def __init__(self, path: str, **names: Any) -> None:
        self._path = path
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        """Raises an `ImportError` if TensorFlow is not installed."""
        there = operator.attrgetter(f"{self._path}.{name}".lstrip("."))
        return there(lazy_imports_utils.tensorflow)


def open_file(path: os.PathLike | str, mode: str) -> IO[Any]:
    """Returns an open file; text is UTF-8, with its line ends unchanged."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    return open(path, mode, **text)


GFILE = StandIn("io.gfile", GFile=open_file, isdir=os.path.isdir)
TENSORFLOW = StandIn(
    "",
    io=StandIn("io", gfile=GFILE),
    compat=StandIn("compat", as_text=os.fsdecode),
)

_encode_with_tensorflow = image_feature._ImageEncoder._encode_image


def encode_image(encoder: image_feature._ImageEncoder, image: np.ndarray) -> bytes:
    """Returns an image `(H, W, C)` as PNG, or in the encoder's format."""
    if encoder.encoding_format != "png" or encoder.np_dtype != np.uint8:
        return _encode_with_tensorflow(encoder, image)
    image_feature._validate_np_array(image, encoder.shape, encoder.np_dtype)
    gray = image.shape[-1] == 1
    return encoder._encode_pil_image(Image.fromarray(image[..., 0] if gray else image))


@contextlib.contextmanager
def for_tensorflow(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Lets a builder prepare itself without TensorFlow, as far as possible."""
    patch = unittest.mock.patch.object
    with contextlib.ExitStack() as stack:
        for module in (extractor, sys.modules[type(builder).__module__]):
            if hasattr(module, "tf"):
                stack.enter_context(patch(module, "tf", TENSORFLOW))
        encoder = image_feature._ImageEncoder
        stack.enter_context(patch(encoder, "_encode_image", encode_image))
        yield
