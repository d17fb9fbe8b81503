"""What Equinox's own layers contract, by the class that holds each array."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_leaves_with_path

from benchmarks.reading.models.model import (
    ELEMENTWISE,
    LOOKED_UP,
    Axes,
    Model,
    Path,
    Rule,
    Truth,
    always,
    make,
)


def conv(layer: Any) -> Mapping[str, Axes]:
    inputs = tuple(range(-layer.num_spatial_dims - 1, 0))  # (out, in, *window)
    return {"weight": inputs, "bias": ELEMENTWISE}


NORM = always(weight=ELEMENTWISE, bias=ELEMENTWISE)
RECURRENT = always(weight_ih=(-1,), weight_hh=(-1,))
LAYERS: Mapping[type, Rule] = {
    eqx.nn.Linear: always(weight=(-1,), bias=ELEMENTWISE),
    eqx.nn.Conv: conv,
    eqx.nn.ConvTranspose: conv,
    eqx.nn.Embedding: always(weight=LOOKED_UP),
    eqx.nn.GRUCell: RECURRENT,
    eqx.nn.LSTMCell: RECURRENT,
    eqx.nn.LayerNorm: NORM,
    eqx.nn.RMSNorm: NORM,
    eqx.nn.GroupNorm: NORM,
    eqx.nn.BatchNorm: NORM,
}


def read(model: eqx.Module, layers: Mapping[type, Rule]) -> Truth:
    """Returns how the arrays of each layer are used, by their paths.

    A module that holds arrays besides its layers may have a rule for these.
    """

    def rule(node: Any) -> Rule | None:
        return next((layers[c] for c in type(node).__mro__ if c in layers), None)

    uses: Truth = {}

    def visit(node: Any, path: tuple[Any, ...]) -> None:
        if found := rule(node):
            for name, axes in found(node).items():
                uses[_path((*path, jax.tree_util.GetAttrKey(name)))] = {axes}
        below = tree_leaves_with_path(
            node, is_leaf=lambda x: x is not node and rule(x) is not None
        )
        for key, child in below:
            if child is not node and rule(child):
                visit(child, (*path, *key))

    visit(model, ())
    return uses


def model(
    create: Callable[[], Any],
    *inputs: Any,
    call: Callable[..., Any] | None = None,
    layers: Mapping[type, Rule] = LAYERS,
    also: Mapping[Path, Axes] | None = None,
    unused: tuple[Path, ...] = (),
) -> Model:
    """Returns the model that `create` makes, and its state if it has one.

    `call` takes the model (and its state) and the inputs; by default, it is called.
    """
    made = eqx.filter_eval_shape(create)
    module, *state = made if isinstance(made, tuple) else (made,)
    params, rest = eqx.partition(module, _is_trained)
    arrays, static = eqx.partition((rest, *state), _is_shape)

    def apply(params: Any, arrays: Any, *inputs: Any) -> Any:
        rest, *state = eqx.combine(arrays, static)
        module = eqx.combine(params, rest)
        outputs = (call or (lambda module, *x: module(*x)))(module, *state, *inputs)
        return eqx.filter(outputs, eqx.is_array)

    uses = read(module, layers)
    return make(params, apply, (arrays, *inputs), uses, also, unused)


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _is_trained(x: Any) -> bool:
    return _is_shape(x) and jnp.issubdtype(x.dtype, jnp.inexact)


def _path(keys: tuple[Any, ...]) -> Path:
    return keystr(keys, simple=True, separator="/")
