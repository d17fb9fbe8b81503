"""Command line: trains the CNN once, with or without Gradient Centralization.

python -m train.horses --gc
"""

import sys
from collections.abc import Sequence

import tyro

from train.config import Config, check, complain, prepare_jax


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    config = tyro.cli(Config, args=args, prog="python -m train.horses")
    try:
        check(config)
    except ValueError as error:
        return complain(error, 2)
    prepare_jax()
    # Imported here, not above, because JAX would slow --help down.
    import rich.console

    from train import data, loop, report

    try:
        workdir = report.claim_workdir(config)
    except report.WorkdirError as error:
        return complain(error, 2)
    try:
        loop.fit(config, report.Reporter(workdir, rich.console.Console()))
    except data.DataError as error:
        return complain(error, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
