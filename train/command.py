"""What the commands share: how they train once, how they fail, how they end."""

import os
import select
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from train.config import Config, prepare_jax
from train.faults import Failure, Stop
from train.options import read

if TYPE_CHECKING:
    from train.engine.task import Task


def entry(main: Callable[[], int]) -> NoReturn:
    """Ends the process with a command's exit status.

    Where nobody reads its output any more, as behind `| head -n 1`, it ends quietly
    with status 1, as Rich does.
    """
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        status = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def is_unread() -> bool:
    """Tells whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def run(work: Callable[[Stop], None], *, debug: bool) -> int:
    """Runs a command's work and returns its exit status.

    That is 0, or after a failure, of which the user is told in one line, its status:
    1, 2 for usage, 130 for SIGINT, 143 for SIGTERM.

    Args:
      work: is given the user's requests to stop.
      debug: also show the traceback of a failure.
    """
    try:
        with Stop().listening() as stop:
            work(stop)
    except (Failure, OSError) as error:
        if isinstance(error, BrokenPipeError) and is_unread():
            raise
        if debug:
            traceback.print_exc()
        return complain(error)
    return 0


def complain(error: Failure | OSError) -> int:
    """Tells the user of an error in one line and returns the exit status."""
    print(f"error: {message(error)}", file=sys.stderr, flush=True)
    return error.status if isinstance(error, Failure) else 1


def message(error: Failure | OSError) -> str:
    """Returns what an error says, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.strerror}: {error.filename}"
    return " ".join(text.split())


def train_once(
    module: str,
    options: type[Config],
    load: Callable[[Config], "Task"],
    args: list[str],
) -> int:
    """Trains a task as a command line says and returns the exit status.

    Args:
      module: the command's module, such as "train.horses".
      options: the class of its configuration.
      load: from the configuration to the task with its data; called once JAX may be
        imported.
      args: the command line.
    """
    config = read(options, args, f"python -m {module}")

    def work(stop: Stop) -> None:
        config.check()
        prepare_jax()
        # Imported here, not above, because JAX would slow --help down.
        from train.engine import processes
        from train.record import workdir

        processes.join(config)
        folder = workdir.claim(config) if processes.is_first() else None
        task = load(config)
        import rich.console

        from train.engine import fit
        from train.record.reporter import Reporter
        from train.record.tensorboard import TensorBoardReporter

        kind = TensorBoardReporter if config.tensorboard else Reporter
        console = rich.console.Console(quiet=folder is None)
        remedy = how_to_resume(module, config, args, folder) if folder else ""
        with processes.losses_told():
            fit.fit(config, task, kind(folder, console, remedy), stop)

    return run(work, debug=config.debug)


def how_to_resume(module: str, config: Config, args: list[str], folder: object) -> str:
    """Returns what to tell a user who has stopped the run."""
    more = [] if config.workdir else ["--workdir", str(folder)]
    more += [] if config.resume else ["--resume"]
    return f"Go on with: {shlex.join(['python', '-m', module, *args, *more])}"
