"""How a command trains a task."""

import contextlib
import functools
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from train.command import ends
from train.command.options import read
from train.config import Config, prepare_jax
from train.faults import Stop

if TYPE_CHECKING:
    from train.engine.task import Task


def train_once(
    module: str,
    options: type[Config],
    load: Callable[[Config], "Task"],
    args: Sequence[str] | None,
) -> int:
    """Trains a task as a command line asks and returns the exit status.

    Args:
      module: the command's module, such as "train.horses".
      options: the class of its configuration.
      load: maps the configuration to the task with its data; called once JAX may be
        imported.
      args: the command line; by default, that of the process.
    """
    args = list(sys.argv[1:] if args is None else args)
    config = read(options, args, f"python -m {module}")
    remedy = functools.partial(how_to_resume, module, config, args)

    def work(stop: Stop) -> None:
        config.check()
        prepare_jax()
        if config.is_one_of_several:
            # JAX's C++ code logs processes that end; we report them below in one line.
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # Imported here because importing JAX would slow down --help.
        from train.engine import processes
        from train.record import workdir

        processes.join(config)
        with processes.losses_told(config), contextlib.ExitStack() as stack:
            folder = None
            if processes.is_first():
                workdir.check_free(config)
                folder = stack.enter_context(workdir.claim(config))
            task = load(config)
            import rich.console

            from train.engine import fit
            from train.record.reporter import Reporter
            from train.record.tensorboard import TensorBoardReporter

            kind = TensorBoardReporter if config.tensorboard else Reporter
            console = rich.console.Console(quiet=folder is None)
            fit.fit(config, task, kind(folder, console, remedy), stop)

    status = ends.run(work, debug=config.debug)
    if status and config.is_one_of_several:
        from train.engine import processes

        processes.leave(status)
    return status


def how_to_resume(
    module: str, config: Config, args: list[str], folder: pathlib.Path
) -> str:
    """Returns what to tell a user who stopped the run."""
    more = [] if config.workdir else ["--workdir", str(folder)]
    more += [] if config.resume else ["--resume"]
    return f"Continue with: {shlex.join(['python', '-m', module, *args, *more])}"
