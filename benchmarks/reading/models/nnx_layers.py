"""What Flax NNX's own layers contract, recorded while a model runs."""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from unittest import mock

import jax
from flax import nnx

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

# For each method of a layer that uses some of its parameters.
Layers: TypeAlias = Mapping[tuple[type, str], Rule]


def conv(layer: nnx.Conv) -> Mapping[str, Axes]:
    return {"kernel": tuple(range(-len(layer.kernel_shape), -1))}


LAYERS: Layers = {
    (nnx.Linear, "__call__"): always(kernel=(-2,)),
    (nnx.Conv, "__call__"): conv,
    (nnx.Embed, "__call__"): always(embedding=LOOKED_UP),
    (nnx.Embed, "attend"): always(embedding=(-1,)),
    (nnx.LayerNorm, "__call__"): always(scale=ELEMENTWISE, bias=ELEMENTWISE),
}


@contextlib.contextmanager
def recording(model: nnx.Module, layers: Layers, uses: Truth) -> Iterator[None]:
    """Notes in `uses` what the layers of `model` do with their parameters."""
    paths = {id(node): path for path, node in nnx.iter_graph(model)}

    def noting(method: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            path = paths.get(id(layer))  # None of one that is made on the way
            for name, axes in rule(layer).items() if path is not None else ():
                uses["/".join(map(str, (*path, name)))].add(axes)
            return method(layer, *args, **kwargs)

        return call

    with contextlib.ExitStack() as patches:
        for (layer, name), rule in layers.items():
            method = noting(getattr(layer, name), rule)
            patches.enter_context(mock.patch.object(layer, name, method))
        yield


def model(
    create: Callable[[], nnx.Module],
    *inputs: Any,
    also: Mapping[Path, Axes] | None = None,
    unused: tuple[Path, ...] = (),
    layers: Layers = LAYERS,
    call: Callable[..., Any] = lambda module, *inputs, **named: module(
        *inputs, **named
    ),
    fixed: bool = False,
    **named: Any,
) -> Model:
    """Returns the model that `create` makes, called with inputs (or their shapes).

    Args:
      call: takes the module and the inputs; by default, it is called.
      fixed: whether what is no parameter is held fixed, as tables and masks are. It is
        made for that; otherwise its shapes are among the arguments, as a state is.
    """
    module = create() if fixed else nnx.eval_shape(create)
    graph, params, state = nnx.split(module, nnx.Param, ...)

    def merged(params: Any, rest: Any) -> nnx.Module:
        return nnx.merge(graph, params, state if fixed else rest)

    def apply(params: Any, rest: Any, named: Any, *inputs: Any) -> Any:
        return call(merged(params, rest), *inputs, **named)

    def recorded(params: Any, rest: Any, named: Any, *inputs: Any) -> Any:
        model = merged(params, rest)
        with recording(model, layers, uses):
            return call(model, *inputs, **named)

    uses: Truth = defaultdict(set)
    arguments = (() if fixed else state, named, *inputs)
    jax.eval_shape(recorded, params, *arguments)
    return make(params, apply, arguments, uses, also, unused)
