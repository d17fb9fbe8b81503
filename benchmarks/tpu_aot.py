"""Reads the cost of centralizing on TPUs from programs that are compiled, not run.

    pip install libtpu==0.0.42.1
    python -m benchmarks.tpu_aot           # GPT-2; no TPU needed

The updates of `benchmarks.overhead` are compiled ahead of time for a topology of TPU
v5e chips. For the program of one chip, it counts the bytes that move between HBM and
the cores, by the logical shapes, and the operands of the collectives.
"""

from typing import Literal

import tyro
from rich.console import Console


def main(model: Literal["CNN", "ResNet-50", "GPT-2"] = "GPT-2") -> None:
    """Prints the tables, or what is missing.

    Args:
      model: The model whose parameters are updated.
    """
    from benchmarks.cost import chips, sharded, updates

    chips.begin()
    console = Console(width=100)
    for optimizer in updates.OPTIMIZERS:
        console.print(sharded.measure(model, optimizer))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.tpu_aot", description=__doc__)
