"""PDEquinox's emulators of partial differential equations, in Equinox."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from pdequinox import arch, conv

from benchmarks.reading.models import equinox_layers
from benchmarks.reading.models.model import Axes, Model


def spectral(layer: conv.SpectralConv) -> Mapping[str, Axes]:
    # (groups of modes, out, in, *modes): one matrix for each mode
    inputs = (-layer.num_spatial_dims - 1,)
    return {"weights_real": inputs, "weights_imag": inputs}


LAYERS = {
    **equinox_layers.LAYERS,
    conv.SpectralConv: spectral,
    conv.PhysicsConv: equinox_layers.conv,
    conv.PhysicsConvTranspose: equinox_layers.conv,
}


def build(network: Callable[..., Any], dimensions: int, **options: Any) -> Model:
    """Returns an emulator from two fields to three, on a small grid."""
    create = functools.partial(
        network, dimensions, 2, 3, key=jax.random.key(0), **options
    )
    fields = jax.ShapeDtypeStruct((2, *(32,) * dimensions), jnp.float32)
    return equinox_layers.model(create, fields, layers=LAYERS)


MODELS: Mapping[str, Callable[[], Model]] = {
    **{
        f"{name}, {dimensions}D": functools.partial(
            build, getattr(arch, name), dimensions, hidden_channels=8
        )
        for name in (
            "ClassicFNO",
            "ClassicResNet",
            "ModernResNet",
            "DilatedResNet",
            "ClassicUNet",
            "ModernUNet",
            "ConvNet",
        )
        for dimensions in (1, 2)
    },
    "ClassicFNO, 3D": lambda: build(
        arch.ClassicFNO, 3, hidden_channels=6, num_modes=4, num_blocks=2
    ),
    "MLP": lambda: build(arch.MLP, 1, num_points=32, width_size=20),
}
