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
        check_start(config)
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


def check_start(config: Config) -> None:
    """Raises a `ValueError` if there are no parameters to start from."""
    if config.init_from and not (config.init_from / "params").is_dir():
        raise ValueError(
            "--init-from must be the folder of a finished run, got "
            f"{config.init_from}, which has no params in it."
        )


if __name__ == "__main__":
    sys.exit(main())
