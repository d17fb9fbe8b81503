"""NetKet's wave functions: Boltzmann machines, GCNNs, autoregressive networks."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import netket as nk
from netket.nn import symmetric_linear

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import ELEMENTWISE, LOOKED_UP, Axes, Model, Path

SITES = 8
CHAIN = nk.graph.Chain(SITES)
SQUARE = nk.graph.Square(4)
SPINS = nk.hilbert.Spin(0.5, SITES)
FERMIONS = nk.hilbert.SpinOrbitalFermions(6, s=1 / 2, n_fermions_per_spin=(2, 2))
PARTICLES = nk.experimental.hilbert.Particle(
    5, geometry=nk.experimental.geometry.Cell(d=3, L=4.0)
)


def masked_dense(*_: Any) -> Mapping[str, Axes]:
    return {"kernel": (-2,), "bias": ELEMENTWISE}  # (sites * in, sites * out)


def masked_conv(layer: Any, *_: Any) -> Mapping[str, Axes]:
    size = layer.kernel_size
    window = 1 if isinstance(size, int) else len(size)
    return {"kernel": tuple(range(-window - 2, -1))}


def symmetric(*_: Any) -> Mapping[str, Axes]:
    return {"kernel": (-2, -1)}  # (out, in, sites or symmetries)


LAYERS = {
    **linen_layers.LAYERS,
    nk.nn.MaskedDense1D: masked_dense,
    nk.nn.FastMaskedDense1D: masked_dense,
    nk.nn.MaskedConv1D: masked_conv,
    nk.nn.MaskedConv2D: masked_conv,
    nk.nn.FastMaskedConv1D: masked_conv,
    nk.nn.FastMaskedConv2D: masked_conv,
    **dict.fromkeys(
        (
            symmetric_linear.DenseSymmMatrix,
            symmetric_linear.DenseSymmFFT,
            symmetric_linear.DenseEquivariantMatrix,
            symmetric_linear.DenseEquivariantFFT,
            symmetric_linear.DenseEquivariantIrrep,
        ),
        symmetric,
    ),
}


def build(
    module: Any,
    inputs: Any = None,
    also: Mapping[Path, Axes] | None = None,
) -> Model:
    """Returns the model of a wave function, for a few configurations."""
    inputs = inputs or jax.ShapeDtypeStruct((3, SITES), jnp.float32)
    return linen_layers.model(module, inputs, layers=LAYERS, also=also)


def spins(name: str, sites: int = SITES, **options: Any) -> Model:
    module = getattr(nk.models, name)(param_dtype=jnp.float32, **options)
    return build(module, jax.ShapeDtypeStruct((3, sites), jnp.float32))


def autoregressive(name: str, **options: Any) -> Model:
    return spins(name, hilbert=SPINS, layers=3, features=6, **options)


def gcnn(graph: Any, **options: Any) -> Model:
    """Returns a group convolution over the symmetries of a lattice."""
    module = nk.models.GCNN(
        graph, layers=3, features=5, param_dtype=jnp.float32, **options
    )
    return build(module, jax.ShapeDtypeStruct((3, graph.n_nodes), jnp.float32))


def matrix_product(name: str, **options: Any) -> Model:
    """Returns a chain of matrices, one of each site's looked up by its spin.

    The row vector (a row of the matrix) on its left is multiplied with each in turn.
    """
    module = getattr(nk.models.tensor_networks, name)(
        hilbert=SPINS, bond_dim=5, param_dtype=jnp.float32, **options
    )
    edges = {"left_tensors": LOOKED_UP, "right_tensors": (-1,)}
    chain = {"tensors": (-2,), "middle_tensors": (-2,)}
    return build(module, also=edges | chain)


def fermions(name: str, **options: Any) -> Model:
    """Returns determinants of the rows of the orbitals that are occupied."""
    module = getattr(nk.models, name)(FERMIONS, param_dtype=jnp.float32, **options)
    occupied = jax.ShapeDtypeStruct((3, FERMIONS.size), jnp.int32)
    return build(module, occupied, also={"*M*": LOOKED_UP})


MODELS: Mapping[str, Callable[[], Model]] = {
    "RBM": lambda: spins("RBM", alpha=3),
    "RBM, with a phase": lambda: spins("RBMModPhase", alpha=3),
    "RBM, many values": lambda: spins("RBMMultiVal", alpha=3, n_classes=4),
    "RBM, symmetric": lambda: spins(
        "RBMSymm", symmetries=CHAIN.translation_group(), alpha=3
    ),
    "NDM": lambda: spins("NDM", 2 * SITES, alpha=2, beta=3),
    "MLP": lambda: spins("MLP", hidden_dims=(12, 10)),
    "Gaussian": lambda: build(
        nk.models.Gaussian(param_dtype=jnp.float32), also={"kernel": (-1,)}
    ),
    "DeepSet, of distances": lambda: build(
        nk.models.DeepSetRelDistance(
            PARTICLES,
            layers_phi=2,
            layers_rho=2,
            features_phi=(7, 9),
            features_rho=(6, 1),
            param_dtype=jnp.float32,
        ),
        jax.ShapeDtypeStruct((3, PARTICLES.size), jnp.float32),
    ),
    "GCNN, FFT": lambda: gcnn(CHAIN, mode="fft"),
    "GCNN, irreps": lambda: gcnn(CHAIN, mode="irreps"),
    "GCNN, square, FFT": lambda: gcnn(SQUARE, mode="fft"),
    "GCNN, square, irreps": lambda: gcnn(SQUARE, mode="irreps"),
    "GCNN, of one parity": lambda: gcnn(CHAIN, mode="fft", parity=1),
    "GCNN, with a mask": lambda: gcnn(
        CHAIN, mode="fft", input_mask=jnp.arange(SITES) < 5
    ),
    "ARNNDense": lambda: autoregressive("ARNNDense"),
    "ARNNConv1D": lambda: autoregressive("ARNNConv1D", kernel_size=3),
    "ARNNConv2D": lambda: spins(
        "ARNNConv2D",
        16,
        hilbert=nk.hilbert.Spin(0.5, 16),
        layers=3,
        features=6,
        kernel_size=(3, 3),
    ),
    "FastARNNDense": lambda: autoregressive("FastARNNDense"),
    "FastARNNConv1D": lambda: autoregressive("FastARNNConv1D", kernel_size=3),
    "MPS, open": lambda: matrix_product("MPSOpen"),
    "MPS, periodic": lambda: matrix_product("MPSPeriodic", symperiod=2),
    "Slater determinant": lambda: fermions("Slater2nd"),
    "Slater determinant, of two spins": lambda: fermions("Slater2nd", restricted=False),
    "Slater determinant, general": lambda: fermions("Slater2nd", generalized=True),
    "Slater determinants": lambda: fermions("MultiSlater2nd", n_determinants=4),
}
