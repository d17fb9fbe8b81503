"""JaxKAN's Kolmogorov-Arnold networks, in Flax NNX, by each of its bases."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxkan.layers import RBF, Chebyshev, Dense, Fourier, Legendre, Sine, Spline
from jaxkan.models import KAN, KKAN, RGAKAN, ActNet

from benchmarks.reading.models import nnx_layers
from benchmarks.reading.models.model import ELEMENTWISE, Axes, Model, Path, always

X = jax.ShapeDtypeStruct((6, 3), jnp.float32)
# (out, in, basis): an output sums over the inputs and the functions of each. What
# weighs an input's functions, or the input itself, is summed over the inputs.
BASIS = always(
    c_basis=(-2, -1), c_ext=(-1,), c_spl=(-1,), c_res=(-1,), omega=ELEMENTWISE,
    phase=ELEMENTWISE,
)  # fmt: skip
LAYERS = {
    **nnx_layers.LAYERS,
    **{
        (layer, "__call__"): BASIS
        for layer in (
            Chebyshev.ChebyshevLayer,
            Legendre.LegendreLayer,
            RBF.RBFLayer,
            Sine.SineLayer,
            Spline.SplineLayer,
        )
    },
    (Fourier.FourierLayer, "__call__"): always(c_cos=(-2, -1), c_sin=(-2, -1)),
    (Dense.DenseLayer, "__call__"): always(v=(-2,), g=ELEMENTWISE),
    # `beta` (out, basis) is summed over the basis, `Lambda` (out, in) over the inputs.
    (ActNet.ActLayer, "__call__"): always(beta=(-1,), Lambda=(-1,)),
}


def build(
    create: Callable[..., nnx.Module],
    also: Mapping[Path, Axes] | None = None,
    **options: Any,
) -> Model:
    return nnx_layers.model(
        functools.partial(create, **options), X, layers=LAYERS, also=also, fixed=True
    )


def kan(layer: str, **parameters: Any) -> Model:
    return build(
        KAN.KAN, layer_dims=[3, 8, 4], layer_type=layer, required_parameters=parameters
    )


MODELS: Mapping[str, Callable[[], Model]] = {
    **{
        layer: functools.partial(kan, layer, **options, external_weights=True)
        for layer, options in {
            "chebyshev": {"D": 5, "flavor": "exact"},
            "legendre": {"D": 5, "flavor": "exact"},
            "rbf": {"D": 5},
            "sine": {"D": 5},
            "spline": {"k": 3, "G": 4},
        }.items()
    },
    "chebyshev, with a residual": lambda: kan(
        "chebyshev", D=5, flavor="exact", residual=nnx.silu
    ),
    "legendre, without weights": lambda: kan("legendre", D=4, external_weights=False),
    "fourier": lambda: kan("fourier", D=5),
    "ActNet": lambda: build(ActNet.ActNet, layer_dims=[3, 8, 8, 4], N=5),
    "KKAN": lambda: build(KKAN.KKAN, n_in=3, n_out=4, m=8, H=10, L=2),
    "RGA-KAN": lambda: build(
        RGAKAN.RGAKAN,
        n_in=3,
        n_out=2,
        n_hidden=10,
        num_blocks=2,
        D=5,
        sine_D=4,
        rff_std=1.0,
        also={"FE/B": (-2,)},
    ),
}
