"""The three tasks on random data of the real shapes and sizes, without a data set.

There is something to learn, so that losses fall: images get brighter from class to
class, and each byte of the text is the previous one plus 0 to 3.
"""

from types import ModuleType
from typing import Any

import numpy as np

from train import data, fashion, horses, shakespeare
from train.engine.task import Task
from train.tasks import fashion as fashion_task
from train.tasks.shakespeare import LENGTH

MODULES: dict[str, ModuleType] = {
    "horses": horses,
    "fashion": fashion,
    "shakespeare": shakespeare,
}
TEXT = 1_003_854  # bytes of tiny Shakespeare's training split


def images(count: int, shape: tuple[int, ...], classes: int) -> data.Dataset:
    """Returns uint8 images and their labels, with the classes in turn."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % classes
    brightness = (200 * labels // classes).astype(np.uint8).reshape(-1, 1, 1, 1)
    pixels = rng.integers(0, 56, (count, *shape), np.uint8) + brightness
    names = tuple(map(str, range(classes)))
    train = data.Split(pixels, labels)
    test = data.Split(pixels[:1], labels[:1])
    return data.Dataset("random", "as asked", names, train, test)


def text(size: int) -> data.Text:
    """Returns a text of `size` bytes; validation and test are one passage each."""
    steps = np.random.default_rng(0).integers(0, 4, size)
    train = np.cumsum(steps).astype(np.uint8)
    return data.Text("random", train, *[train[: LENGTH + 1]] * 2)


def examples(name: str, *, quick: bool) -> data.Dataset | data.Text:
    """Returns a task's data; few and small examples with `quick`."""
    if name == "horses":
        count, side = (20, 94) if quick else (1027, 300)
        return images(count, (side, side, 3), 2)
    if name == "fashion":
        count = 32 if quick else 50_000
        return images(count + fashion_task.VALIDATION, (28, 28, 1), 10)
    return text(32 * LENGTH + 1 if quick else TEXT)


def make(
    name: str, precision: str = "float32", *, quick: bool = False, **options: Any
) -> tuple[Any, Task]:
    """Returns a task with GC and its command's defaults, and its configuration.

    Args:
      name: the task's name.
      precision: the precision of the activations.
      quick: whether to make it small.
      options: further options of the configuration.
    """
    batch = {"batch_size": 8} if quick else {}
    options = {"gc": True, "evaluate": False, "precision": precision, **batch} | options
    config = MODULES[name].Config(**options)
    return config, MODULES[name].task(config, examples(name, quick=quick))
