"""Examples on the devices or on the host: the same steps."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import Config
from train.engine import batches, feed
from train.engine.step import on_each_device

MESH = batches.all_devices()
SIZE = batches.padded_size(2, MESH)
KEY = jax.random.key(0)
EXAMPLES = (np.arange(300, dtype=np.int32),)
BATCHES = np.split(np.arange(300), range(2, 299, 2))
BATCHES = [*BATCHES[:-1], BATCHES[-1][:1]]  # 149 of two examples, and one of one


def config(where):
    return Config(
        epochs=1, batch_size=2, optimizer="sgd", learning_rate=0.1, feed=where
    )


def numbered(state, batch, count, key):
    """A step that tells the numbers that it was given, by their places in the batch."""
    del key

    def by_place(_, share):
        numbers = jnp.where(share.positions < count, share.examples[0], 0)
        return jnp.zeros(SIZE, jnp.int32).at[share.positions].set(numbers), None

    numbers, _ = on_each_device(MESH, by_place)((), batch)
    return state + count, numbers


def run(where, ends):
    """The numbers of each step, and the number of steps of each work."""
    made = feed.choose(config(where), EXAMPLES, MESH)
    program, state = made.compile(numbered, feed.COUNT), np.int32(0)
    numbers, lengths = [], []
    for work in made.works(BATCHES, ends):
        state, told = program(state, *work.inputs, KEY)
        told = np.asarray(told).reshape(-1, SIZE)
        numbers += [told[i, :count].tolist() for i, count in enumerate(work.counts)]
        lengths.append(len(work.counts))
    assert int(state) == 299
    return numbers, lengths


@pytest.mark.parametrize(
    ("ends", "lengths"),
    [(set(), [64, 64, 22]), ({0, 1, 96}, [1, 1, 64, 31, 53])],
)
def test_both_bring_the_same_examples_in_the_same_order(ends, lengths):
    expected = [batch.tolist() for batch in BATCHES]
    assert run("host", ends) == (expected, [1] * 150)
    assert run("device", ends) == (expected, lengths)


@pytest.mark.parametrize(
    ("platform", "stats", "fits"),
    [
        ("gpu", {"bytes_limit": 8 * 1200}, True),
        ("gpu", {"bytes_limit": 8 * 1200 - 1}, False),
        ("tpu", None, False),
        ("cpu", {"bytes_limit": 10**12}, False),
    ],
)
def test_an_eighth_of_an_accelerator_s_memory_is_enough(platform, stats, fits):
    device = types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)
    mesh = types.SimpleNamespace(local_devices=[device])
    assert feed.fits(EXAMPLES, mesh) is fits
