"""The engine's step: its batches, its sums, its optimizer, its reproducibility."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from optax_gc import fan_in
from train import data, horses
from train.engine import arms, batches
from train.engine.optimizer import optimizer
from train.engine.state import init_state
from train.engine.step import evaluate, train_step
from train.horses import Config
from train.tasks.horses import Horses

SIDE = 94  # pixels; the smallest image that five convolutions and pools leave one of
RNG = np.random.default_rng(0)
SPLIT = data.Split(
    RNG.integers(0, 256, (7, SIDE, SIDE, 3), np.uint8),
    np.array([0, 1, 1, 0, 1, 0, 0], np.int32),
)
DATASET = data.Dataset("random", "as asked", ("horses", "humans"), SPLIT, SPLIT)
MESH = batches.all_devices()
SGD = optax.sgd(1.0)
SHARES = arms.taken_shares(Config(), fan_in, {})


class Linear(nn.Module):
    """A model whose loss and gradient are easily worked out by hand."""

    @nn.compact
    def __call__(self, images, *, train=False):
        del train
        w = self.param("w", lambda _: jnp.array([1.0, -2.0, 3.0]))
        b = self.param("b", lambda _: jnp.array(0.5))
        return images.mean((1, 2)) @ w + b


class Dropped(nn.Module):
    """A small model with dropout."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images[:, ::16, ::16].reshape(len(images), -1)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]


def task(model, augmented=False, per_turn=8):
    made = Horses(DATASET, augmented)
    made.model, made.per_turn = model, per_turn
    return made


def fresh(model):
    return init_state(task(model).init(jax.random.key(0)), SGD)


def by_hand(rows):
    """Loss and right answers of `linear` per image, and its mean gradient."""
    x = np.asarray(SPLIT.images, np.float64)[rows].mean((1, 2)) / 255
    labels = np.asarray(SPLIT.labels)[rows]
    logits = x @ [1.0, -2.0, 3.0] + 0.5
    losses = np.log1p(np.exp(logits)) - labels * logits
    errors = 1 / (1 + np.exp(-logits)) - labels
    gradient = {"w": x.T @ errors / len(rows), "b": errors.mean()}
    return losses, (logits > 0) == labels, gradient


def deal(indices, batch_size):
    """The batch on the devices, and how many images count."""
    examples = (SPLIT.images, SPLIT.labels)
    batch = batches.deal(examples, np.array(indices), batch_size, MESH)
    return batch, np.int32(len(indices))


@functools.cache
def step(model, augmented, per_turn):
    """The compiled train step."""
    made = task(model, augmented, per_turn)
    return jax.jit(
        functools.partial(train_step, task=made, tx=SGD, shares=SHARES, mesh=MESH)
    )


@pytest.mark.parametrize(("size", "batch_size"), [(1027, 128), (256, 128), (5, 128)])
def test_an_epoch_covers_each_image_exactly_once(size, batch_size):
    made = batches.epoch_batches(0, 1, size, batch_size, keep_rest=True)
    assert [len(batch) for batch in made[:-1]] == [batch_size] * (len(made) - 1)
    assert 0 < len(made[-1]) <= batch_size
    assert sorted(np.concatenate(made)) == list(range(size))
    assert len(made) == batches.steps_an_epoch(size, batch_size, keep_rest=True)


@pytest.mark.parametrize(("size", "batch_size"), [(1027, 128), (256, 128)])
def test_without_the_rest_an_epoch_has_whole_batches_of_different_images(
    size, batch_size
):
    made = batches.epoch_batches(0, 1, size, batch_size, keep_rest=False)
    assert {len(batch) for batch in made} == {batch_size}
    assert len({*np.concatenate(made)}) == size // batch_size * batch_size
    assert len(made) == batches.steps_an_epoch(size, batch_size, keep_rest=False)


def test_the_published_epoch_has_nine_steps_the_last_of_three_images():
    made = batches.epoch_batches(0, 1, 1027, 128, keep_rest=True)
    assert [len(batch) for batch in made] == [128] * 8 + [3]


