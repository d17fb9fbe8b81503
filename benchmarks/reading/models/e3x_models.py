"""E3x's equivariant layers, in Flax, and the message passing of its examples."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import e3x
import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import ELEMENTWISE, LOOKED_UP, Axes, Model

ATOMS = 6


def embed(*_: Any) -> Mapping[str, Axes]:
    return {"embedding": LOOKED_UP}


def tensor(*_: Any) -> Mapping[str, Axes]:
    # (parity, degree) of the one input and of the other, then of the output; features
    return {"kernel": (-7, -6, -5, -4)}


def fused_tensor(*_: Any) -> Mapping[str, Axes]:
    # (degrees, features): inputs are summed over their degrees, outputs are scaled.
    inputs = dict.fromkeys(("kernel_e1", "kernel_o1", "kernel_e2", "kernel_o2"), (-2,))
    outputs = ("kernel_eee", "kernel_ooe", "kernel_eoo", "kernel_oeo")
    return inputs | dict.fromkeys(outputs, ELEMENTWISE)


LAYERS = {
    **linen_layers.LAYERS,
    e3x.nn.Embed: embed,
    e3x.nn.Tensor: tensor,
    e3x.nn.FusedTensor: fused_tensor,
}


class Potential(nn.Module):
    """The message passing model of E3x's example of a potential energy surface."""

    fused: bool = False
    iterations: int = 3

    @nn.compact
    def __call__(self, numbers: jax.Array, positions: jax.Array) -> jax.Array:
        one, two = e3x.ops.sparse_pairwise_indices(ATOMS)
        displacements = positions[two] - positions[one]
        basis = e3x.nn.basis(
            displacements,
            num=8,
            max_degree=2,
            radial_fn=e3x.nn.reciprocal_bernstein,
            cutoff_fn=functools.partial(e3x.nn.smooth_cutoff, cutoff=5.0),
        )
        x = e3x.nn.Embed(num_embeddings=9, features=12)(numbers)
        for i in range(self.iterations):
            last = i == self.iterations - 1
            y = e3x.nn.MessagePass(
                max_degree=0 if last else 2,
                include_pseudotensors=not last,
                use_fused_tensor=self.fused,
            )(x, basis, dst_idx=one, src_idx=two)
            x = e3x.nn.change_max_degree_or_type(
                x, max_degree=0 if last else 2, include_pseudotensors=not last
            )
            y = e3x.nn.silu(e3x.nn.Dense(12)(e3x.nn.add(x, y)))
            x = e3x.nn.add(x, e3x.nn.Dense(12)(y))
        return nn.Dense(1, use_bias=False)(x)


class Product(nn.Module):
    """Features coupled with themselves, mixed ones and those of a parity each."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = e3x.nn.TensorDense(9, max_degree=3)(x)
        x = e3x.nn.TensorDense(7, max_degree=2)(x)
        return e3x.nn.TensorDense(5, max_degree=1, use_fused_tensor=True)(x)


class Attention(nn.Module):
    """Attention between neighbours, with encoded positions."""

    @nn.compact
    def __call__(self, x: jax.Array, basis: jax.Array) -> jax.Array:
        one, two = e3x.ops.sparse_pairwise_indices(ATOMS)
        return e3x.nn.SelfAttention(
            num_heads=2,
            use_relative_positional_encoding_qk=True,
            use_relative_positional_encoding_v=True,
        )(x, basis, dst_idx=one, src_idx=two)


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def build(module: nn.Module, *inputs: Any) -> Model:
    return linen_layers.model(module, *inputs, layers=LAYERS)


PAIRS = ATOMS * (ATOMS - 1)
MODELS: Mapping[str, Callable[[], Model]] = {
    "potential": lambda: build(
        Potential(), shape(ATOMS, dtype=jnp.int32), shape(ATOMS, 3)
    ),
    "potential, fused": lambda: build(
        Potential(fused=True), shape(ATOMS, dtype=jnp.int32), shape(ATOMS, 3)
    ),
    "tensor products": lambda: build(Product(), shape(4, 1, 9, 8)),
    "attention": lambda: build(
        Attention(), shape(ATOMS, 2, 9, 8), shape(PAIRS, 1, 9, 6)
    ),
}
