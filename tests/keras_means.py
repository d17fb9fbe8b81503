"""Trains with the scripts of docs/keras.md and prints how far the kernels moved.

Run by test_keras.py in a process of its own, because Keras reads its backend when it is
imported. Prints one JSON object: what the scripts print, and for each training and each
layer with a kernel, how far its weights and the means over its fan-in moved at most.
"""

import contextlib
import io
import json
import pathlib
import runpy
import sys
import tempfile
from unittest import mock

import keras
import numpy as np
import optax

import optax_gc

DOCS = pathlib.Path(__file__).parents[1] / "docs"
# By the layers' own definitions.
FAN_IN = {
    "Conv2D": (0, 1, 2),
    "DepthwiseConv2D": (0, 1),
    "Conv2DTranspose": (0, 1, 3),
    "EinsumDense": (0,),
    "Dense": (0,),
}


def copies(variables):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def without_gc():
    """Makes centralizing do nothing."""
    return mock.patch.multiple(
        optax_gc,
        centralize=lambda x, axes: x,
        centralize_gradients=lambda axes: optax.identity(),
    )


def moved(model, start):
    """Returns how far each kernel, and its fan-in means, are from `start` at most."""
    ends = dict(zip(map(id, model.trainable_variables), start, strict=True))
    found = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in FAN_IN:
            change = copies([layer.kernel])[0] - ends[id(layer.kernel)]
            means = change.mean(FAN_IN[kind], dtype=np.float64)
            found[kind] = float(np.abs(change).max()), float(np.abs(means).max())
    return found


def run(script):
    """Returns what a script leaves, with its weights as they were at the start."""
    start = []

    def traced(f, params, *args):
        start.extend(copies(params))
        return policy(f, params, *args)

    policy = optax_gc.traced_fan_in
    keras.utils.set_random_seed(0)
    with mock.patch.object(optax_gc, "traced_fan_in", traced):
        return runpy.run_path(str(DOCS / script)) | {"start": start}


def fit_on(names, **options):
    """Trains a script's model once more, with a fresh optimizer with `options`."""
    optimizer = names["CentralizedSGD"](0.01, axes=names["axes"], **options)
    names["model"].compile(optimizer, "mse")
    return refit(names["model"], names)


def refit(model, names):
    start = copies(model.trainable_variables)
    model.fit(names["x"], names["y"], epochs=4, verbose=0)
    return moved(model, start)


def trainings():
    """Yields a name and what moved in each training."""
    for script in ("keras_loop.py", "keras_fit.py"):
        with without_gc():
            names = run(script)
            yield f"{script} without GC", moved(names["model"], names["start"])
        names = run(script)
        yield script, moved(names["model"], names["start"])
    for option in (
        {"global_clipnorm": 0.1},
        {"clipnorm": 0.1},
        {"gradient_accumulation_steps": 2},
        {"momentum": 0.9, "nesterov": True},
    ):
        yield f"with {next(iter(option))}", fit_on(names, **option)
    yield from saved(names)


def saved(names):
    """Yields what moved in a model that was saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        names["model"].save(f"{folder}/model.keras")
        model = keras.saving.load_model(f"{folder}/model.keras")
    assert model.optimizer.axes == [axes and [*axes] for axes in names["axes"]]
    yield "loaded", refit(model, names)


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        report = {"moved": dict(trainings())}
    assert keras.backend.backend() == "jax"
    assert "tensorflow" not in sys.modules
    print(json.dumps(report | {"printed": printed.getvalue()}))
