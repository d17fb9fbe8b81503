"""Measures the cost of centralizing: an update's time and bytes, and compile time.

    python -m benchmarks.overhead           # everything
    python -m benchmarks.overhead --quick   # the CNN and few leaves, some seconds

The arms are the optimizer alone, after `optax_gc.centralize_gradients` and after
`optax.centralize`. Nothing else differs: same process, same buffers, same round.
"""

import os

import tyro
from rich.console import Console


def main(quick: bool = False, rounds: int | None = None) -> None:
    """Measures as the options ask and prints the tables.

    Args:
      quick: Use small trees and few rounds.
      rounds: Rounds of all arms; by default 60, or 10 with --quick.
    """
    import jax
    import optax

    import optax_gc
    from benchmarks.cost import trees, updates

    models = {"CNN": trees.cnn} if quick else updates.MODELS
    rounds = rounds or (10 if quick else 60)
    console = Console(width=88)
    versions = (
        f"{part.__name__} {part.__version__}" for part in (jax, optax, optax_gc)
    )
    console.print(*versions, f"{os.cpu_count()} cores", f"{rounds} rounds\n", sep=", ")
    console.print(*updates.measure_updates(models, rounds), sep="\n")
    sizes = (10, 100) if quick else (10, 100, 1000, 10_000)
    console.print(updates.measure_growth(sizes))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.overhead", description=__doc__)
