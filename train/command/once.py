"""How a command trains a task."""

import contextlib
import functools
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from train.command import ends
from train.command.options import read
from train.config import Config, prepare_jax
from train.faults import Stop

if TYPE_CHECKING:
    from train.engine.task import Task

Data = TypeVar("Data")


def train_once(
    module: str,
    options: type[Config],
    load_data: Callable[[Any], Data],
    task: Callable[[Any, Data], "Task"],
    args: Sequence[str] | None,
) -> int:
    """Trains a task as a command line asks and returns the exit status.

    Args:
      module: the command's module, such as "train.horses".
      options: the class of its configuration.
      load_data: maps the configuration to its data, without importing JAX first.
      task: maps the configuration and its data to the task.
      args: the command line; by default, that of the process.
    """
    args = list(sys.argv[1:] if args is None else args)
    config = read(options, args, f"python -m {module}")
    remedy = functools.partial(how_to_resume, module, config, args)

    def work(stop: Stop) -> None:
        config.check()
        prepare_jax()
        with joined(config) as is_first, contextlib.ExitStack() as stack:
            # Imported here because it would slow down --help.
            from train.record import workdir

            folder = None
            if is_first:
                workdir.check_free(config)
                folder = stack.enter_context(workdir.claim(config))
            data = load_data(config)
            import rich.console

            from train.engine import fit, processes
            from train.record.reporter import Reporter
            from train.record.tensorboard import TensorBoardReporter

            processes.find_devices()
            kind = TensorBoardReporter if config.tensorboard else Reporter
            console = rich.console.Console(quiet=folder is None)
            reporter = kind(folder, console, remedy)
            fit.fit(config, task(config, data), reporter, stop)

    status = ends.run(work, debug=config.debug)
    if status and config.is_one_of_several:
        from train.engine import processes

        processes.leave(status)
    return status


@contextlib.contextmanager
def joined(config: Config) -> Iterator[bool]:
    """Joins the other processes, if any, and yields whether this is the first.

    A process alone does not import JAX yet: that can be done while its data is read.
    """
    if not config.is_one_of_several:
        yield True
        return
    # JAX's C++ code logs processes that end; we report them in one line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from train.engine import processes

    processes.join(config)
    with processes.losses_told(config):
        yield processes.is_first()


def import_training() -> None:
    """Imports JAX and the training code, which takes about as long as reading data."""
    import train.engine.fit  # noqa: F401


def how_to_resume(
    module: str, config: Config, args: list[str], folder: pathlib.Path
) -> str:
    """Returns what to tell a user who stopped the run."""
    more = [] if config.workdir else ["--workdir", str(folder)]
    more += [] if config.resume else ["--resume"]
    return f"Continue with: {shlex.join(['python', '-m', module, *args, *more])}"
