"""The network's layers, implemented twice: for accelerators, and for a CPU.

A convolution with its bias, ReLU, dropout and 2x2 max-pool is one function here, with
one gradient, because on a CPU the arrays between them cost more time than the
arithmetic. The ordinary layers, which GPUs and TPUs run, define what it computes;
`jax.lax.platform_dependent` chooses when the program is lowered.

Functions take one image `(H, W, C)`; `jax.vmap` gives batches. On a CPU a batch is
processed image by image, so that the current one stays in cache.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

LAYOUT = ("NHWC", "HWIO", "NHWC")
FEW_CHANNELS = 8  # too few for the matrix products below to be efficient
NONE = 4  # a window's choice if none of its four units passes on a gradient
# XLA's convolutions on a CPU are up to twice as fast if a window leaves the image.
ONE_MORE_COLUMN = ((0, 0), (0, 1))


def conv_relu_pool(
    x: Array, kernel: Array, bias: Array, keep: Array | None = None
) -> Array:
    """Returns `max_pool(dropout(relu(conv(x, kernel) + bias)))` of one image.

    The convolution is 3x3 with stride 1 and no padding; the pool is 2x2 with stride 2.
    A last odd row or column of the convolution is dropped.

    Args:
      x: `(H, W, I)`, floating, both sides at least 4.
      kernel: `(3, 3, I, O)`, in the dtype of `x`.
      bias: `(O,)`, in the dtype of `x`.
      keep: `(H - 2, W - 2, O)` bool, the units that dropout at rate 0.5 keeps (and
        doubles); None for no dropout.

    Returns:
      `((H - 2) // 2, (W - 2) // 2, O)`, in the dtype of `x`.
    """
    return lax.platform_dependent(
        *(x, kernel, bias) if keep is None else (x, kernel, bias, keep),
        cpu=_conv_relu_pool_cpu,
        default=_conv_relu_pool,
    )


def keep_half(key: Array, shape: tuple[int, ...]) -> Array:
    """Returns a bool array in which each unit is true with probability 1/2.

    It uses one random bit per unit, which takes 32 times fewer random numbers than
    `jax.random.bernoulli`.

    Args:
      key: a PRNG key.
      shape: at least one axis; the first should be long, because 32 of its units share
        a random number.
    """
    words = jax.random.bits(key, (-(-shape[0] // 32), *shape[1:]))
    place = jnp.arange(32, dtype=words.dtype).reshape(32, *[1] * words.ndim)
    bits = (words[None] >> place) & 1
    return bits.reshape(-1, *shape[1:])[: shape[0]].astype(bool)


def dropout(x: Array, keep: Array) -> Array:
    """Returns `x` with units that are not kept set to 0, and the others doubled."""
    return jnp.where(keep, 2 * x, 0)


def _conv_relu_pool(x, kernel, bias, keep=None):
    y = _conv(x, kernel, 1, "VALID")
    y = jax.nn.relu(y + bias[None, None])
    y = y if keep is None else dropout(y, keep)
    return lax.reduce_window(y, -jnp.inf, lax.max, (2, 2, 1), (2, 2, 1), "VALID")


@jax.custom_vjp
def _conv_relu_pool_cpu(x, kernel, bias, keep=None):
    return _forward(x, kernel, bias, keep)[0]


def _save(x, kernel, bias, keep=None):
    pooled, choice = _forward(x, kernel, bias, keep)
    return pooled, (x, kernel, choice, keep)


def _gradients(saved, g):
    x, kernel, choice, keep = saved
    g = jnp.where(choice == NONE, 0, g if keep is None else 2 * g)
    return *_backward(x, kernel, choice, g), g.sum((0, 1)), None


_conv_relu_pool_cpu.defvjp(_save, _gradients)


@sequential_vmap
def _forward(x, kernel, bias, keep):
    """Returns the pooled image, and the unit of its window that gave each value."""
    if x.shape[-1] < FEW_CHANNELS:
        width = x.shape[1] // 2 - 1
        y = _conv(x, _window_kernel(kernel), 2, ONE_MORE_COLUMN)[:, :width]
        units = jnp.split(y, 4, -1)
    else:
        units = _windows(_conv(x, kernel, 1, ONE_MORE_COLUMN)[:, :-1])
    if keep is not None:
        kept = zip(_windows(keep), units, strict=True)
        units = [jnp.where(k, unit, -jnp.inf) for k, unit in kept]
    # Bias, ReLU and doubling keep the order of the units: they may follow the maximum.
    best, choice = units[0], jnp.zeros(units[0].shape, jnp.uint8)
    for i, unit in enumerate(units[1:], 1):
        choice = jnp.where(unit > best, jnp.uint8(i), choice)
        best = jnp.maximum(unit, best)
    pooled = jax.nn.relu(best + bias[None, None])
    choice = jnp.where(pooled > 0, choice, jnp.uint8(NONE))
    return pooled if keep is None else 2 * pooled, choice


@sequential_vmap
def _backward(x, kernel, choice, g):
    """Returns the gradients of the image and the kernel."""
    if x.shape[-1] < FEW_CHANNELS:
        return _backward_of_few_channels(x, kernel, choice, g)
    border = ((1, 1), (1, 1), (0, 0))
    dy = _unpool(jnp.pad(choice, border), jnp.pad(g, border))  # (h, 2, w, 2, O)
    dy = dy.reshape(2 * dy.shape[0], -1, dy.shape[-1])
    # The gradient of the image is also a convolution, over a border of two zeros.
    dx = _conv(dy, kernel[::-1, ::-1].swapaxes(2, 3), 1, ONE_MORE_COLUMN)[:, :-1]
    dx = jnp.pad(dx, [(0, n - m) for n, m in zip(x.shape, dx.shape, strict=True)])
    return dx, _kernel_gradient(x, dy)


def _kernel_gradient(x, dy):
    """One matrix product, of three shifted columns of `x` and three rows of `dy`."""
    height, width = dy.shape[0] - 2, dy.shape[1] - 4
    columns = [x[:height, j : j + width] for j in range(3)]
    rows = [dy[2 - i : 2 - i + height, 2:-2] for i in range(3)]
    product = _inner(jnp.concatenate(columns, -1), jnp.concatenate(rows, -1))
    product = product.reshape(3, x.shape[-1], 3, dy.shape[-1])
    return product.transpose(2, 0, 1, 3)


def _backward_of_few_channels(x, kernel, choice, g):
    dy = _unpool(choice, g).swapaxes(1, 2)
    dy = dy.reshape(*g.shape[:2], -1)  # (h, w, 4 O)
    d_windows = _inner(_patches(x), dy).reshape(4, 4, x.shape[-1], -1)
    (d_kernel,) = jax.linear_transpose(_window_kernel, kernel)(d_windows)
    window_kernel = _window_kernel(kernel)
    (dx,) = jax.linear_transpose(lambda x: _conv(x, window_kernel, 2, "VALID"), x)(dy)
    return dx, d_kernel


def _unpool(choice, g):
    """Returns `(h, 2, w, 2, O)`, with `g` at the chosen unit of each window, else 0."""
    unit = jnp.arange(4, dtype=choice.dtype).reshape(1, 2, 1, 2, 1)
    return jnp.where(choice[:, None, :, None] == unit, g[:, None, :, None], 0)


def _windows(y):
    """Returns the upper left, upper right, lower left and lower right units."""
    height, width = y.shape[0] // 2 * 2, y.shape[1] // 2 * 2
    return [y[i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _window_kernel(kernel):
    """Returns `(4, 4, I, 4 O)`, for the four units of a window at once at stride 2."""
    shifted = [
        jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
        for i in (0, 1)
        for j in (0, 1)
    ]
    return jnp.concatenate(shifted, -1)


def _patches(x):
    """Returns `(h, w, 16 I)`, the 4x4 pixels that each window sees."""
    height, width = x.shape[0] // 2, x.shape[1] // 2
    pairs = x[: 2 * height, : 2 * width].reshape(height, 2, width, -1)
    pixels = [
        pairs[i : height - 1 + i, row, j : width - 1 + j]
        for i in (0, 1)
        for row in (0, 1)
        for j in (0, 1)
    ]
    return jnp.concatenate(pixels, -1)


def _inner(a, b):
    """Returns the products of all channels of `a` and `b`, summed over the pixels."""
    a, b = (z.reshape(-1, z.shape[-1]) for z in (a, b))
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def _conv(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x[None], kernel, (stride, stride), padding, dimension_numbers=LAYOUT
    )[0]
