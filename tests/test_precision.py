"""Activations in bfloat16: the same network and nearly the same losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import data, fashion, horses, image, shakespeare
from train.engine import arms, batches, feed
from train.engine.axes import fan_in_axes
from train.engine.optimizer import optimizer
from train.engine.state import init_state
from train.engine.step import train_step
from train.tasks import cnn, coordinates, decoder, resnet
from train.tasks import fashion as fashion_task

MESH = batches.all_devices()
RNG = np.random.default_rng(0)
TOLERANCE = 0.01  # of a loss, relative; bfloat16 has 8 bits


def images(shape, classes):
    """A data set of 16 images."""
    labels = np.arange(16, dtype=np.int32) % classes
    noise = RNG.integers(0, 100, (16, *shape))
    split = data.Split((noise + 50 * labels[:, None, None, None]).astype(np.uint8),
                       labels)  # fmt: skip
    return data.Dataset("random", "as asked", tuple("abcd"[:classes]), split, split)


TEXT = data.Text("random", *[RNG.integers(97, 123, 16 * 64 + 1).astype(np.uint8)] * 3)
PICTURE = data.Picture("random", "as asked", RNG.integers(0, 256, (8, 8, 3), np.uint8))
TASKS = {
    "horses": (horses, images((94, 94, 3), 2), {"augment": False}),
    "fashion": (fashion, images((8, 8, 1), 4), {"augment": False}),
    "shakespeare": (shakespeare, TEXT, {}),
    "image": (image, PICTURE, {}),
    "image-siren": (image, PICTURE, {"network": "siren"}),
}


def losses(name, precision):
    """The losses of three steps on the same batch, and the parameters after them."""
    module, examples, options = TASKS[name]
    config = module.Config(
        batch_size=8, epochs=1, optimizer="sgd", learning_rate=1e-3,
        precision=precision, **options,
    )  # fmt: skip
    task = module.task(config, examples)
    variables = task.init(jax.random.key(0))
    axes = fan_in_axes(task, variables)
    tx = optimizer(config, task.recipe, 3, None)
    state = init_state(variables, tx)
    shares = arms.taken_shares(config, axes, variables["params"])

    def step(*args):
        return train_step(*args, task=task, tx=tx, shares=shares, mesh=MESH)

    brought = feed.HostFeed(task.splits["train"], 8, MESH)
    steps, found = brought.compile(step, state), []
    for work in brought.works([np.arange(8)] * 3, ()):
        state, totals, _ = steps(state, *work.inputs, jax.random.key(1))
        found.append(float(totals.loss) / 8)
    return found, state.params


@pytest.mark.parametrize("name", TASKS)
def test_losses_agree_and_parameters_stay_float32(name, monkeypatch):
    for room, name_, value in (
        (fashion_task, "VALIDATION", 4), (cnn, "CONV_FEATURES", (8,) * 5),
        (cnn, "DENSE_FEATURES", 16), (resnet, "FEATURES", (8,)), (decoder, "LAYERS", 1),
        (coordinates, "WIDTH", 16),
    ):  # fmt: skip
        monkeypatch.setattr(room, name_, value)
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules promote
        ours, params = losses(name, "bfloat16")
        theirs, _ = losses(name, "float32")
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE)
    assert ours != theirs
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