def test_seed_and_epoch_decide_the_order_and_it_mixes_the_whole_set():
    first, again, epoch, seed = (
        np.concatenate(batches.epoch_batches(*key, 1024, 128, keep_rest=True))
        for key in ((0, 1), (0, 1), (0, 2), (1, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, epoch)
    assert not np.array_equal(first, seed)
    assert abs(np.corrcoef(first, np.arange(1024))[0, 1]) < 0.1


@pytest.mark.parametrize("batch_size", [5, 6, 8])
def test_a_dealt_batch_has_its_images_at_their_positions(batch_size):
    indices = [6, 2, 4, 1, 3]
    batch, count = deal(indices, batch_size)
    images, labels = batch.examples
    assert len(labels) >= batch_size
    for position, index in enumerate(indices):
        (row,) = np.flatnonzero(batch.positions == position)
        assert np.array_equal(images[row], SPLIT.images[index])
        assert labels[row] == SPLIT.labels[index]
    assert count == 5


@pytest.mark.parametrize("per_turn", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_partial_batch_is_weighted_by_its_images(count, per_turn):
    indices = [6, 2, 4, 1, 3][:count]
    before = fresh(Linear())
    batch = deal(indices, 8)
    state, totals, _ = step(Linear(), False, per_turn)(
        before, *batch, jax.random.key(0)
    )
    losses, correct, gradient = by_hand(np.array(indices))
    np.testing.assert_allclose(totals.loss, losses.sum(), rtol=1e-5)
    assert float(totals.score) == correct.sum()
    for name, expected in gradient.items():
        np.testing.assert_allclose(
            before.params[name] - state.params[name], expected, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("per_turn", [1, 2, 7, 16])
def test_evaluation_counts_each_image_once(per_turn):
    made = task(Linear())
    batch = deal(range(7), 7)
    totals = evaluate(fresh(Linear()), *batch, task=made, mesh=MESH, per_turn=per_turn)
    losses, correct, _ = by_hand(np.arange(7))
    np.testing.assert_allclose(totals.loss, losses.sum(), rtol=1e-5)
    assert float(totals.score) == correct.sum()


def test_the_step_does_not_depend_on_the_images_taken_at_a_time():
    state = fresh(Dropped())
    batch = *deal([3, 1, 6, 0], 4), jax.random.key(5)
    (one, totals, _), (all_, all_totals, _) = (
        step(Dropped(), True, per_turn)(state, *batch) for per_turn in (1, 4)
    )
    np.testing.assert_allclose(totals.loss, all_totals.loss, rtol=1e-5)
    for before, ours, theirs in zip(
        *map(jax.tree.leaves, (state.params, one.params, all_.params)), strict=True
    ):
        assert not jnp.array_equal(before, ours)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_augmentation_changes_the_step():
    batch = *deal([3, 1, 6, 0], 4), jax.random.key(5)
    plain, augmented = (
        step(Linear(), augmented, 4)(fresh(Linear()), *batch)[1].loss
        for augmented in (False, True)
    )
    assert plain != augmented


def test_rmsprop_is_kerass():
    """Keras: v = 0.9 v + 0.1 g^2; w = w - lr * g / sqrt(v + 1e-7)."""
    tx = optimizer(Config(learning_rate=0.01), Horses.recipe, 3, None)
    w, v = np.array([1.0, -1.0]), np.zeros(2)
    params = {"w": jnp.array(w, jnp.float32)}
    state = tx.init(params)
    for g in ([1e-4, 3.0], [2e-4, -1.0], [0.0, 0.5]):
        v = 0.9 * v + 0.1 * np.square(g)
        w = w - 0.01 * np.array(g) / np.sqrt(v + 1e-7)
        updates, state = tx.update({"w": jnp.array(g)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_gc_centralizes_the_gradient_before_rmsprop():
    grads = {"kernel": jnp.array(RNG.normal(size=(5, 3)), jnp.float32)}
    with_gc, without = (
        optimizer(config, Horses.recipe, 1, arms.projection(config, fan_in, grads))
        for config in (Config(gc=True), Config(gc=False))
    )
    centralized = {"kernel": grads["kernel"] - grads["kernel"].mean(0, keepdims=True)}
    ours, _ = with_gc.update(grads, with_gc.init(grads))
    expected, _ = without.update(centralized, without.init(grads))
    np.testing.assert_allclose(ours["kernel"], expected["kernel"], rtol=1e-5)


def test_runs_of_a_seed_start_alike_with_and_without_gc():
    with_gc, without = (
        horses.task(Config(gc=gc), DATASET).init(jax.random.key(3))
        for gc in (True, False)
    )
    same = jax.tree.map(jnp.array_equal, with_gc, without)
    assert all(jax.tree.leaves(same))
