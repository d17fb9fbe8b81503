"""TPU v5e chips to compile for without having any: `pip install libtpu` is enough."""

import importlib.util
import os
import sys

import numpy as np
from jax.sharding import Mesh

# Ask no metadata server, and lock no TPU, because there is none.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
GRIDS = ((1, 1), (2, 2), (16, 16))


def begin() -> None:
    """Makes JAX compile for chips that are not there; exits if that is impossible.

    Call it before JAX does anything.
    """
    if importlib.util.find_spec("libtpu") is None:
        sys.exit(
            "libtpu is not installed: pip install libtpu==0.0.42.1 (no TPU needed)"
        )
    os.environ.update(ENVIRONMENT)


def tpu_mesh(grid: tuple[int, int]) -> Mesh:
    """Returns a mesh of TPU v5e chips, rows "x" and columns "y"; none need exist."""
    from jax.experimental import topologies

    rows, columns = grid
    bounds = (min(rows, 2), min(columns, 2), 1)
    topology = topologies.get_topology_desc(
        f"v5e:{rows}x{columns}", platform="tpu", chips_per_host_bounds=bounds
    )
    return Mesh(np.array(topology.devices).reshape(grid), ("x", "y"))
