"""Times two tilings of the first convolutions that the network does not use.

python -m benchmarks.tilings

On a CPU a layer is worked through image by image. The first table does the two first
layers together, band by band, so that what lies between them stays in cache. The
second gives a layer several images at a time. Milliseconds an image on one core, of
the forward pass and the gradients, medians over rounds in which all take turns.
"""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from rich.console import Console
from rich.table import Table

from benchmarks.layers import (
    IMAGES,
    SIDE,
    gradients_of_weights,
    normal,
    parts,
    use_one_core,
)
from train.tasks import layers

ROUNDS = 11
BANDS, TURNS = (37, 19, 10, 5), (1, 2, 4, 8)


def two_layers(x, keep, kernel_0, bias_0, kernel_1, bias_1):
    """Returns what `Conv_0` and `Conv_1` make of one image or band."""
    x = layers.conv_relu_pool(x, kernel_0, bias_0)
    return layers.conv_relu_pool(x, kernel_1, bias_1, keep)


def by_image(x, *weights, keep):
    """Returns both layers' output, image by image and layer by layer."""
    axes = (0, 0, None, None, None, None)
    return jax.vmap(two_layers, axes)(x, keep, *weights)


def by_band(rows: int) -> Callable:
    """Returns `by_image`, but the two layers together for `rows` rows of their output.

    A row of it sees ten rows of the image, six of them with its neighbours.
    """

    def run(x, *weights, keep):
        images, height, width, channels = x.shape
        out_rows = ((height - 2) // 2 - 2) // 2
        bands = -(-out_rows // rows)
        below = max(4 * rows * bands + 6 - height, 0)
        x = jnp.pad(x, ((0, 0), (0, below), (0, 0), (0, 0)))
        below = max(2 * rows * bands - keep.shape[1], 0)
        keep = jnp.pad(keep, ((0, 0), (0, below), (0, 0), (0, 0)))

        def band(i):
            image, first = i // bands, i % bands * rows
            size = (1, 4 * rows + 6, width, channels)
            part = lax.dynamic_slice(x, (image, 4 * first, 0, 0), size)[0]
            size = (1, 2 * rows, *keep.shape[2:])
            kept = lax.dynamic_slice(keep, (image, 2 * first, 0, 0), size)[0]
            return two_layers(part, kept, *weights)

        y = lax.map(band, jnp.arange(images * bands))
        return y.reshape(images, bands * rows, *y.shape[2:])[:, :out_rows]

    return run


def in_turns_of(images: int, function: Callable) -> Callable:
    """Returns the function of one image, worked through `images` at a time."""
    whole = custom_vmap(function)

    @whole.def_vmap
    def rule(size, batched, *args):
        def one(moving):
            some = iter(moving)
            pairs = zip(args, batched, strict=True)
            return function(*(next(some) if moves else arg for arg, moves in pairs))

        moving = [arg for arg, moves in zip(args, batched, strict=True) if moves]
        out = lax.map(one, moving, batch_size=images)
        return out, jax.tree.map(lambda _: True, out)

    return whole


def layer_in_turns_of(images: int, layer: Callable) -> Callable:
    """Returns the layer's gradients with its two halves worked through in turns."""

    def run(*args):
        halves = layers._forward, layers._backward
        layers._forward, layers._backward = (
            in_turns_of(images, half.fun) for half in halves
        )
        try:
            return layer(*args)
        finally:
            layers._forward, layers._backward = halves

    return run


def table_of(title, functions, args):
    """Returns a table of milliseconds an image, of functions that take turns."""
    compiled = {n: jax.jit(f).lower(*args).compile() for n, f in functions.items()}
    seconds = {name: [] for name in compiled}
    for _ in range(1 + ROUNDS):  # the first one warms up
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            seconds[name].append(time.perf_counter() - start)
    table = Table(title, "ms an image")
    for name, values in seconds.items():
        table.add_row(name, f"{1000 * statistics.median(values[1:]) / IMAGES:.2f}")
    return table


def main():
    use_one_core()
    of = {name: (function, args) for name, function, args in parts()}
    side = (SIDE - 2) // 2  # of the first layer's output
    pooled = (side - 2) // 2
    keep = jax.random.bernoulli(
        jax.random.key(0), 0.5, (IMAGES, side - 2, side - 2, 32)
    )
    weights = [w for name in ("Conv_0", "Conv_1") for w in of[name][1][2]]
    args = normal(IMAGES, pooled, pooled, 32), of["Conv_0"][1][1], weights
    ways = {"layer by layer, as it is": by_image}
    ways |= {f"{rows} of {pooled} rows": by_band(rows) for rows in BANDS}
    functions = {
        name: gradients_of_weights(functools.partial(way, keep=keep))
        for name, way in ways.items()
    }
    console = Console()
    console.print(table_of("Conv_0 and Conv_1 together", functions, args))
    for name in ("Conv_0", "Conv_1"):
        layer, args = of[name]
        functions = {f"{n} images a turn": layer_in_turns_of(n, layer) for n in TURNS}
        console.print(table_of(name, functions, args))


if __name__ == "__main__":
    main()
