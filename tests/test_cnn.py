"""The network is the published one, layer by layer."""

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from train.tasks.cnn import CNN

KERNELS = {
    "Conv_0": (3, 3, 3, 16),
    "Conv_1": (3, 3, 16, 32),
    "Conv_2": (3, 3, 32, 64),
    "Conv_3": (3, 3, 64, 64),
    "Conv_4": (3, 3, 64, 64),
    "Dense_0": (3136, 512),
    "Dense_1": (512, 1),
}
IMAGES = jax.ShapeDtypeStruct((2, 300, 300, 3), jnp.float32)


@pytest.fixture(scope="module")
def params():
    return jax.jit(CNN().init)(jax.random.key(0), jnp.zeros(IMAGES.shape))["params"]


def test_it_has_the_published_number_of_parameters(params):
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_704_097


def test_each_layer_has_the_published_shape(params):
    shapes = {path: x.shape for path, x in traverse_util.flatten_dict(params).items()}
    expected = {(name, "kernel"): shape for name, shape in KERNELS.items()}
    expected |= {(name, "bias"): shape[-1:] for name, shape in KERNELS.items()}
    assert shapes == expected


def test_kernels_start_glorot_uniform_and_biases_at_zero(params):
    for name, (*window, fan_in, fan_out) in KERNELS.items():
        field = window[0] * window[1] if window else 1
        bound = (6 / (field * (fan_in + fan_out))) ** 0.5
        largest = jnp.abs(params[name]["kernel"]).max()
        assert 0.95 * bound < largest <= bound, name
        assert not params[name]["bias"].any(), name


def test_an_image_gets_one_logit(params):
    logits = jax.eval_shape(CNN().apply, {"params": params}, IMAGES)
    assert logits.shape == (2,)
    assert logits.dtype == jnp.float32


def test_dropout_acts_in_training_only(params):
    images = jnp.ones((1, 300, 300, 3))

    def logit(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return CNN().apply({"params": params}, images, train=train, rngs=rngs)

    assert logit(0, train=False) == logit(1, train=False)
    assert logit(0, train=True) == logit(0, train=True)
    assert logit(0, train=True) != logit(1, train=True)
