"""What GC is, in one sentence: each input vector centred, for the kernel alone.

Centralizing a kernel's gradient over its fan-in is the same as subtracting from each
input vector (for a convolution, from each patch with its zeros of the padding) its mean
over the fan-in, in the kernel's backward pass and nowhere else.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import double_precision
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from optax_gc import centralize, removed_energy

HEADS, DEPTH, WIDTH = 2, 3, 6
LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def in_double_precision():
    with double_precision():
        yield


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0.5, 1, shape)


def centred(x, axes):
    return x - x.mean(axes, keepdims=True)


def centralized_gradient(layer, kernel, axes, seed):
    """Returns a kernel's gradient, centralized, and the cotangent that it came from."""
    outputs, vjp = jax.vjp(layer, kernel)
    cotangent = normal(seed, *outputs.shape)
    (gradient,) = vjp(jnp.asarray(cotangent))
    assert np.linalg.norm(gradient.mean(axes)) > 0.1  # there is something to remove
    return np.asarray(centralize(gradient, axes)), cotangent


def assert_equal(actual, expected):
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=1e-13 * np.abs(expected).max()
    )


# One row for each spelling of a product: the layer, its kernel's shape, the kernel's
# fan-in axes, the input's features, and the gradient written out.
PRODUCTS = {
    "dense": ("ti,io->to", (6, 4), (0,), (6,), "ti,to->io"),
    "attention query": ("td,dhk->thk", (6, 2, 3), (0,), (6,), "td,thk->dhk"),
    "attention out": ("thk,hkd->td", (2, 3, 6), (0, 1), (2, 3), "thk,td->hkd"),
    "outputs first": ("ti,oi->to", (4, 6), (1,), (6,), "ti,to->oi"),
}


@pytest.mark.parametrize(
    ("layer", "shape", "axes", "features", "gradient"), PRODUCTS.values(), ids=PRODUCTS
)
def test_of_a_product_each_input_vector_is_centred(
    layer, shape, axes, features, gradient
):
    x, kernel = normal(0, 20, *features), jnp.asarray(normal(1, *shape))
    actual, cotangent = centralized_gradient(
        lambda kernel: jnp.einsum(layer, x, kernel), kernel, axes, 2
    )
    over_features = tuple(range(1, x.ndim))
    assert_equal(actual, np.einsum(gradient, centred(x, over_features), cotangent))


def convolution(padding, strides=(1, 1), lhs=(1, 1), rhs=(1, 1), groups=1):
    return {
        "padding": padding,
        "window_strides": strides,
        "lhs_dilation": lhs,
        "rhs_dilation": rhs,
        "feature_group_count": groups,
    }


CONVOLUTIONS = {
    "valid": convolution([(0, 0), (0, 0)]),
    "padded": convolution([(1, 1), (2, 0)]),
    "strides": convolution([(1, 1), (1, 1)], strides=(2, 3)),
    "dilated": convolution([(2, 2), (1, 1)], rhs=(2, 1)),
    "transposed": convolution([(2, 2), (2, 1)], lhs=(2, 3)),
    "groups": convolution([(1, 1), (1, 1)], groups=2),
    "depthwise": convolution([(1, 1), (1, 1)], groups=4),
    "all": convolution([(2, 1), (1, 2)], (2, 1), lhs=(1, 2), rhs=(2, 1), groups=2),
}


