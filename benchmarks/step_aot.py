"""Compiles the train steps of all tasks for TPUs that are not there.

    pip install libtpu==0.0.42.1
    python -m benchmarks.step_aot          # no TPU needed

Each TPU v5e chip has a batch of the task's default size. For the program of one chip,
with GC, it counts the arithmetic, the bytes between HBM and the cores, the peak memory,
and the operands of the collectives. The last column is for the loop that takes many
steps in one dispatch, with the training data on each chip. Without GC the collectives
are the same (tests/test_lowering.py).
"""

import tyro
from rich.console import Console


def main() -> None:
    """Prints the table, or what is missing."""
    from benchmarks.cost import chips
    from benchmarks.hosts import programs

    chips.begin()
    Console(width=150).print(programs.measure(chips.GRIDS, "float32"))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.step_aot", description=__doc__)
