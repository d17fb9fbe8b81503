"""OTT's potentials of optimal transport in Flax Linen, and its velocities in NNX."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ott.neural.networks import icnn, potentials
from ott.neural.networks.layers import posdef
from ott.neural.networks.velocity_field import mlp, unet

from benchmarks.reading.models import linen_layers, nnx_layers
from benchmarks.reading.models.model import ELEMENTWISE, Axes, Model, always

POINTS = jax.ShapeDtypeStruct((5, 7), jnp.float32)
TIMES = jax.ShapeDtypeStruct((5,), jnp.float32)


def positive(*_: Any) -> Mapping[str, Axes]:
    return {"kernel": (-2,)}


def quadratic(*_: Any) -> Mapping[str, Axes]:
    # Sums over the data's dimensions: of squares, of x, and of x before it is squared.
    return dict.fromkeys(("diag_kernel", "quad_kernel", "lin_kernel"), (-2,))


LAYERS = {
    **linen_layers.LAYERS,
    posdef.PositiveDense: positive,
    posdef.PosDefPotentials: quadratic,
}
NNX_LAYERS = {
    **nnx_layers.LAYERS,
    (nnx.GroupNorm, "__call__"): always(scale=ELEMENTWISE, bias=ELEMENTWISE),
}


def potential(module: Any) -> Model:
    return linen_layers.model(module, POINTS, layers=LAYERS)


def velocity(
    create: Callable[[], nnx.Module], points: Any = POINTS, **named: Any
) -> Model:
    return nnx_layers.model(create, TIMES, points, layers=NNX_LAYERS, **named)


def small_unet(**options: Any) -> nnx.Module:
    return unet.UNet(
        shape=(16, 16, 3),
        model_channels=32,
        num_res_blocks=1,
        attention_resolutions=(8,),
        channel_mult=(1, 2),
        rngs=nnx.Rngs(0),
        **options,
    )


IMAGES = jax.ShapeDtypeStruct((5, 16, 16, 3), jnp.float32)
MODELS: Mapping[str, Callable[[], Model]] = {
    "ICNN": lambda: potential(icnn.ICNN(7, (16, 12))),
    "ICNN, positive, of rank 3": lambda: potential(
        icnn.ICNN(7, (16, 12), ranks=3, pos_weights=True)
    ),
    "PotentialMLP": lambda: potential(potentials.PotentialMLP((16, 12))),
    "PotentialMLP, of gradients": lambda: potential(
        potentials.PotentialMLP((16, 12), is_potential=False)
    ),
    "MLP": lambda: potential(potentials.MLP((16, 12))),
    "velocity MLP": lambda: velocity(
        lambda: mlp.MLP(7, hidden_dims=[16, 12], cond_dim=0, rngs=nnx.Rngs(0))
    ),
    "UNet": lambda: velocity(small_unet, IMAGES),
}
