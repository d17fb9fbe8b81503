"""The update of each arm, compiled for chips over which the kernels are sharded."""

import math

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.table import Table

from benchmarks.cost import chips, trees, updates
from benchmarks.cost.hlo import collectives, hbm_bytes, summary
from benchmarks.cost.tables import blank_table
from optax_gc import describe

LAYOUTS = ("replicated", "outputs", "fan-in")


def shard(params: trees.Tree, layout: str, mesh: Mesh) -> trees.Tree:
    """Returns `params` with a sharding over `mesh` at each leaf.

    Each centralized kernel is split along its longest output or fan-in axis, over as
    many chips as divide it. All other leaves, and all leaves if `layout` is
    "replicated", are whole on each chip.
    """
    rows = iter(describe(params).rows)

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        axes = _axes_to_split(leaf.shape, next(rows).axes, layout)
        return leaf.update(sharding=NamedSharding(mesh, _spec(leaf.shape, axes, mesh)))

    return jax.tree.map(place, params)


def _axes_to_split(
    shape: tuple[int, ...], fan_in: tuple[int, ...] | None, layout: str
) -> list[int]:
    if layout == "replicated" or fan_in is None:
        return []
    split_fan_in = layout == "fan-in"
    return [axis for axis in range(len(shape)) if (axis in fan_in) == split_fan_in]


def _spec(shape: tuple[int, ...], axes: list[int], mesh: Mesh) -> PartitionSpec:
    """Returns the widest sharding along the longest of `axes` that divides it."""
    if not axes:
        return PartitionSpec()
    axis = max(axes, key=lambda axis: shape[axis])
    for names in (("x", "y"), ("y",)):
        if shape[axis] % math.prod(mesh.shape[name] for name in names) == 0:
            return PartitionSpec(*[None] * axis, names)
    return PartitionSpec()


def compile_for_tpu(arm: str, optimizer: str, params: trees.Tree) -> str:
    """Returns the compiled HLO text of one arm's update for the chips of `params`."""
    centralize = updates.CENTRALIZE[arm]
    traced = updates.trace_update(centralize, updates.OPTIMIZERS[optimizer], params)
    return traced.lower().compile().as_text()


def measure(model: str, optimizer: str) -> Table:
    """Returns a table of one model's update, by grid of chips and layout of kernels."""
    columns = (*(f"bytes, {arm}" for arm in updates.ARMS), "collectives of optax_gc")
    title = f"{model}, {optimizer}: HBM bytes per parameter"
    table = blank_table(title, "TPU v5e", "kernels", *columns)
    for grid in chips.GRIDS:
        mesh = chips.tpu_mesh(grid)
        for layout in LAYOUTS if mesh.size > 1 else LAYOUTS[:1]:
            params = shard(updates.MODELS[model](), layout, mesh)
            hlo = [compile_for_tpu(arm, optimizer, params) for arm in updates.ARMS]
            cells = [f"{hbm_bytes(text) / local_count(params):.1f}" for text in hlo]
            name = "x".join(map(str, grid))
            table.add_row(name, layout, *cells, summary(collectives(hlo[-1])))
    return table


def local_count(params: trees.Tree) -> int:
    """Returns how many numbers of `params` one chip holds."""
    leaves = jax.tree.leaves(params)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
