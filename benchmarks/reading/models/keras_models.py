"""Keras 3 on JAX: its applications, and one of each of its layers that has weights.

A model's parameters are a list without names, as taken by `Model.stateless_call`.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import keras
from keras import layers

from benchmarks.reading.models.model import (
    ELEMENTWISE,
    LOOKED_UP,
    Axes,
    Model,
    Path,
    Rule,
    Truth,
    always,
    einsum_axes,
    make,
)


def conv(layer: Any) -> Mapping[str, Axes]:
    return {"kernel": tuple(range(-layer.rank - 2, -1))}


def depthwise(layer: Any) -> Mapping[str, Axes]:
    window = tuple(range(-layer.rank - 2, -2))  # (*window, channels, multiplier)
    return {"kernel": window}


def separable(layer: Any) -> Mapping[str, Axes]:
    window = tuple(range(-layer.rank - 2, -2))
    return {"depthwise_kernel": window, "pointwise_kernel": (-2,)}


def conv_transpose(layer: Any) -> Mapping[str, Axes]:
    window = tuple(range(-layer.rank - 2, -2))  # (*window, out, in)
    return {"kernel": (*window, -1)}


def einsum(layer: layers.EinsumDense) -> Mapping[str, Axes]:
    return {"kernel": einsum_axes(layer.equation), "bias": ELEMENTWISE}


NORM = always(gamma=ELEMENTWISE, beta=ELEMENTWISE)
RNN = always(kernel=(-2,), recurrent_kernel=(-2,), bias=ELEMENTWISE)
LAYERS: Mapping[type, Rule] = {
    layers.Dense: always(kernel=(-2,)),
    layers.EinsumDense: einsum,
    layers.Embedding: always(embeddings=LOOKED_UP),
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), conv),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), depthwise),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), separable),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        conv_transpose,
    ),
    **dict.fromkeys((layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell), RNN),
    layers.BatchNormalization: NORM,
    layers.LayerNormalization: NORM,
    layers.GroupNormalization: NORM,
}


def without_weights(create: Callable[[], keras.Model]) -> keras.Model:
    """Returns the model that `create` makes, without values for its weights."""
    with keras.StatelessScope(initialize_variables=False):
        return create()


def build(
    model: keras.Model,
    also: Mapping[Path, Axes] | None = None,
    rules: Mapping[type, Rule] = LAYERS,
    length: int = 224,
    unused: tuple[Path, ...] = (),
) -> Model:
    """Returns a model, with inputs of `length` if it takes any length."""
    inputs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (1, *(n or length for n in x.shape[1:])), x.dtype
        ),
        model.input,
    )
    variables, others = model.trainable_variables, model.non_trainable_variables
    params, state = (
        [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in group]
        for group in (variables, others)
    )

    def apply(params: Any, state: Any, inputs: Any) -> Any:
        return model.stateless_call(params, state, inputs, training=True)

    return make(params, apply, (state, inputs), read(model, rules), also, unused)


def read(model: keras.Model, rules: Mapping[type, Rule]) -> Truth:
    """Returns how each trainable variable is used, by its number."""
    numbers = {id(v): str(i) for i, v in enumerate(model.trainable_variables)}
    uses: Truth = defaultdict(set)
    for layer in model._flatten_layers():
        rule = next((rules[c] for c in type(layer).__mro__ if c in rules), None)
        for name, axes in (rule(layer) if rule else {}).items():
            if number := numbers.get(id(getattr(layer, name, None))):
                uses[number].add(axes)
    return uses


def functional(inputs: tuple[int, ...], *chain: Callable[[], Any]) -> Model:
    """Returns a model of chained layers, each made when it is applied."""

    def create() -> keras.Model:
        x = start = keras.Input(inputs)
        for layer in chain:
            x = layer()(x)
        return keras.Model(start, x)

    return build(without_weights(create))


def attention() -> Model:
    """Returns attention, grouped-query attention, and a tied embedding."""

    def create() -> keras.Model:
        tokens = keras.Input((16,), dtype="int32")
        embedding = layers.ReversibleEmbedding(100, 64)
        x = embedding(tokens)
        x = x + layers.MultiHeadAttention(4, 16)(x, x)
        x = x + layers.GroupQueryAttention(16, 4, 2)(x, x)
        x = layers.EinsumDense("abc,cde->abde", (None, 4, 8), bias_axes="de")(x)
        x = layers.EinsumDense("abde,cde->abc", (None, 64))(x)
        return keras.Model(tokens, embedding(x, reverse=True))

    return build(without_weights(create), also={"0": (-1,)})


def application(name: str) -> Model:
    create = functools.partial(getattr(keras.applications, name), weights=None)
    return build(without_weights(create))


APPLICATIONS = sorted(
    name
    for name, value in vars(keras.applications).items()
    if callable(value) and name[0].isupper()
)
LAYER_CHAINS: Mapping[str, Callable[[], Model]] = {
    "convolutions": functools.partial(
        functional,
        (16, 16, 4),
        lambda: layers.Conv2D(8, 3, groups=2),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.SeparableConv2D(8, 3, depth_multiplier=2),
        lambda: layers.Conv2DTranspose(6, 3, strides=2),
        lambda: layers.GroupNormalization(3),
    ),
    "recurrent": functools.partial(
        functional,
        (16, 8),
        lambda: layers.Bidirectional(layers.LSTM(6, return_sequences=True)),
        lambda: layers.GRU(6, return_sequences=True),
        lambda: layers.SimpleRNN(6, return_sequences=True),
        lambda: layers.Conv1DTranspose(6, 3),
        lambda: layers.Dense(3),
    ),
    "attention": attention,
}
MODELS: Mapping[str, Callable[[], Model]] = {
    **{name: functools.partial(application, name) for name in APPLICATIONS},
    **LAYER_CHAINS,
}
