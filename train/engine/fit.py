"""A run: its epochs, its checkpoints and its record."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from train.config import Config
from train.engine import arms, checkpoint, epoch, processes
from train.engine.axes import fan_in_axes
from train.engine.batches import all_devices, deal, epoch_batches, steps_an_epoch
from train.engine.checkpoint import Progress
from train.engine.evaluation import HeldOut, evaluate_once
from train.engine.feed import Feed, Work, choose
from train.engine.optimizer import optimizer
from train.engine.program import Program, compile_program
from train.engine.state import State, init_state
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
    axes: arms.Policy
    tx: optax.GradientTransformation
    start_params: Any

    @property
    def checkpoints(self) -> checkpoint.Checkpoints | None:
        """Those of the run's folder; None but in the first process."""
        folder = self.reporter.workdir
        return folder and checkpoint.Checkpoints(folder / "checkpoints")

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return epoch_steps(self.config, self.task)


def epoch_steps(config: Config, task: Task) -> int:
    """Returns the number of steps in an epoch."""
    count = size(task.splits["train"])
    return steps_an_epoch(count, config.batch_size, keep_rest=task.keeps_rest)


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
    check_sizes(config, task)
    run, state = begin(config, task, reporter, stop)
    reporter.start(config, task.about)
    reporter.model(
        task.test_scores,
        state.variables,
        task.splits["train"],
        arms.chosen_axes(config, run.axes, state.params),
    )
    state, progress = resumed(run, state)
    state = processes.replicate(state, run.mesh)
    if progress.epoch <= config.epochs:
        state = train(run, state, progress)
    finish(run, state)
    return state


def check_sizes(config: Config, task: Task) -> None:
    """Raises a `UsageError` unless there are enough examples and steps."""
    count = size(task.splits["train"])
    if config.batch_size > count:
        raise UsageError(
            f"--batch-size must be at most the {count} training {task.about.unit}, "
            f"got {config.batch_size}."
        )
    steps = config.epochs * epoch_steps(config, task)
    if config.evaluations > steps:
        raise UsageError(
            f"--evaluations must be at most the {steps} steps, "
            f"got {config.evaluations}."
        )


def begin(
    config: Config, task: Task, reporter: Reporter, stop: Stop
) -> tuple[Run, State]:
    """Returns a run, and the state that it starts from."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    variables = task.init(init_key)
    axes = fan_in_axes(task, variables)
    projection = arms.projection(config, axes, variables["params"])
    steps = config.epochs * epoch_steps(config, task)
    tx = optimizer(config, task.recipe, steps, projection)
    state = init_state(variables, tx)
    run = Run(
        config, task, reporter, stop, all_devices(), step_key, axes, tx,
        jax.device_get(state.params),
    )  # fmt: skip
    return run, state


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


def train(run: Run, state: State, progress: Progress) -> State:
    """Returns the state after the last epoch; saves a checkpoint after each."""
    split = watched_split(run.task)
    examples = run.task.splits[split]
    batch = deal(examples, np.arange(size(examples)), size(examples), run.mesh)
    shares = arms.taken_shares(run.config, run.axes, run.start_params)
    feed = choose(run.config, run.task.splits["train"], run.mesh)
    program = compile_program(
        run.config, run.task, run.tx, shares, state, feed, batch, run.mesh
    )
    held_out = HeldOut(split, batch, size(examples), program.evaluate, run.task.score)
    names = [name for part in ("train", split) for name in run.task.score.names(part)]
    with run.stop.deferred():
        run.reporter.begin()
        run.stop.remedy = run.reporter.how_to_resume
        run.reporter.compiled(program.compile_seconds, names)
        while progress.epoch <= run.config.epochs:
            state, progress = one_epoch(run, program, feed, state, held_out, progress)
    return state


def one_epoch(
    run: Run,
    program: Program,
    feed: Feed,
    state: State,
    held_out: HeldOut,
    progress: Progress,
) -> tuple[State, Progress]:
    """Returns the state and progress after the epoch that `progress` is in.

    Raises:
      Interrupted: after the steps in hand are done and saved.
      Diverged: if the loss or the parameters are no longer finite.
    """
    signum = None

    def go_on() -> bool:
        nonlocal signum
        signum = processes.any_of_them(run.stop.signum)
        return signum is None

    try:
        state, progress = epoch.train_epoch(
            program, state, works_left(run, feed, progress), run.step_key, progress,
            functools.partial(report_step, run, held_out), go_on,
        )  # fmt: skip
        epoch.check_finite(state, progress)
    except epoch.Diverged as error:
        raise epoch.Diverged(f"{error} {run.reporter.after_divergence}") from error
    if progress.steps == run.steps:
        report_epoch(run, held_out, state, progress)
        progress = Progress(epoch=progress.epoch + 1)
    save(run, state, progress)
    if signum is not None and progress.epoch <= run.config.epochs:
        raise Interrupted(signum, run.reporter.how_to_resume)
    return state, progress


def works_left(run: Run, feed: Feed, progress: Progress) -> Iterator[Work]:
    """Returns what the epoch has still to do; evaluations wait for a work's end."""
    batches = epoch_batches(
        run.config.seed, progress.epoch, size(run.task.splits["train"]),
        run.config.batch_size, keep_rest=run.task.keeps_rest,
    )  # fmt: skip
    left = batches[progress.steps :]
    done = (progress.epoch - 1) * run.steps + progress.steps
    return feed.works(left, {i for i in range(len(left)) if is_due(run, done + i + 1)})


