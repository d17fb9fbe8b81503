"""The mean over the fan-in is subtracted, and what has none passes through."""

import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from conftest import double_precision

from optax_gc import (
    all_but_last,
    centralize,
    centralize_gradients,
    fan_in,
    traced_fan_in,
)

KERNEL = np.random.default_rng(0).normal(3.0, 1.0, (3, 3, 8, 5))


def update(tx, updates, params=None):
    return tx.update(updates, tx.init(updates if params is None else params))[0]


@pytest.mark.parametrize("axes", [0, -1, (0, 1, 2), (1, -1), [2], np.int64(1)], ids=str)
def test_it_subtracts_the_mean_over_the_axes(axes):
    given = tuple(np.atleast_1d(axes))
    expected = KERNEL - KERNEL.mean(given, keepdims=True)
    got = centralize(jnp.asarray(KERNEL, jnp.float32), axes)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float8_e4m3fn", "float32", "complex64"],
)
def test_shape_and_dtype_are_kept(dtype):
    got = centralize(jnp.asarray(KERNEL).astype(dtype), (0, 1, 2))
    assert (got.shape, got.dtype) == (KERNEL.shape, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_leaf_is_rounded_once(dtype):
    x = jnp.asarray(KERNEL).astype(dtype)
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean((0, 1, 2))).astype(getattr(ml_dtypes, dtype, dtype))
    error = np.abs(np.asarray(centralize(x, (0, 1, 2)), np.float64) - expected)
    assert (error == 0).mean() > 0.99  # a few lie on a rounding boundary


def test_the_mean_of_a_half_precision_leaf_does_not_overflow():
    x = jnp.full((4096, 2), 60_000, jnp.float16)
    np.testing.assert_array_equal(centralize(x, 0), np.zeros((4096, 2)))


def test_a_long_bfloat16_fan_in_keeps_its_mean():
    x = jnp.ones((100_000, 1), jnp.bfloat16)  # a bfloat16 sum of ones stops at 256
    np.testing.assert_array_equal(centralize(x, 0), np.zeros((100_000, 1)))


def test_a_complex_mean_is_subtracted_as_a_whole():
    x = jnp.asarray(KERNEL + 1j * KERNEL[::-1], jnp.complex64)
    expected = np.asarray(x) - np.asarray(x).mean(0)
    np.testing.assert_allclose(centralize(x, 0), expected, atol=1e-5)


def test_double_precision_is_kept():
    with double_precision():
        got = centralize(jnp.asarray(KERNEL), (0, 1, 2))
        assert got.dtype == np.float64
        expected = KERNEL - KERNEL.mean((0, 1, 2), keepdims=True)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [int, bool])
def test_an_array_of_integers_is_refused(dtype):
    with pytest.raises(TypeError, match="`x` must be floating or complex, got"):
        centralize(jnp.ones((2, 2), dtype), 0)


def test_axes_that_an_array_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"lie in \[-2, 2\), got 2 for an array of sh"):
        centralize(jnp.ones((2, 2)), 2)


def test_it_is_stateless():
    state = centralize_gradients().init({"kernel": jnp.ones((2, 2))})
    assert state == optax.EmptyState()


def test_leaves_without_a_mean_pass_through_untouched():
    updates = {
        "none": None,
        "masked": optax.MaskedNode(),
        "float0": np.zeros((3, 2), jax.dtypes.float0),
        "int": jnp.ones((3, 2), jnp.int32),
        "key": jax.random.key(0),
        "empty": jnp.ones((0, 2)),
        "bias": jnp.ones((3, 2)),
        "kernel": jnp.ones((3, 2)),
    }
    got = update(centralize_gradients({"bias": None, "*": all_but_last}), updates)
    np.testing.assert_array_equal(got.pop("kernel"), np.zeros((3, 2)))
    del updates["kernel"]
    assert jax.tree.structure(got) == jax.tree.structure(updates)
    assert all(map(lambda a, b: a is b, jax.tree.leaves(got), jax.tree.leaves(updates)))


def test_an_empty_leaf_makes_no_nan():
    with jax.debug_nans(True):
        tree = {"empty": jnp.ones((0, 2)), "kernel": KERNEL}
        got = update(centralize_gradients({"*": 0}), tree)
    assert got["empty"].shape == (0, 2)


def test_an_infinite_gradient_stays_visible():
    got = update(centralize_gradients(), {"kernel": jnp.array([[jnp.inf], [1.0]])})
    assert not np.isfinite(got["kernel"]).any()


