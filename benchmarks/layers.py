"""Times the parts of a train step on one core of a CPU, in milliseconds per image.

    python -m benchmarks.layers

Each part is compiled separately and takes eight images at a time, like the step. A
layer is its value and its gradients; convolutions include ReLU, dropout and pool.
"""

import tyro
from rich.console import Console
from rich.table import Table

BATCH = 128  # the published experiment's


def main() -> None:
    """Measures the parts and prints the table."""
    import jax.numpy as jnp

    from benchmarks.epochs import flop, parts, single

    parts.use_one_core()
    table = Table("", "ms an image", "GFLOP", "GFLOP/s")
    total, counted = 0.0, flop.layer_flop(parts.SIDE)
    for name, function, arguments in parts.parts():
        ms = parts.milliseconds(function, arguments) / parts.IMAGES
        total += ms
        cells = work(counted[name], ms) if name in counted else ()
        table.add_row(name, f"{ms:.2f}", *cells)
    table.add_row("sum", f"{total:.2f}")
    seconds, _ = single.train(BATCH, parts.SIDE, 2 * BATCH)
    table.add_row(f"step of {BATCH}", f"{1000 * seconds / (2 * BATCH):.2f}")
    square = parts.normal(2048, 2048)
    ms = parts.milliseconds(jnp.matmul, (square, square))
    table.add_row("2048x2048 product", "", *work(2 * 2048**3, ms))
    Console().print(table)


def work(flop: float, ms: float) -> tuple[str, str]:
    """Returns the cells of GFLOP and GFLOP/s."""
    return f"{flop / 1e9:.2f}", f"{flop / ms / 1e6:.0f}"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.layers", description=__doc__)
