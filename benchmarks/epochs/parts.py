"""The parts of a train step of the experiment's network, as separate functions."""

import os
import statistics
import time

import jax
import jax.numpy as jnp

from train.tasks import augment, cnn, layers

IMAGES, SIDE, ROUNDS = 8, 300, 15


def use_one_core():
    """Restricts JAX to one core; call it before JAX does anything."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_num_cpu_devices", 1)


def normal(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def gradients(layer):
    """Returns a function that gives the gradients of the layer's input and weights."""

    def pull_back(g, x, weights, keys=()):
        def value(x, weights):
            return layer(x, *weights, *keys)

        return jax.vjp(value, x, weights)[1](g)

    return pull_back


def gradients_of_weights(layer):
    """Returns a function that gives only the gradients of the layer's weights."""
    return lambda *arguments: gradients(layer)(*arguments)[1]


def dropped_out(x, kernel, bias, key):
    """Returns the output of a convolution with dropout for one image."""
    shape = x.shape[0] - 2, x.shape[1] - 2, bias.size
    return layers.conv_relu_pool(x, kernel, bias, layers.keep_half(key, shape))


def parts():
    """Yields the name, the function and the arguments of each part.

    The first layer's input needs no gradient.
    """
    keys = jax.random.split(jax.random.key(0), IMAGES)
    pixels = jnp.zeros((IMAGES, SIDE, SIDE, 3), jnp.uint8)
    yield "augmentation", jax.vmap(augment.augment), (keys, pixels)
    side, channels = SIDE, 3
    for i, features in enumerate(cnn.CONV_FEATURES):
        x = normal(IMAGES, side, side, channels)
        weights = normal(3, 3, channels, features), normal(features)
        side, channels = (side - 2) // 2, features
        g = normal(IMAGES, side, side, features)
        layer = jax.vmap(layers.conv_relu_pool, (0, None, None))
        arguments = g, x, weights
        if i in cnn.DROPOUT_IN:
            layer = jax.vmap(dropped_out, (0, None, None, 0))
            arguments = g, x, weights, (keys,)
        of = gradients_of_weights if i == 0 else gradients
        yield f"Conv_{i}", of(layer), arguments
    x, g = normal(IMAGES, side**2 * channels), normal(IMAGES, cnn.DENSE_FEATURES)
    yield "Dense_0", gradients(jnp.matmul), (g, x, (normal(x.shape[1], g.shape[1]),))


def milliseconds(function, arguments):
    """Returns the median time of a call."""
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = []
    for _ in range(1 + ROUNDS):  # the first one warms up
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])
