"""The picture that a tuned run of each arm leaves, for the eye."""

import base64
import io
from typing import Any

import jax
import numpy as np

from train.study.limits import data
from train.study.limits.order import chosen
from train.study.limits.problems import Problem, applied
from train.study.limits.search import FRESH_SEEDS, Entry
from train.study.limits.store import Store

PART = "fit"
PROBLEM, OPTIMIZER = "hopper", "adam"
ARMS = ("none", "gradient")
SEED = FRESH_SEEDS[0]


def key(problem: Problem, arm: str, rate: float) -> dict[str, Any]:
    """Returns what the record of a fitted picture is found by."""
    return Entry(problem, OPTIMIZER, arm, problem.steps).key(PART, rate)


def measure(store: Store, problem: Problem) -> None:
    """Fits the picture with each arm at its best rate, once, on the smaller budget."""
    from PIL import Image

    for arm in ARMS:
        entry = Entry(problem, OPTIMIZER, arm, problem.steps)
        rate = chosen(store, entry)
        if rate is None or store.get(key(problem, arm, rate)):
            continue
        out = entry.train([rate], (SEED,))
        params = jax.tree.map(lambda leaf: leaf[0], out.params)
        values = applied(problem.model, params, data.coordinates(data.SIDE))
        pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels.reshape(data.SIDE, data.SIDE, -1)).save(file, "PNG")
        store.add(
            key(problem, arm, rate)
            | {
                "seed": SEED, "psnr": float(out.judged[0]),
                "png": base64.b64encode(file.getvalue()).decode(),
            }
        )  # fmt: skip


def read(store: Store) -> dict[str, tuple[np.ndarray, float]]:
    """Returns the picture `(SIDE, SIDE, 3)` and the held-out PSNR in dB of each arm."""
    from PIL import Image

    found = {}
    for record in store.part(PART):
        with Image.open(io.BytesIO(base64.b64decode(record["png"]))) as image:
            found[record["arm"]] = np.asarray(image), record["psnr"]
    return found
