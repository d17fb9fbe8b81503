"""One of each of Equinox's layers that has weights."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.reading.models.equinox_layers import model
from benchmarks.reading.models.model import Model

KEYS = [jax.random.key(i) for i in range(8)]


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def convolutions() -> Any:
    return eqx.nn.make_with_state(eqx.nn.Sequential)(
        [
            eqx.nn.Conv2d(4, 8, 3, groups=2, key=KEYS[0]),
            eqx.nn.BatchNorm(8, "batch", mode="batch"),
            eqx.nn.Conv2d(8, 16, 3, groups=8, key=KEYS[1]),
            eqx.nn.GroupNorm(4, 16),
            eqx.nn.ConvTranspose2d(16, 6, 3, stride=2, key=KEYS[2]),
        ]
    )


def batched(module: Any, state: Any, x: jax.Array) -> Any:
    mapped = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    return mapped(x, state)


def scanned(cell: Any, start: Callable[[Any], Any], x: jax.Array) -> Any:
    step = lambda carry, x: (cell(x, carry), None)  # noqa: E731
    return jax.lax.scan(step, start(cell), x)[0]


def stacked_mlps() -> Any:
    """Returns an ensemble of five networks, stacked along axis 0."""
    create = lambda key: eqx.nn.MLP(8, 4, 32, 2, key=key)  # noqa: E731
    return eqx.filter_vmap(create)(jax.random.split(KEYS[0], 5))


MODELS: Mapping[str, Callable[[], Model]] = {
    "MLP": lambda: model(lambda: eqx.nn.MLP(8, 4, 32, 2, key=KEYS[0]), shape(8)),
    "MLPs, stacked": lambda: model(
        stacked_mlps,
        shape(8),
        call=lambda mlps, x: eqx.filter_vmap(lambda mlp: mlp(x))(mlps),
    ),
    "convolutions": lambda: model(convolutions, shape(2, 4, 16, 16), call=batched),
    "attention": lambda: model(
        lambda: eqx.nn.MultiheadAttention(4, 64, key=KEYS[0]),
        shape(16, 64),
        call=lambda attention, x: attention(x, x, x),
    ),
    "embedding, square": lambda: model(
        lambda: eqx.nn.Sequential(
            [eqx.nn.Embedding(64, 64, key=KEYS[0]), eqx.nn.Linear(64, 64, key=KEYS[1])]
        ),
        shape(dtype=jnp.int32),
    ),
    "GRUCell": lambda: model(
        lambda: eqx.nn.GRUCell(8, 16, key=KEYS[0]),
        shape(5, 8),
        call=lambda cell, x: scanned(cell, lambda cell: jnp.zeros(16), x),
    ),
    "LSTMCell": lambda: model(
        lambda: eqx.nn.LSTMCell(8, 16, key=KEYS[0]),
        shape(5, 8),
        call=lambda cell, x: scanned(cell, lambda cell: (jnp.zeros(16),) * 2, x),
    ),
}
