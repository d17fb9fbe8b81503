"""What Haiku's own layers contract, recorded while a model runs."""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import haiku as hk
import jax

from benchmarks.reading.models.model import (
    ELEMENTWISE,
    LOOKED_UP,
    Axes,
    Model,
    Path,
    Truth,
    make,
)

# From a layer and its method's name to the axes of its parameters, by name.
Rule: TypeAlias = Callable[[Any, str], Mapping[str, Axes]]

STACK = "__layer_stack_no_per_layer/"  # unknown inside `hk.layer_stack`


def linear(*_: Any) -> Mapping[str, Axes]:
    return {"w": (-2,), "b": ELEMENTWISE}


def conv(layer: Any, *_: Any) -> Mapping[str, Axes]:
    return {"w": tuple(range(-len(layer.kernel_shape) - 2, -1)), "b": ELEMENTWISE}


def conv_transpose(layer: hk.ConvNDTranspose, *_: Any) -> Mapping[str, Axes]:
    window = tuple(range(-len(layer.kernel_shape) - 2, -2))
    return {"w": (*window, -1), "b": ELEMENTWISE}  # (*window, out, in)


def embed(*_: Any) -> Mapping[str, Axes]:
    return {"embeddings": LOOKED_UP}  # by index or by one-hot matrix


def gru(*_: Any) -> Mapping[str, Axes]:
    return {"w_i": (-2,), "w_h": (-2,)}


def norm(*_: Any) -> Mapping[str, Axes]:
    return {"scale": ELEMENTWISE, "offset": ELEMENTWISE}


LAYERS: Mapping[type, Rule] = {
    hk.Linear: linear,
    hk.ConvND: conv,
    hk.ConvNDTranspose: conv_transpose,
    hk.DepthwiseConv1D.__base__: conv,  # `DepthwiseConvND`, which has no public name
    hk.Embed: embed,
    hk.GRU: gru,
    hk.BatchNorm: norm,
    hk.GroupNorm: norm,
    hk.LayerNorm: norm,
    hk.RMSNorm: norm,
}


def record(run: Callable[[], Any], layers: Mapping[type, Rule] = LAYERS) -> Truth:
    """Returns how ``run()`` uses the parameters of each layer, by their paths."""
    uses: Truth = defaultdict(set)

    def intercept(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: hk.MethodContext,
    ) -> Any:
        layer = context.module
        rule = next((layers[c] for c in type(layer).__mro__ if c in layers), None)
        if rule and context.method_name != "__init__":
            for name, axes in rule(layer, context.method_name).items():
                for prefix in ("", STACK):
                    uses[f"{prefix}{layer.module_name}/{name}"].add(axes)
        return call(*args, **kwargs)

    with hk.intercept_methods(intercept):
        run()
    return uses


def model(
    forward: Callable[..., Any],
    *inputs: Any,
    layers: Mapping[type, Rule] = LAYERS,
    also: Mapping[Path, Axes] | None = None,
    unused: tuple[Path, ...] = (),
) -> Model:
    """Returns a model from a function that calls modules, given its inputs' shapes."""
    transformed, key = hk.transform_with_state(forward), jax.random.key(0)
    params, state = jax.eval_shape(transformed.init, key, *inputs)

    def apply(params: Any, state: Any, *inputs: Any) -> Any:
        return transformed.apply(params, state, key, *inputs)

    arguments = (state, *inputs)
    run = functools.partial(jax.eval_shape, apply, params, *arguments)
    return make(params, apply, arguments, record(run, layers), also, unused)