def test_numpy_gradients_are_taken():
    got = update(centralize_gradients(), {"kernel": KERNEL.astype(np.float32)})
    np.testing.assert_allclose(got["kernel"].mean((0, 1, 2)), 0, atol=1e-6)


def test_a_tree_with_nothing_to_centralize_warns_at_init():
    tx = centralize_gradients()
    with pytest.warns(UserWarning, match="None of the 2 leaves is centralized"):
        state = tx.init({"embedding": jnp.ones((3, 2)), "bias": jnp.ones(2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx.update({"embedding": jnp.ones((3, 2)), "bias": jnp.ones(2)}, state)


@pytest.mark.parametrize(
    "patterns",
    [{"heads/*": None}, {"*": 0, "heads/*": None}],
    ids=["matches-nothing", "comes-too-late"],
)
def test_a_pattern_that_decides_on_no_leaf_warns_at_init(patterns):
    with pytest.warns(UserWarning, match="pattern 'heads/\\*' decides on no leaf"):
        centralize_gradients(patterns).init({"kernel": jnp.ones((2, 2))})


def test_what_can_be_centralized_warns_of_nothing():
    centralize_gradients({"head": None}).init(
        {"kernel": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
    )


def test_bad_axes_are_refused_at_init_and_at_update():
    tx = centralize_gradients({"kernel": 5})
    grads = {"kernel": jnp.ones((3, 2))}
    for call in (lambda: tx.init(grads), lambda: tx.update(grads, optax.EmptyState())):
        with pytest.raises(ValueError, match=r"got 5 for 'kernel' of shape \(3, 2\)"):
            call()


def test_gradients_of_another_structure_than_the_parameters_are_refused_by_the_chain():
    tx = optax.chain(centralize_gradients(), optax.adam(1.0))
    state = tx.init({"kernel": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match="weights"):
        tx.update({"weights": jnp.ones((3, 2))}, state)


def test_an_empty_tree_is_no_reason_to_warn():
    tx = optax.chain(centralize_gradients({"head/*": None}), optax.trace(0.9))
    state = tx.init({"head": {"kernel": jnp.ones((3, 2))}, "kernel": jnp.ones((3, 2))})
    # It initializes a tree with no leaves to tell the state's leaves apart.
    zeroed = optax.tree.map_params(tx, lambda leaf: 0 * leaf + 1, state)
    assert jnp.array_equal(zeroed[1].trace["kernel"], jnp.ones((3, 2)))


TREE = {"Dense_0": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
TRACED = traced_fan_in(
    lambda params, x: x @ params["Dense_0"]["kernel"], TREE, jnp.ones((2, 4))
)


def updated(tx):
    return tx.update(TREE, tx.init(TREE))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: centralize(TREE, 0), r"one array, got a dict of 2 leaves\. For a"),
        (
            lambda: centralize([*TREE["Dense_0"].values()], 0),
            "got a list of 2 leaves",
        ),
        (lambda: centralize(jnp.ones((4, 3)), True), "must be ints, got True for an"),
        (lambda: centralize_gradients(0), r"got 0\. .* write \{'\*kernel': 0\}"),
        (
            lambda: updated(centralize_gradients({"*kernel": True})),
            "must be ints, got True for 'Dense_0/kernel' of shape",
        ),
        (
            lambda: updated(optax.inject_hyperparams(centralize_gradients)(fan_in)),
            r'result\. .*pass static_args="axes"',
        ),
    ],
    ids=["dict", "list", "bool", "int", "bool in a mapping", "inject_hyperparams"],
)
def test_what_is_no_array_or_no_axes_is_refused_with_what_to_write(act, message):
    with pytest.raises(TypeError, match=message):
        act()


def test_a_traced_policy_that_is_taken_for_a_schedule_says_to_make_it_static():
    make = optax.inject_hyperparams(centralize_gradients)
    with pytest.raises(ValueError, match=r'got one number\. .*static_args="axes"'):
        make(TRACED).init(TREE)


@pytest.mark.parametrize(
    "wrapper", [optax.flatten, optax.contrib.split_real_and_imaginary]
)
def test_a_traced_policy_in_a_wrapper_that_renames_leaves_says_to_go_before_it(wrapper):
    name = wrapper.__name__
    whole = jax.tree.map(lambda x: x.astype(complex), TREE)
    tx = wrapper(centralize_gradients(TRACED))
    with pytest.raises(ValueError, match=rf"chain\(centralize_gradients.*{name}\("):
        tx.init(whole)
    before = optax.chain(centralize_gradients(TRACED), wrapper(optax.identity()))
    assert before.init(whole)
