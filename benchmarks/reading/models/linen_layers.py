"""What Flax Linen's own layers contract, recorded while a model runs."""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax

from benchmarks.reading.models.model import (
    ELEMENTWISE,
    LOOKED_UP,
    Axes,
    Model,
    Path,
    Truth,
    einsum_axes,
    make,
)

# From a layer, its method's name and arguments to the axes of its parameters, by name.
Rule: TypeAlias = Callable[[Any, str, tuple[Any, ...]], Mapping[str, Axes]]


def dense(*_: Any) -> Mapping[str, Axes]:
    return {"kernel": (-2,), "bias": ELEMENTWISE}


def dense_general(layer: nn.DenseGeneral, *_: Any) -> Mapping[str, Axes]:
    inputs = len(_as_tuple(layer.axis))
    outputs = len(_as_tuple(layer.features))
    return {"kernel": tuple(range(-inputs - outputs, -outputs)), "bias": ELEMENTWISE}


def conv(layer: nn.Conv, *_: Any) -> Mapping[str, Axes]:
    inputs = tuple(range(-len(_as_tuple(layer.kernel_size)) - 2, -1))
    return {"kernel": inputs, "bias": ELEMENTWISE}


def conv_local(*_: Any) -> Mapping[str, Axes]:
    return {"kernel": (-2,), "bias": ELEMENTWISE}  # (*positions, window * in, out)


def conv_transpose(layer: nn.ConvTranspose, *_: Any) -> Mapping[str, Axes]:
    window = tuple(range(-len(_as_tuple(layer.kernel_size)) - 2, -2))
    # With `transpose_kernel` the kernel is that of the convolution it transposes.
    return {"kernel": (*window, -1 if layer.transpose_kernel else -2)}


def embed(layer: nn.Embed, method: str, _: Any) -> Mapping[str, Axes]:
    return {"embedding": (-1,) if method == "attend" else LOOKED_UP}


def einsum(layer: nn.Einsum, method: str, args: tuple[Any, ...]) -> Mapping[str, Axes]:
    if method != "__call__":
        return {}
    equation = args[1] if len(args) > 1 else layer.einsum_str
    return {"kernel": einsum_axes(equation), "bias": ELEMENTWISE}


def norm(*_: Any) -> Mapping[str, Axes]:
    return {"scale": ELEMENTWISE, "bias": ELEMENTWISE}


LAYERS: Mapping[type, Rule] = {
    nn.Dense: dense,
    nn.recurrent.DenseParams: dense,
    nn.DenseGeneral: dense_general,
    nn.Conv: conv,
    nn.ConvLocal: conv_local,
    nn.ConvTranspose: conv_transpose,
    nn.Embed: embed,
    nn.Einsum: einsum,
    nn.BatchNorm: norm,
    nn.LayerNorm: norm,
    nn.RMSNorm: norm,
    nn.GroupNorm: norm,
    nn.InstanceNorm: norm,
}


def record(run: Callable[[], Any], layers: Mapping[type, Rule] = LAYERS) -> Truth:
    """Returns how the parameters of each layer are used by ``run()``, by their paths.

    Args:
      run: Traces the model.
      layers: The rule for each class, including its subclasses.
    """
    uses: Truth = defaultdict(set)

    def intercept(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer = context.module
        rule = next((layers[c] for c in type(layer).__mro__ if c in layers), None)
        if rule and context.method_name != "setup":
            for name, axes in rule(layer, context.method_name, args).items():
                uses["/".join((*layer.path, name))].add(axes)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        run()
    return uses


def model(
    module: nn.Module,
    *inputs: Any,
    also: Mapping[Path, Axes] | None = None,
    unused: tuple[Path, ...] = (),
    layers: Mapping[type, Rule] = LAYERS,
    named: Mapping[str, Any] | None = None,
    **options: Any,
) -> Model:
    """Returns the model of a module called with shapes of inputs and with options."""
    named = named or {}
    key = jax.random.key(0)
    keys = {"params": key, "dropout": key}
    init = functools.partial(module.init, **options)
    variables = jax.eval_shape(init, keys, *inputs, **named)
    params = variables.pop("params")
    mutable = [*variables]

    def apply(params: Any, state: Any, named: Any, *inputs: Any) -> Any:
        variables = {"params": params, **state}
        call = functools.partial(module.apply, mutable=mutable, rngs=keys, **options)
        return call(variables, *inputs, **named)

    arguments = (variables, named, *inputs)
    traced = functools.partial(jax.eval_shape, apply, params, *arguments)
    return make(params, apply, arguments, record(traced, layers), also, unused)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
