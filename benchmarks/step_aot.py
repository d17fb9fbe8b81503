"""The train steps of all tasks, compiled for TPUs that are not there.

    pip install libtpu==0.0.42.1
    python -m benchmarks.step_aot          # no TPU needed

Each chip of TPU v5e has a batch of the task's default size. Of the program of one chip,
with GC, we count arithmetic, bytes between HBM and the cores, memory at its peak, and
the operands of the collectives. The last column is the loop that takes many steps in
one dispatch, with the training data on each chip. Without GC the collectives are the
same (tests/test_lowering.py).
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