def is_due(run: Run, step: int) -> bool:
    """Tells whether `--evaluations` asks for one after this step of the run."""
    count, steps = run.config.evaluations, run.config.epochs * run.steps
    return step in {round((i + 1) * steps / count) for i in range(count)}


def report_step(
    run: Run,
    held_out: HeldOut,
    state: State,
    progress: Progress,
    removed: dict[str, float],
) -> None:
    """Reports a step, and evaluates the state if it is time to, within an epoch."""
    metrics = train_metrics(run, progress)
    run.reporter.step(progress.epoch, progress.steps, metrics, removed)
    step = (progress.epoch - 1) * run.steps + progress.steps
    if progress.steps < run.steps and is_due(run, step):
        metrics |= held_out.evaluate(state)
        run.reporter.evaluation(step, progress.seconds, metrics, within_epoch=True)


def report_epoch(run: Run, held_out: HeldOut, state: State, progress: Progress) -> None:
    """Evaluates the state and reports the epoch that it has finished."""
    metrics = train_metrics(run, progress) | held_out.evaluate(state)
    step = progress.epoch * run.steps
    if is_due(run, step):
        run.reporter.evaluation(step, progress.seconds, metrics, within_epoch=False)
    diagnostics = {
        "removed_energy": {
            path: share / progress.steps for path, share in progress.removed.items()
        },
        "mean_drift": arms.mean_drift(
            jax.device_get(state.params), run.start_params, run.axes
        ),
    }
    head = {"epoch": progress.epoch, "epoch_seconds": progress.seconds}
    run.reporter.epoch(head | metrics, diagnostics)


def train_metrics(run: Run, progress: Progress) -> dict[str, float]:
    """Returns the training metrics of the epoch so far."""
    means = (total / progress.images for total in (progress.loss, progress.score))
    return run.task.score.figures("train", *means)


def save(run: Run, state: State, progress: Progress) -> None:
    """Saves a checkpoint, and before it what the record has to have by then."""
    if run.checkpoints:
        run.reporter.save_shares()
        done = (progress.epoch - 1) * run.steps + progress.steps
        with told_how_to_go_on(run):
            run.checkpoints.save(done, state, progress)


@contextlib.contextmanager
def told_how_to_go_on(run: Run) -> Iterator[None]:
    """Adds to the error of what cannot be written how to go on once it can be."""
    try:
        yield
    except checkpoint.CheckpointError as error:
        text = f"{error} {run.reporter.how_to_resume}".strip()
        raise checkpoint.CheckpointError(text) from error


def finish(run: Run, state: State) -> None:
    """Opens the test split if that is still to do, saves the outcome, reports the end.

    It is still to do where another split was watched, and the run had not ended before.
    """
    folder = run.reporter.workdir
    ended = processes.any_of_them(int(run.reporter.had_ended) or None) is not None
    metrics = {}
    if not ended and {"validation", "test"} <= run.task.splits.keys():
        metrics = evaluate_once(run.config, run.task, state, "test", run.mesh)
    draw = None
    if folder and not ended:
        state = jax.device_get(state)
        with told_how_to_go_on(run):
            checkpoint.save_params(folder / "params", state.params)
            if state.model_state:
                checkpoint.save_params(folder / "model_state", state.model_state)
        draw = functools.partial(run.task.draw, state.variables)
    run.reporter.finish(metrics, draw)
