"""One of each of Haliax's layers that has weights, by their axes' names."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import haliax as hax
import haliax.nn as hnn
import jax
import jax.numpy as jnp

from benchmarks.reading.models import equinox_layers
from benchmarks.reading.models.model import ELEMENTWISE, LOOKED_UP, Axes, Model, Path

KEY = jax.random.key(0)
Batch, Pos, Vocab = hax.make_axes(batch=2, position=12, vocab=50)
Embed, Heads, HeadDim, Mlp = hax.make_axes(embed=24, heads=3, head_dim=8, mlp=40)
Height, Width, In, Out = hax.make_axes(height=10, width=12, channels_in=4, out=6)
Layers, Experts = hax.make_axes(layers=5, experts=4)
KeyPos = Pos.alias("key_position")


def of(array: hax.NamedArray, names: Any) -> Axes:
    """Returns where the axes of these names are, from the last."""
    axes = hax.axis.axis_name(names)
    axes = (axes,) if isinstance(axes, str) else axes
    rank = len(array.axes)
    return tuple(i - rank for i, axis in enumerate(array.axes) if axis.name in axes)


def linear(layer: Any) -> Mapping[str, Axes]:
    return {"weight/0": of(layer.weight, layer.In), "bias/0": ELEMENTWISE}


def conv(layer: Any) -> Mapping[str, Axes]:
    inputs = [axis.name for axis in layer.weight.axes if axis.name != layer.Out.name]
    return {"weight/0": of(layer.weight, inputs), "bias/0": ELEMENTWISE}


LAYERS = {
    **equinox_layers.LAYERS,
    hnn.Linear: linear,
    hnn.MoELinear: linear,
    hnn.Conv: conv,
    hnn.ConvTranspose: conv,
    hnn.Embedding: lambda _: {"weight/0": LOOKED_UP},
    hnn.LayerNorm: lambda _: {"weight/0": ELEMENTWISE, "bias/0": ELEMENTWISE},
    hnn.RmsNorm: lambda _: {"weight/0": ELEMENTWISE},
}


class Block(eqx.Module):
    """A transformer's block, its heads by name."""

    norm: hnn.LayerNorm
    query: hnn.Linear
    key: hnn.Linear
    value: hnn.Linear
    output: hnn.Linear
    mlp: hnn.MLP

    @staticmethod
    def init(*, key: Any, out_first: bool = True) -> "Block":
        keys = jax.random.split(key, 5)
        heads = (Heads, HeadDim)
        create = functools.partial(hnn.Linear.init, out_first=out_first)
        return Block(
            hnn.LayerNorm.init(Embed),
            *(create(Embed, heads, key=k) for k in keys[:3]),
            create(heads, Embed, key=keys[3]),
            hnn.MLP.init(Embed, Embed, 40, 1, key=keys[4], out_first=out_first),
        )

    def __call__(self, x: hax.NamedArray) -> hax.NamedArray:
        h = self.norm(x)
        keys, values = (
            layer(h).rename({"position": "key_position"})
            for layer in (self.key, self.value)
        )
        h = hnn.attention.dot_product_attention(
            KeyPos, HeadDim, self.query(h), keys, values
        )
        x = x + self.output(h)
        return x + self.mlp(self.norm(x))


class Decoder(eqx.Module):
    """Stacked blocks between an embedding and its transpose, or another kernel."""

    embedding: hnn.Embedding
    blocks: hnn.Stacked
    head: hnn.Linear | None

    @staticmethod
    def init(tied: bool, out_first: bool) -> "Decoder":
        keys = jax.random.split(KEY, 3)
        blocks = hnn.Stacked.init(Layers, Block)
        return Decoder(
            hnn.Embedding.init(Vocab, Embed, key=keys[0]),
            blocks(key=jax.random.split(keys[1], Layers.size), out_first=out_first),
            None if tied else hnn.Linear.init(Embed, Vocab, key=keys[2]),
        )

    def __call__(self, tokens: hax.NamedArray) -> hax.NamedArray:
        x = self.blocks.fold(self.embedding(tokens))
        return self.head(x) if self.head else self.embedding.unembed(x)


def build(
    create: Callable[[], Any],
    axes: tuple[hax.Axis, ...],
    dtype: Any = jnp.float32,
    also: Mapping[Path, Axes] | None = None,
    call: Callable[..., Any] = lambda module, x: module(x),
) -> Model:
    """Returns a model for a named array."""
    return equinox_layers.model(
        create,
        jax.ShapeDtypeStruct(tuple(axis.size for axis in axes), dtype),
        call=lambda module, x: call(module, hax.named(x, axes)).array,
        layers=LAYERS,
        also=also,
    )


def decoder(tied: bool, out_first: bool = True) -> Model:
    return build(
        lambda: Decoder.init(tied, out_first),
        (Batch, Pos),
        jnp.int32,
        {"embedding/weight/0": (-1,)} if tied else None,
    )


def experts(layer: Any, x: hax.NamedArray) -> hax.NamedArray:
    """Applies an expert to three tokens each."""
    return layer(x, hax.full(Experts, 3))


IMAGES = (Batch, In, Height, Width)
CONV = {"In": In, "Out": Out, "kernel_size": 3, "key": KEY}
MODELS: Mapping[str, Callable[[], Model]] = {
    "decoder": lambda: decoder(False),
    "decoder, tied": lambda: decoder(True),
    "decoder, inputs first": lambda: decoder(False, out_first=False),
    "MLP": lambda: build(
        lambda: hnn.MLP.init((Heads, HeadDim), (In, Out), 16, 2, key=KEY),
        (Batch, Heads, HeadDim),
    ),
    "Conv": lambda: build(lambda: hnn.Conv.init(("height", "width"), **CONV), IMAGES),
    "Conv, in groups": lambda: build(
        lambda: hnn.Conv.init(("height", "width"), **CONV, groups=2), IMAGES
    ),
    "ConvTranspose": lambda: build(
        lambda: hnn.ConvTranspose.init(("height", "width"), **CONV), IMAGES
    ),
    "MoELinear": lambda: build(
        lambda: hnn.MoELinear.init(Experts, Embed, Mlp, key=KEY),
        (Pos, Embed),
        call=experts,
    ),
    "Embedding, of two axes": lambda: build(
        lambda: hnn.Embedding.init(Vocab, (Heads, HeadDim), key=KEY),
        (Batch, Pos),
        jnp.int32,
    ),
}
