"""A run: its epochs, its checkpoints and its record."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from train.config import Config
from train.engine import checkpoint, epoch, processes
from train.engine.axes import fan_in_axes
from train.engine.batches import (
    Batch,
    all_devices,
    deal,
    epoch_batches,
    steps_an_epoch,
)
from train.engine.checkpoint import Progress
from train.engine.optimizer import Policy, optimizer
from train.engine.program import Program, compile_program
from train.engine.state import State, by_path, init_state, mean_drift
from train.engine.task import Task, size, watched_split
from train.faults import Interrupted, Stop, UsageError
from train.record.reporter import Reporter


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from epoch to epoch."""

    config: Config
    task: Task
    reporter: Reporter
    stop: Stop
    mesh: Mesh
    step_key: Array
    start_params: Any
    checkpoints: checkpoint.Checkpoints | None  # None but in the first process

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return steps_an_epoch(
            size(self.task.splits["train"]),
            self.config.batch_size,
            keep_rest=self.task.keeps_rest,
        )


def fit(config: Config, task: Task, reporter: Reporter, stop: Stop) -> State:
    """Trains as configured, on from the newest checkpoint if there is one.

    Args:
      config: the run's configuration.
      task: what is trained, with its data.
      reporter: is told of the data, the model, each step and epoch, and the end.
      stop: the user's requests to stop, obeyed after the step in hand.

    Returns:
      The final state.

    Raises:
      UsageError: if the configuration does not suit the data.
      Diverged: if the loss or the parameters are no longer finite.
      Interrupted: if the user stopped it; then everything is saved.
    """
    count = size(task.splits["train"])
    if config.batch_size > count:
        raise UsageError(
            f"--batch-size must be at most the {count} training {task.about.unit}, "
            f"got {config.batch_size}."
        )
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    reporter.start(config, task.about)
    variables = task.init(init_key)
    axes = fan_in_axes(task, variables)
    tx = optimizer(config, task.recipe, axes)
    state = init_state(variables, tx)
    folder = reporter.workdir and reporter.workdir / "checkpoints"
    run = Run(
        config, task, reporter, stop, all_devices(), step_key,
        jax.device_get(state.params),
        checkpoint.Checkpoints(folder) if folder else None,
    )  # fmt: skip
    reporter.model(task.test_scores, state.variables, task.splits["train"])
    state, progress = resumed(run, state)
    state = processes.replicate(state, run.mesh)
    if progress.epoch <= config.epochs:
        state = train(run, tx, axes, state, progress)
    finish(run, jax.device_get(state))
    return state


def resumed(run: Run, state: State) -> tuple[State, Progress]:
    """Returns the newest checkpoint, in every process, or else `state` itself."""
    found = None
    if run.checkpoints:
        found = run.checkpoints.restore(state, run.reporter.warn)
    restored, record = processes.from_the_first(
        found and found[0], found and dataclasses.asdict(found[1]), state
    )
    progress = Progress(**record) if record else Progress()
    run.reporter.resumed(run.steps, progress.epoch - 1, progress.steps)
    return restored if record else state, progress


def train(run: Run, tx: Any, axes: Policy, state: State, progress: Progress) -> State:
    """Returns the state after the last epoch; saves a checkpoint after each."""
    examples = run.task.splits[watched_split(run.task)]
    count = size(examples)
    held_out = deal(examples, np.arange(count), count, run.mesh)
    program = compile_program(run.config, run.task, tx, axes, state, held_out, run.mesh)
    run.reporter.compiled(program.compile_seconds, watched_split(run.task))
    with run.stop.deferred():
        while progress.epoch <= run.config.epochs:
            state, progress = one_epoch(run, program, state, held_out, progress)
    return state


def one_epoch(
    run: Run, program: Program, state: State, held_out: Batch, progress: Progress
) -> tuple[State, Progress]:
    """Returns the state and progress after the epoch that `progress` is in.

    Raises:
      Interrupted: after the step in hand is done and saved.
      Diverged: if the loss or the parameters are no longer finite.
    """
    signum = None

    def go_on(progress: Progress) -> bool:
        nonlocal signum
        run.reporter.step(
            progress.epoch,
            progress.steps,
            progress.loss / progress.images,
            progress.correct / progress.images,
        )
        signum = processes.any_of_them(run.stop.signum)
        return signum is None

    try:
        state, progress = epoch.train_epoch(
            program, state, batches_left(run, progress), run.step_key, progress, go_on
        )
        epoch.check_finite(state, progress)
    except epoch.Diverged as error:
        raise epoch.Diverged(f"{error} {run.reporter.after_divergence}") from error
    if progress.steps == run.steps:
        report_epoch(run, program, state, held_out, progress)
        progress = Progress(epoch=progress.epoch + 1)
    if run.checkpoints:
        done = (progress.epoch - 1) * run.steps + progress.steps
        run.checkpoints.save(done, state, progress)
    if signum is not None and progress.epoch <= run.config.epochs:
        raise Interrupted(signum, run.reporter.how_to_resume)
    return state, progress


def batches_left(run: Run, progress: Progress) -> Any:
    """Yields each batch that the epoch has still to take, and its size."""
    examples, batch_size = run.task.splits["train"], run.config.batch_size
    indices = epoch_batches(
        run.config.seed, progress.epoch, size(examples), batch_size,
        keep_rest=run.task.keeps_rest,
    )  # fmt: skip
    for rows in indices[progress.steps :]:
        yield deal(examples, rows, batch_size, run.mesh), len(rows)


def report_epoch(
    run: Run, program: Program, state: State, held_out: Batch, progress: Progress
) -> None:
    """Evaluates the state and reports the epoch that it has finished."""
    split = watched_split(run.task)
    loss, accuracy = evaluated(program, state, held_out, size(run.task.splits[split]))
    metrics = {
        "epoch": progress.epoch,
        "epoch_seconds": progress.seconds,
        "train_loss": progress.loss / progress.images,
        "train_accuracy": progress.correct / progress.images,
        f"{split}_loss": loss,
        f"{split}_accuracy": accuracy,
    }
    drift = mean_drift(jax.device_get(state.params), run.start_params, program.axes)
    diagnostics = {
        "removed_energy": {
            path: share / progress.steps for path, share in progress.removed.items()
        },
        "mean_drift": by_path(drift, run.start_params, program.axes),
    }
    run.reporter.epoch(metrics, diagnostics)


def evaluated(
    program: Program, state: State, held_out: Batch, count: int
) -> tuple[float | None, float | None]:
    """Returns the held-out loss and accuracy, or Nones where evaluation is off."""
    if program.evaluate is None:
        return None, None
    totals = program.evaluate(state, held_out, np.int32(count))
    return float(totals.loss) / count, float(totals.correct) / count


def finish(run: Run, state: State) -> None:
    """Saves the final parameters and reports the end."""
    if run.reporter.workdir:
        checkpoint.save_params(run.reporter.workdir / "params", state.params)
    run.reporter.finish()
