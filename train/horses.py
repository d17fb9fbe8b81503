"""Command line: trains the CNN once, with or without Gradient Centralization.

python -m train.horses --gc
"""

import concurrent.futures
import functools
import sys
from collections.abc import Sequence

import tyro

from train import command, workdir
from train.config import ENLARGE, Config, check, prepare_jax


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 (failure) or 2 (usage)."""
    args = list(sys.argv[1:] if args is None else args)
    config = tyro.cli(Config, args=args, prog="python -m train.horses")
    return command.run(functools.partial(train, config, args), debug=config.debug)


def train(config: Config, args: list[str], stop: command.Stop) -> None:
    """Trains as configured by the command line `args`."""
    check(config)
    prepare_jax()
    # Imported here, not above, because JAX would slow --help down.
    from train import processes

    processes.join(config)
    folder = workdir.claim(config) if processes.is_first() else None
    from train import data

    builder, reason = data.prepared(config.dataset, config.data_dir)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # The images are read while the rest is imported.
        reading = pool.submit(data.read_all, builder, reason, ENLARGE)
        import rich.console

        from train import loop, report

        dataset = reading.result()
    console = rich.console.Console(quiet=folder is None)
    remedy = how_to_resume(config, args, folder) if folder else ""
    with processes.losses_told():
        loop.fit(config, dataset, report.Reporter(folder, console, remedy), stop)


def how_to_resume(config: Config, args: list[str], folder: object) -> str:
    """Returns what to tell a user who has stopped the run."""
    more = [] if config.workdir else ["--workdir", str(folder)]
    more += [] if config.resume else ["--resume"]
    return f"Go on with: {command.command_line('train.horses', args, *more)}"


if __name__ == "__main__":
    sys.exit(main())
