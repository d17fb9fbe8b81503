"""Which examples share a step, and how they are dealt out to the devices."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.engine.task import Examples, take


class Batch(NamedTuple):
    """Examples that share a step, spread over the devices along the first axis.

    Each example has an int32 position in the batch, `(B,)`. Positions past the batch's
    count are padding. Examples are dealt out to the devices in turn, so that every
    device has its share of a short batch.
    """

    examples: Examples
    positions: Array | np.ndarray


def all_devices() -> Mesh:
    """Returns the mesh of all devices, over which batches are split."""
    return jax.make_mesh((jax.device_count(),), ("batch",))


def padded_size(batch_size: int, mesh: Mesh) -> int:
    """Returns the batch size, rounded up to a multiple of the number of devices."""
    return math.ceil(batch_size / mesh.size) * mesh.size


def deal(examples: Examples, indices: np.ndarray, batch_size: int, mesh: Mesh) -> Batch:
    """Returns the batch of the examples `indices` on the devices, dealt out in turn.

    It is padded to `batch_size`, rounded up to a multiple of the number of devices.
    """
    size = padded_size(batch_size, mesh)
    rows, positions = dealt(indices, size, mesh), order(size, mesh)
    sharding = NamedSharding(mesh, P("batch"))

    def put(x: np.ndarray) -> Array:
        # Each process is asked only for what its own devices hold.
        return jax.make_array_from_callback(
            (size, *x.shape[1:]), sharding, lambda index: take(x, rows[index[0]])
        )

    at = spread(positions, P("batch"), mesh)
    return Batch(jax.tree.map(put, examples), at)


def spread(x: np.ndarray, spec: P, mesh: Mesh) -> Array:
    """Returns an array that is the same in every process, split over the devices."""
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def order(size: int, mesh: Mesh) -> np.ndarray:
    """Returns the positions in the batch, int32 `(size,)`, in the devices' order."""
    return np.arange(size, dtype=np.int32).reshape(-1, mesh.size).T.ravel()


def dealt(indices: np.ndarray, size: int, mesh: Mesh) -> np.ndarray:
    """Returns the indices, padded with 0 to `size`, in the devices' order."""
    return np.pad(indices, (0, size - len(indices)))[order(size, mesh)]


def batch_shapes(examples: Examples, size: int, mesh: Mesh) -> Batch:
    """Returns the shapes of a batch of `size` examples, spread over the devices."""
    spread = NamedSharding(mesh, P("batch"))

    def shape_of(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=spread)

    positions = jax.ShapeDtypeStruct((size,), np.int32, sharding=spread)
    return Batch(jax.tree.map(shape_of, examples), positions)


def epoch_batches(
    seed: int, epoch: int, size: int, batch_size: int, *, keep_rest: bool
) -> list[np.ndarray]:
    """Returns the indices of an epoch's batches, int64, each example at most once.

    All batches have `batch_size` examples. With `keep_rest`, what is left over makes a
    smaller one; otherwise it is left out.
    """
    order = np.random.default_rng((seed, epoch)).permutation(size)
    if not keep_rest:
        order = order[: size // batch_size * batch_size]
    return np.split(order, range(batch_size, len(order), batch_size))


def steps_an_epoch(size: int, batch_size: int, *, keep_rest: bool) -> int:
    """Returns the number of batches that `epoch_batches` makes."""
    return math.ceil(size / batch_size) if keep_rest else size // batch_size
