"""An arm takes its direction from the kernels that are its own, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_gc import describe, fan_in
from train.engine import arms
from train.engine.optimizer import Recipe, learning_rate, optimizer
from train.faults import UsageError
from train.horses import Config

SHAPES = {
    "Conv_0": {"kernel": (3, 3, 4, 500)},
    "query": {"kernel": (64, 4, 100)},
    "Dense_0": {"kernel": (200, 300), "bias": (300,)},
}


def normal(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.array(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


PARAMS, GRADS = normal(0), normal(1)
SIZES = {row.path: row.fan_in for row in describe(PARAMS).rows if row.fan_in}


def taken(config):
    """The kernels from whose gradients the arm takes something."""
    projection = arms.projection(config, fan_in, PARAMS)
    left, _ = projection.update(GRADS, projection.init(PARAMS))
    changed = jax.tree.map(lambda x, y: bool(jnp.any(x != y)), GRADS, left)
    paths = [row.path for row in describe(PARAMS).rows]
    return {p for p, c in zip(paths, jax.tree.leaves(changed), strict=True) if c}


@pytest.mark.parametrize("arm", ["gc", "placebo"])
@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ({}, {"Conv_0/kernel", "query/kernel", "Dense_0/kernel"}),
        ({"gc_only": ("Conv_*", "query/*")}, {"Conv_0/kernel", "query/kernel"}),
        ({"gc_not": ("Dense_*",)}, {"Conv_0/kernel", "query/kernel"}),
        ({"gc_only": ("*/kernel",), "gc_not": ("query/*",)},
         {"Conv_0/kernel", "Dense_0/kernel"}),
        ({"gc_only": ("*",)}, {"Conv_0/kernel", "query/kernel", "Dense_0/kernel"}),
    ],
    ids=["all", "only", "not", "only-and-not", "only-all"],
)  # fmt: skip
def test_patterns_choose_the_kernels(arm, options, kernels):
    assert taken(Config(**{arm: True}, **options)) == kernels


@pytest.mark.parametrize("option", ["gc_only", "gc_not"])
def test_a_pattern_that_matches_nothing_is_refused(option):
    config = Config(gc=True, **{option: ("Conv_7/*",)})
    with pytest.raises(
        UsageError, match=r"must choose among Conv_0/kernel, .*'Conv_7/\*'"
    ):
        arms.projection(config, fan_in, PARAMS)


def test_patterns_that_leave_no_kernel_are_refused():
    with pytest.raises(UsageError, match="None of the 4 leaves is centralized"):
        arms.projection(Config(gc=True, gc_not=("*",)), fan_in, PARAMS)


def placebo_matrix(path, seed=0):
    """What the placebo does to one fan-in vector of a kernel, as a matrix."""
    vector = np.asarray(arms.directions(seed, fan_in, PARAMS)[path], np.float64)
    return np.eye(vector.size) - np.outer(vector.ravel(), vector.ravel())


@pytest.mark.parametrize("path", SIZES)
def test_the_placebo_removes_exactly_one_dimension(path):
    matrix = placebo_matrix(path)
    singular = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(singular, [1] * (SIZES[path] - 1) + [0], atol=1e-6)
    row = next(row for row in describe(GRADS).rows if row.path == path)
    name, leaf = path.split("/")
    projection = arms.projection(Config(placebo=True), fan_in, PARAMS)
    left = projection.update(GRADS, optax.EmptyState())[0][name][leaf]
    flat = (np.moveaxis(x, row.axes, range(len(row.axes))) for x in (GRADS[name][leaf],
                                                                     left))  # fmt: skip
    before, after = (x.reshape(SIZES[path], -1) for x in flat)
    np.testing.assert_allclose(after, matrix @ before, atol=1e-5)


def test_the_placebo_removes_what_chance_removes_and_not_the_mean():
    shares = arms.taken_shares(Config(placebo=True), fan_in, PARAMS)(GRADS)
    assert shares.keys() == SIZES.keys()
    for path, share in shares.items():
        # A mean over many output units of squares whose deviation is about theirs.
        assert abs(float(share) * SIZES[path] - 1) < 0.3
    shifted = jax.tree.map(lambda x: x + 5, GRADS)
    with_mean = arms.taken_shares(Config(gc=True), fan_in, PARAMS)(shifted)
    without = arms.taken_shares(Config(placebo=True), fan_in, PARAMS)(shifted)
    assert all(share > 0.9 for share in with_mean.values())
    assert all(share < 0.2 for share in without.values())


def test_the_placebos_directions_are_the_runs_and_of_length_1():
    first, again, other = (arms.directions(s, fan_in, PARAMS) for s in (3, 3, 4))
    for path in SIZES:
        np.testing.assert_array_equal(first[path], again[path])
        assert not np.allclose(first[path], other[path])
        np.testing.assert_allclose(jnp.linalg.norm(first[path]), 1, rtol=1e-6)


def test_the_placebo_keeps_its_direction_of_the_weights_as_gc_keeps_the_mean():
    config = Config(placebo=True, optimizer="sgd", learning_rate=0.1)
    projection = arms.projection(config, fan_in, PARAMS)
    tx = optimizer(config, Recipe(decay={}), 10, projection)
    params, state = PARAMS, tx.init(PARAMS)
    for seed in range(3):
        updates, state = tx.update(normal(seed), state, params)
        params = optax.apply_updates(params, updates)
    vector = arms.directions(0, fan_in, PARAMS)["Dense_0/kernel"]
    before, after = (tree["Dense_0"]["kernel"] for tree in (PARAMS, params))
    np.testing.assert_allclose(
        jnp.sum(after * vector, 0), jnp.sum(before * vector, 0), atol=1e-5
    )
    assert not np.allclose(after, before, atol=1e-2)


def test_without_an_arm_nothing_is_taken_and_the_share_is_what_gc_would_take():
    assert arms.projection(Config(), fan_in, PARAMS) is None
    would, does = (
        arms.taken_shares(Config(gc=gc, gc_only=only), fan_in, PARAMS)(GRADS)
        for gc, only in ((False, ()), (True, ("Conv_*",)))
    )
    assert would.keys() == SIZES.keys()
    assert would == does


def test_decay_stands_on_the_gradients_side_of_momentum_and_behind_gc():
    config = Config(gc=True, optimizer="sgd", learning_rate=0.5)
    recipe = Recipe(decay={"sgd": 0.1})
    tx = optimizer(config, recipe, 10, arms.projection(config, fan_in, PARAMS))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    w, g = (np.asarray(tree["Dense_0"]["kernel"]) for tree in (PARAMS, GRADS))
    expected = -0.5 * (g - g.mean(0) + 0.1 * w)
    np.testing.assert_allclose(updates["Dense_0"]["kernel"], expected, atol=1e-5)


def test_on_the_update_the_decay_is_centralized_too():
    config = Config(gc=True, placement="update", optimizer="sgd", learning_rate=0.5)
    recipe = Recipe(decay={"sgd": 0.1})
    tx = optimizer(config, recipe, 10, arms.projection(config, fan_in, PARAMS))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    means = updates["Dense_0"]["kernel"].mean(0)
    np.testing.assert_allclose(means, np.zeros(300), atol=1e-6)


def test_only_what_is_to_decay_decays():
    config = Config(optimizer="adamw", learning_rate=1.0)
    matrices = Recipe({"adamw": 0.1}, lambda tree: jax.tree.map(lambda x: x.ndim > 1,
                                                                tree))  # fmt: skip
    tx = optimizer(config, matrices, 10, None)
    zeros = jax.tree.map(jnp.zeros_like, GRADS)
    with jax.numpy_dtype_promotion("standard"):  # Adam's decay ** count promotes
        updates, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
    layer = updates["Dense_0"]
    np.testing.assert_allclose(
        layer["kernel"], -0.1 * PARAMS["Dense_0"]["kernel"], rtol=1e-6
    )
    assert not layer["bias"].any()


def test_the_rate_warms_up_and_falls_on_a_cosine():
    rate = learning_rate(0.2, Recipe({}, warmup=0.1), 100)
    np.testing.assert_allclose(rate(0), 0)
    np.testing.assert_allclose(rate(5), 0.1)
    np.testing.assert_allclose(rate(10), 0.2)
    np.testing.assert_allclose(rate(55), 0.1, rtol=1e-5)
    np.testing.assert_allclose(rate(100), 0, atol=1e-7)
    assert learning_rate(0.2, Recipe({}), 100) == 0.2
