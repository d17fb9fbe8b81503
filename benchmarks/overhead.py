"""What centralizing costs: time and bytes of an update, time to trace and compile.

    python -m benchmarks.overhead           # all of it
    python -m benchmarks.overhead --quick   # the CNN and few leaves, some seconds

The arms are the optimizer alone, behind `optax_gc.centralize_gradients` and behind
`optax.centralize`. They differ in nothing else: same process, same buffers, same round.
"""

import os

import tyro
from rich.console import Console


def main(quick: bool = False, rounds: int | None = None) -> None:
    """Measures what the options ask for and prints the tables.

    Args:
      quick: small trees, few rounds.
      rounds: of all arms; by default 60, and 10 with --quick.
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
