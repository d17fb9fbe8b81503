"""A run from beginning to end, in the order in which it happens.

    begin     the first state, or the newest checkpoint; the data and model are reported
    train     the functions are compiled; then, in each epoch:
                  steps come in a stream (`epoch.py`), and each is reported;
                  the state is evaluated after some of them, and at the end;
                  the epoch is reported, and a checkpoint is saved
    finish    the test split, the final parameters, the summary

Everything is reported to the record (`train/record`) through a `Reporter`, which makes
no decisions.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import jax

from train.config import Config
from train.engine import arms, checkpoint, epoch, processes
from train.engine.checkpoint import Checkpoints, Progress
from train.engine.evaluation import HeldOut, held_out
from train.engine.program import Program, compile_program
from train.engine.run import Run, begin, check_sizes
from train.engine.state import State
from train.engine.task import Task
from train.faults import Interrupted, Stop
from train.record.reporter import Reporter


def fit(config: Config, task: Task, reporter: Reporter, stop: Stop) -> State:
    """Trains as configured, starting from the newest checkpoint if there is one.

    Args:
      config: the run's configuration.
      task: the task, with its data.
      reporter: hears of the data, the model, each step and epoch, and the end.
      stop: the user's requests to stop, obeyed after the current step.

    Returns:
      The final state.

    Raises:
      UsageError: if the configuration does not suit the data.
      Diverged: if the loss or the parameters are no longer finite.
      Interrupted: if the user stopped it; everything is then saved.
    """
    check_sizes(config, task)
    run, state = begin(config, task)
    reporter.start(config, task.about)
    reporter.model(
        task.test_scores,
        state.variables,
        task.splits["train"],
        arms.chosen_axes(config, run.axes, state.params),
    )
    state, progress = resumed(run, state, reporter)
    state = processes.replicate(state, run.mesh)
    if progress.epoch <= config.epochs:
        state = train(run, state, progress, reporter, stop)
    finish(run, state, reporter)
    return state


def resumed(run: Run, state: State, reporter: Reporter) -> tuple[State, Progress]:
    """Returns the newest checkpoint, in every process, or `state` if there is none."""
    kept, found = checkpoints(reporter), None
    if kept:
        found = kept.restore(state, reporter.warn)
    restored, record = processes.from_the_first(
        found and found[0], found and dataclasses.asdict(found[1]), state
    )
    progress = Progress(**record) if record else Progress()
    reporter.resumed(run.steps, progress.epoch - 1, progress.steps)
    return restored if record else state, progress


def train(
    run: Run, state: State, progress: Progress, reporter: Reporter, stop: Stop
) -> State:
    """Returns the state after the last epoch."""
    program = compile_program(run, state)
    splits, score = ("train", program.held_out.name), run.task.score
    names = [name for split in splits for name in score.names(split)]
    with stop.deferred():
        reporter.begin()
        stop.remedy = reporter.how_to_resume
        reporter.compiled(program.compile_seconds, names)
        while progress.epoch <= run.config.epochs:
            state, progress = one_epoch(run, program, state, progress, reporter, stop)
    return state


def one_epoch(
    run: Run,
    program: Program,
    state: State,
    progress: Progress,
    reporter: Reporter,
    stop: Stop,
) -> tuple[State, Progress]:
    """Returns the state and progress after the epoch that `progress` is in.

    Raises:
      Interrupted: if the user stopped it; the current steps are then done and saved.
      Diverged: if the loss or the parameters are no longer finite.
    """
    works, signum = program.feed.works(*run.left(progress)), None
    try:
        for step in epoch.train_epoch(program, state, works, run.key, progress):
            progress = step.progress
            report_step(run, program.held_out, step, reporter)
            if step.state is not None:
                state, signum = step.state, processes.any_of_them(stop.signum)
                if signum is not None:
                    break
        epoch.check_finite(state, progress)
    except epoch.Diverged as error:
        raise epoch.Diverged(f"{error} {reporter.after_divergence}") from error
    if progress.steps == run.steps:
        report_epoch(run, program.held_out, state, progress, reporter)
        progress = Progress(epoch=progress.epoch + 1)
    save(run, state, progress, reporter)
    if signum is not None and progress.epoch <= run.config.epochs:
        raise Interrupted(signum, reporter.how_to_resume)
    return state, progress


def report_step(
    run: Run, watched: HeldOut, step: epoch.Step, reporter: Reporter
) -> None:
    """Reports a step within an epoch, and evaluates the state if it is time to."""
    progress, done = step.progress, run.done(step.progress)
    metrics = train_metrics(run, progress)
    reporter.step(progress.epoch, progress.steps, metrics, step.removed)
    if progress.steps < run.steps and run.is_due(done):
        metrics |= watched.evaluate(step.state)
        reporter.evaluation(done, progress.seconds, metrics, within_epoch=True)


def report_epoch(
    run: Run, watched: HeldOut, state: State, progress: Progress, reporter: Reporter
) -> None:
    """Evaluates the state and reports the finished epoch."""
    metrics, done = train_metrics(run, progress), run.done(progress)
    metrics |= watched.evaluate(state)
    if run.is_due(done):
        reporter.evaluation(done, progress.seconds, metrics, within_epoch=False)
    params = jax.device_get(state.params)
    diagnostics = {
        "removed_energy": {
            path: share / progress.steps for path, share in progress.removed.items()
        },
        "mean_drift": arms.mean_drift(params, run.start_params, run.axes),
    }
    head = {"epoch": progress.epoch, "epoch_seconds": progress.seconds}
    reporter.epoch(head | metrics, diagnostics)


def train_metrics(run: Run, progress: Progress) -> dict[str, float]:
    """Returns the training metrics of the epoch so far."""
    means = (total / progress.images for total in (progress.loss, progress.score))
    return run.task.score.figures("train", *means)


def save(run: Run, state: State, progress: Progress, reporter: Reporter) -> None:
    """Saves a checkpoint, after the parts of the record that must precede it."""
    if kept := checkpoints(reporter):
        reporter.save_shares()
        with told_how_to_go_on(reporter):
            kept.save(run.done(progress), state, progress)


def checkpoints(reporter: Reporter) -> Checkpoints | None:
    """Returns the checkpoints in the run's folder; None except in the first process."""
    folder = reporter.workdir
    return folder and Checkpoints(folder / "checkpoints")


@contextlib.contextmanager
def told_how_to_go_on(reporter: Reporter) -> Iterator[None]:
    """Adds to an error of writing how to continue once writing is possible."""
    try:
        yield
    except checkpoint.CheckpointError as error:
        text = f"{error} {reporter.how_to_resume}".strip()
        raise checkpoint.CheckpointError(text) from error


def finish(run: Run, state: State, reporter: Reporter) -> None:
    """Evaluates the test split if necessary, saves the outcome and reports the end.

    It is necessary if another split was watched, and the run had not ended before.
    """
    folder = reporter.workdir
    ended = processes.any_of_them(int(reporter.had_ended) or None) is not None
    metrics = {}
    if not ended and {"validation", "test"} <= run.task.splits.keys():
        metrics = held_out(run, "test").compiled(run, state).evaluate(state)
    draw = None
    if folder and not ended:
        state = jax.device_get(state)
        with told_how_to_go_on(reporter):
            checkpoint.save_params(folder / "params", state.params)
            if state.model_state:
                checkpoint.save_params(folder / "model_state", state.model_state)
        draw = functools.partial(run.task.draw, state.variables)
    reporter.finish(metrics, draw)
