"""The two formulations of the layers are one function; dropout's masks are fair."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import double_precision
from jax import lax

from train.tasks import layers

CASES = [
    pytest.param((1, 10, 8, 3, 16), True, id="first-layer-dropout"),
    pytest.param((2, 11, 9, 3, 4), False, id="first-layer-odd"),
    pytest.param((2, 12, 8, 16, 8), False, id="even"),
    pytest.param((3, 11, 12, 9, 7), True, id="odd-dropout"),
    pytest.param((1, 4, 5, 8, 1), False, id="one-window"),
]


def operands(shape, drop, dtype=np.float32):
    n, h, w, channels, features = shape
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, h, w, channels)).astype(dtype)
    kernel = rng.normal(size=(3, 3, channels, features)).astype(dtype)
    bias = rng.normal(size=features).astype(dtype)
    mask = rng.random((n, h - 2, w - 2, features)) < 0.5
    return x, kernel, bias, mask if drop else None


def ordinary_layers(x, kernel, bias, keep):
    y = lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = jax.nn.relu(y + bias[None, None, None])
    y = y if keep is None else jnp.where(keep, 2 * y, 0)
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def ours(x, kernel, bias, keep):
    return jax.vmap(layers.conv_relu_pool, (0, None, None, 0))(x, kernel, bias, keep)


def value_and_gradients(layer, x, kernel, bias, keep):
    def loss(x, kernel, bias):
        y = layer(x, kernel, bias, keep)
        weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return jnp.sum(weights * y), y

    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(x, kernel, bias)


def assert_close(actual, expected, rtol):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * np.abs(e).max())


@pytest.mark.parametrize(("shape", "drop"), CASES)
def test_value_and_gradients_are_those_of_the_ordinary_layers(shape, drop):
    # In double precision, where a wrong pixel cannot hide behind rounding.
    with double_precision():
        arguments = operands(shape, drop, np.float64)
        expected = value_and_gradients(ordinary_layers, *arguments)
        assert_close(value_and_gradients(ours, *arguments), expected, 1e-12)


@pytest.mark.parametrize("channels", [3, 8], ids=["first-layer", "later-layer"])
def test_in_single_precision_they_agree_to_its_rounding(channels):
    arguments = operands((2, 9, 8, channels, 6), drop=True)
    expected = value_and_gradients(ordinary_layers, *arguments)
    actual = value_and_gradients(ours, *arguments)
    assert_close(actual, expected, 1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("channels", [3, 8], ids=["first-layer", "later-layer"])
def test_of_equal_units_the_first_one_takes_the_gradient(channels):
    # All units of an image of ones are equal and positive.
    x, kernel = jnp.ones((1, 6, 8, channels)), jnp.ones((3, 3, channels, 2))
    arguments = x, kernel, jnp.zeros(2), None
    expected = value_and_gradients(ordinary_layers, *arguments)
    assert_close(value_and_gradients(ours, *arguments), expected, 1e-6)


def test_a_window_without_a_positive_unit_passes_no_gradient():
    x, kernel, bias, _ = operands((1, 8, 8, 8, 4), drop=False)
    gradients, _ = value_and_gradients(ours, x, kernel, bias - 1e3, None)
    assert not any(np.any(g) for g in gradients)


def test_a_window_of_dropped_units_is_zero():
    x, kernel, bias, _ = operands((1, 8, 8, 8, 4), drop=False)
    keep = jnp.zeros((1, 6, 6, 4), bool).at[:, 2:].set(True)
    pooled = ours(x, kernel, bias + 1e3, keep)
    assert not np.any(pooled[:, 0])
    assert np.all(pooled[:, 1:] > 0)


def test_an_ensemble_of_kernels_maps_like_each_of_them():
    x, kernel, bias, keep = operands((2, 8, 7, 8, 4), drop=True)
    kernels = jnp.stack([kernel, -kernel])

    def of_kernel(kernel):
        return value_and_gradients(ours, x, kernel, bias, keep)

    together = jax.vmap(of_kernel)(kernels)
    for i in (0, 1):
        alone = of_kernel(kernels[i])
        assert_close(jax.tree.map(lambda z, i=i: z[i], together), alone, 1e-5)


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_accelerators_get_the_ordinary_layers(platform):
    def lowered(layer, platform):
        gradients = jax.jit(jax.grad(lambda *a: layer(*a).sum(), (0, 1, 2)))
        arguments = operands((2, 10, 10, 8, 4), drop=True)
        traced = gradients.trace(*arguments)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return sorted(
            re.findall(r"stablehlo\.(convolution|while|select_and_\w+)", text)
        )

    assert lowered(ours, platform) == lowered(ordinary_layers, platform)
    assert "while" in lowered(ours, "cpu")


@pytest.mark.parametrize("shape", [(147, 5, 3), (64,), (1, 33)], ids=str)
def test_half_of_the_units_are_kept(shape):
    keys = jax.random.split(jax.random.key(1), 4000)
    keep = jax.vmap(layers.keep_half, (0, None))(keys, shape)
    assert keep.shape == (4000, *shape)
    assert keep.dtype == bool
    # Five standard deviations of a mean of 4000 fair coins.
    np.testing.assert_allclose(keep.mean(0), 0.5, atol=5 * 0.5 / np.sqrt(4000))


def test_units_are_kept_independently_of_each_other():
    keys = jax.random.split(jax.random.key(2), 4000)
    keep = jax.vmap(layers.keep_half, (0, None))(keys, (40, 2)).reshape(4000, -1)
    correlations = np.corrcoef(keep.T) - np.eye(80)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(4000)


def test_the_same_key_keeps_the_same_units():
    masks = [layers.keep_half(jax.random.key(seed), (50, 7)) for seed in (3, 3, 4)]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_kept_units_are_doubled():
    x, keep = jnp.array([1.0, -2.0, 3.0]), jnp.array([True, True, False])
    np.testing.assert_array_equal(layers.dropout(x, keep), [2.0, -4.0, 0.0])
