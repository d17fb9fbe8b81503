"""What centralizing costs on TPUs, read from programs that are compiled and not run.

    pip install libtpu==0.0.42.1
    python -m benchmarks.tpu_aot           # GPT-2; no TPU needed

The updates of `overhead.py` are compiled ahead of time for a topology of TPU v5e chips.
Of the program of one chip we count the bytes that it moves between HBM and the cores,
by the logical shapes, and the operands of its collectives.
"""

import importlib.util
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from benchmarks import commands, overhead, trees
from optax_gc import describe

# No metadata server is asked, and no file locks a TPU that is not there.
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
GRIDS = ((1, 1), (2, 2), (16, 16))
LAYOUTS = ("replicated", "outputs", "fan-in")

_INSTRUCTION = re.compile(r"^ +(?:ROOT )?(%\S+) = (.+?) ([a-z][a-z0-9-]*)\((.*?)\)")
_ARRAY = re.compile(r"([a-z]+)(\d*)\[([\d,]*)\](?:\{([^}]*)\})?")
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?"
)
_MOVES_NOTHING = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|.*-done"
)


def shard(params: trees.Tree, layout: str, mesh: Mesh) -> trees.Tree:
    """Returns `params` with a sharding over `mesh` at each leaf.

    Each centralized kernel is split along its longest output or fan-in axis, over as
    many chips as divide it; all other leaves, and all if `layout` is "replicated", are
    whole on each chip.
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


def instructions(hlo: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yields the name, type, opcode and operands of each instruction of an HLO text."""
    for line in hlo.splitlines():
        if match := _INSTRUCTION.match(line):
            name, kind, opcode, operands = match.groups()
            yield name, kind, opcode, re.findall(r"%[^\s,]+", operands)


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """Returns the number and the operands' bytes of each kind of collective."""
    types = {name: kind for name, kind, _, _ in instructions(hlo)}
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for _, _, opcode, operands in instructions(hlo):
        if match := _COLLECTIVE.fullmatch(opcode):
            number[match[1]] += 1
            size[match[1]] += sum(_bytes(types[name]) for name in operands)
    return {kind: (number[kind], size[kind]) for kind in number}


def hbm_bytes(hlo: str) -> int:
    """Returns the bytes that the entry computation reads from HBM and writes to it.

    Whatever XLA prefetches into the core's own memory, `S(1)` in the text, is counted
    once, when it crosses; `cost_analysis` also counts each access to the copy.
    """
    entry = hlo[hlo.index("\nENTRY") :]
    types, total = {}, 0
    for name, kind, opcode, operands in instructions(entry):
        types[name] = kind
        if _MOVES_NOTHING.fullmatch(opcode):
            continue
        if opcode == "slice-start":  # ((operand), slice, flag): the slice is read
            total += _bytes(kind.split("), ", 1)[1])
        elif opcode == "copy-start":  # (copy, operand, flag)
            total += _bytes(kind, hbm_only=True)
        else:
            arrays = [kind, *(types[operand] for operand in operands)]
            total += sum(_bytes(array, hbm_only=True) for array in arrays)
    return total


def _bytes(kind: str, *, hbm_only: bool = False) -> int:
    """Returns the bytes of the arrays in an HLO type, but flags."""
    return sum(
        int(bits or 8) // 8 * math.prod(map(int, filter(None, shape.split(","))))
        for _, bits, shape, layout in _ARRAY.findall(kind)
        if "S(2)" not in layout and not (hbm_only and "S(" in layout)
    )


def tpu_mesh(grid: tuple[int, int]) -> Mesh:
    """Returns a mesh of TPU v5e chips, rows "x" and columns "y"; none need be there."""
    from jax.experimental import topologies

    rows, columns = grid
    bounds = (min(rows, 2), min(columns, 2), 1)
    topology = topologies.get_topology_desc(
        f"v5e:{rows}x{columns}", platform="tpu", chips_per_host_bounds=bounds
    )
    return Mesh(np.array(topology.devices).reshape(grid), ("x", "y"))


def compile_for_tpu(arm: str, optimizer: str, params: trees.Tree) -> str:
    """Returns the compiled HLO text of one arm's update for the chips of `params`."""
    centralize = overhead.CENTRALIZE[arm]
    traced = overhead.trace_update(centralize, overhead.OPTIMIZERS[optimizer], params)
    return traced.lower().compile().as_text()


def measure(model: str, optimizer: str) -> Table:
    """Returns a table of one model's update, by grid of chips and layout of kernels."""
    columns = (*(f"bytes, {arm}" for arm in overhead.ARMS), "collectives of optax_gc")
    title = f"{model}, {optimizer}: HBM bytes a parameter"
    table = overhead.blank_table(title, "TPU v5e", "kernels", *columns)
    for grid in GRIDS:
        mesh = tpu_mesh(grid)
        for layout in LAYOUTS if mesh.size > 1 else LAYOUTS[:1]:
            params = shard(overhead.MODELS[model](), layout, mesh)
            hlo = [compile_for_tpu(arm, optimizer, params) for arm in overhead.ARMS]
            cells = [f"{hbm_bytes(text) / local_count(params):.1f}" for text in hlo]
            name = "x".join(map(str, grid))
            table.add_row(name, layout, *cells, summary(collectives(hlo[-1])))
    return table


def local_count(params: trees.Tree) -> int:
    """Returns how many numbers of `params` one chip holds."""
    leaves = jax.tree.leaves(params)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def summary(found: dict[str, tuple[int, int]]) -> str:
    """Returns what `collectives` found in words."""
    words = (f"{n} {kind} of {size:,} B" for kind, (n, size) in found.items())
    return ", ".join(words) or "none"


def main() -> None:
    """Prints the tables that the flags ask for, or what is missing."""
    args = commands.parse("tpu_aot")
    if importlib.util.find_spec("libtpu") is None:
        sys.exit(
            "libtpu is not installed: pip install libtpu==0.0.42.1 (no TPU needed)"
        )
    os.environ.update(ENVIRONMENT)
    console = Console(width=100)
    for optimizer in overhead.OPTIMIZERS:
        console.print(measure(args.model, optimizer))


if __name__ == "__main__":
    main()