def patches(x, outputs, options):
    """Returns `(N, *outputs, 3, 3, C)`: what a 3x3 window sees, zeros included."""
    n, height, width, channels = x.shape
    rows, columns = options["lhs_dilation"]
    spread = np.zeros((n, rows * (height - 1) + 1, columns * (width - 1) + 1, channels))
    spread[:, ::rows, ::columns] = x
    spread = np.pad(spread, [(0, 0), *options["padding"], (0, 0)])
    strides, dilation = options["window_strides"], options["rhs_dilation"]
    seen = np.zeros((n, *outputs, 3, 3, channels))
    for i, j, k, m in itertools.product(*map(range, (*outputs, 3, 3))):
        row, column = i * strides[0] + k * dilation[0], j * strides[1] + m * dilation[1]
        seen[:, i, j, k, m] = spread[:, row, column]
    return seen


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_of_a_convolution_each_patch_is_centred_with_its_padding(options):
    def layer(kernel):
        return lax.conv_general_dilated(x, kernel, dimension_numbers=LAYOUT, **options)

    groups = options["feature_group_count"]
    x = normal(3, 5, 7, 8, 4)
    kernel = jnp.asarray(normal(4, 3, 3, 4 // groups, 8))
    actual, cotangent = centralized_gradient(layer, kernel, (0, 1, 2), 5)
    seen = patches(x, cotangent.shape[1:3], options)
    seen = seen.reshape(*seen.shape[:-1], groups, -1)  # (N, h, w, 3, 3, groups, C)
    cotangent = cotangent.reshape(*cotangent.shape[:-1], groups, -1)
    expected = np.einsum("nhwijgc,nhwgo->ijcgo", centred(seen, (3, 4, 6)), cotangent)
    assert_equal(actual, expected.reshape(kernel.shape))


# A whole network: attention and a hidden layer, in which every kernel's input is
# centred for its own gradient and nothing else is changed.

AXES = {"query": (0,), "key": (0,), "value": (0,), "out": (0, 1), "mlp": (0,)}


def project(kernel, axes, x):
    return jnp.tensordot(x, kernel, len(axes))


def project_centred(kernel, axes, x):
    """Returns `project`, whose kernel's gradient is computed from centred inputs."""
    features = tuple(range(x.ndim - len(axes), x.ndim))
    inner = lax.stop_gradient(x - jnp.mean(x, features, keepdims=True))
    for_the_kernel = project(kernel, axes, inner)
    value = project(lax.stop_gradient(kernel), axes, x)
    return value + for_the_kernel - lax.stop_gradient(for_the_kernel)


def network(project, params, x):
    """Returns the loss of one attention layer and one relu layer on `x` (T, WIDTH)."""

    def layer(name, x):
        y = project(params[name]["kernel"], AXES[name], x)
        return y + jnp.broadcast_to(params[name]["bias"], y.shape)

    query, key, value = (layer(name, x) for name in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("thk,shk->hts", query, key))
    x = x + layer("out", jnp.einsum("hts,shk->thk", weights, value))
    return jnp.sum(jax.nn.relu(layer("mlp", x)) ** 2)


def network_params():
    projection = ((WIDTH, HEADS, DEPTH), (HEADS, DEPTH))
    shapes = dict.fromkeys(("query", "key", "value"), projection)
    shapes["out"] = ((HEADS, DEPTH, WIDTH), (WIDTH,))
    shapes["mlp"] = ((WIDTH, 5), (5,))
    return {
        name: {
            "kernel": jnp.asarray(normal(i, *kernel)) / 3,
            "bias": jnp.asarray(normal(10 + i, *bias)),
        }
        for i, (name, (kernel, bias)) in enumerate(shapes.items())
    }


def test_in_a_network_it_changes_the_gradients_of_the_kernels_and_nothing_else():
    params, x = network_params(), jnp.asarray(normal(6, 7, WIDTH))
    pull_back = jax.value_and_grad(network, (1, 2))
    loss, (grads, input_gradient) = pull_back(Partial(project), params, x)
    same_loss, (centred_grads, same) = pull_back(Partial(project_centred), params, x)
    assert_equal(same_loss, loss)
    assert_equal(same, input_gradient)
    expected = {
        name: grads[name] | {"kernel": centralize(grads[name]["kernel"], axes)}
        for name, axes in AXES.items()
    }
    removed = jax.tree.map(np.subtract, grads, expected)
    assert all(np.linalg.norm(removed[name]["kernel"]) > 0.01 for name in AXES)
    assert_equal(ravel_pytree(centred_grads)[0], ravel_pytree(expected)[0])


# What follows: at both ends, and by chance.


def share_removed(x, outputs=4):
    """Returns the share for inputs (T, features) and a random loss linear in them."""
    kernel = jnp.zeros((x.shape[1], outputs))
    cotangent = normal(7, len(x), outputs) - 0.5
    grads = jax.grad(lambda kernel: jnp.sum(cotangent * (x @ kernel)))(kernel)
    return float(removed_energy({"kernel": grads})["kernel"])


def test_behind_a_layer_norm_nothing_is_removed():
    x = normal(8, 30, WIDTH)
    normalized = centred(x, 1) / centred(x, 1).std(1, keepdims=True)
    assert share_removed(normalized) < 1e-28
    assert share_removed(x) > 0.1


def test_from_constant_inputs_everything_is_removed():
    assert share_removed(np.repeat(normal(9, 30, 1), WIDTH, 1)) > 1 - 1e-12


def test_of_inputs_with_no_common_mean_chance_removes_one_part_in_the_fan_in():
    share = share_removed(normal(10, 5000, WIDTH) - 0.5, outputs=1000)
    np.testing.assert_allclose(share, 1 / WIDTH, rtol=0.1)
