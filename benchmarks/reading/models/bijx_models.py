"""Bijx's normalizing flows and its symmetric convolutions, in Flax NNX."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import bijx
import jax
import jax.numpy as jnp
from bijx.bijections.conv_cnf import ConvVF
from bijx.nn import conv, embeddings, features, nets
from flax import nnx

from benchmarks.reading.models import nnx_layers
from benchmarks.reading.models.model import ELEMENTWISE, Axes, Model, Path, always

LAYERS = {
    **nnx_layers.LAYERS,
    (conv.ConvSym, "__call__"): always(kernel_params=(-3, -2)),  # (orbits, in, out)
    (embeddings.KernelReduced, "__call__"): always(superposition=(-1,)),
    (features.FourierFeatures, "apply_feature_map"): always(phi_freq=ELEMENTWISE),
}


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def flow(create: Callable[..., Any], event: tuple[int, ...], **options: Any) -> Model:
    """Returns a flow, by what it makes of a batch, with the density's logarithm."""
    return nnx_layers.model(
        functools.partial(create, rngs=nnx.Rngs(0), **options),
        shape(4, *event),
        shape(4),
        layers=LAYERS,
        call=lambda module, x, density: module.forward(x, density),
        fixed=True,
    )


def layer(
    create: Callable[..., Any],
    *inputs: Any,
    also: Mapping[Path, Axes] | None = None,
) -> Model:
    return nnx_layers.model(
        lambda: create(rngs=nnx.Rngs(0)),
        *inputs,
        layers=LAYERS,
        also=also,
        fixed=True,
    )


def spline(rngs: nnx.Rngs) -> Any:
    return bijx.MonotoneRQSpline(8, (), rngs=rngs)


def field(**options: Any) -> Callable[..., Any]:
    return functools.partial(
        ConvVF.build,
        (3, 3),
        features=(functools.partial(features.FourierFeatures, 9),
                  functools.partial(features.PolynomialFeatures, (1,))),
        time_kernel=embeddings.KernelFourier(11),
        **options,
    )  # fmt: skip


# A kernel for each of the time's features: (orbits, in, times), all of which an output
# sums over. The features that go into it are combined from all; the divergence sums
# over those too.
FIELD = {"conv/kernel_params": (-3, -2, -1), "feature_superposition": (-1,)}
DIVERGENCE = {"feature_super*": (-2, -1)}
MODELS: Mapping[str, Callable[[], Model]] = {
    "RealNVP": lambda: flow(bijx.realnvp_flow, (8,), event_size=8, width=32),
    "RealNVP, convolutional": lambda: flow(
        bijx.realnvp_conv_flow, (6, 6, 2), event_shape=(6, 6, 2)
    ),
    "spline coupling": lambda: flow(
        bijx.coupling_flow, (8,), event_size=8, bijection_factory=spline, width=32
    ),
    "ConvNet": lambda: layer(functools.partial(nets.ConvNet, 3, 5), shape(2, 8, 8, 3)),
    "ResNet": lambda: layer(functools.partial(nets.ResNet, 7, 5, 16, 2), shape(2, 7)),
    "ConvSym": lambda: layer(
        functools.partial(conv.ConvSym, 4, 6, (5, 5)), shape(2, 8, 8, 4)
    ),
    "ConvSym, by distance": lambda: layer(
        functools.partial(
            conv.ConvSym, 4, 6, (5, 5), orbit_function=conv.kernel_equidist
        ),
        shape(2, 8, 8, 4),
    ),
    "ConvSym, without symmetry": lambda: layer(
        functools.partial(conv.ConvSym, 4, 6, (3, 3), None), shape(2, 8, 8, 4)
    ),
    "convolutional CNF": lambda: layer(
        field(time_kernel_reduced=5, features_reduced=6),
        shape(),
        shape(2, 8, 8),
        also=FIELD | DIVERGENCE,
    ),
}
