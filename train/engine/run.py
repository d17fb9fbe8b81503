"""A run: what stays the same from its first step to its last."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from train.config import Config
from train.engine import arms
from train.engine.axes import fan_in_axes
from train.engine.batches import all_devices, epoch_batches, steps_an_epoch
from train.engine.checkpoint import Progress
from train.engine.optimizer import optimizer
from train.engine.state import State, init_state
from train.engine.step import train_step
from train.engine.task import Task, size
from train.faults import UsageError


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from step to step.

    Attributes:
      config: the run's configuration.
      task: the task, with its data.
      mesh: the devices.
      key: the key of the run's steps.
      axes: the policy for the fan-in axes of each kernel.
      tx: the optimizer, with the arm's projection.
      start_params: the parameters before the first step, in the host's memory.
    """

    config: Config
    task: Task
    mesh: Mesh
    key: Array
    axes: arms.Policy
    tx: optax.GradientTransformation
    start_params: Any

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return epoch_steps(self.config, self.task)

    def step(self) -> Callable[..., Any]:
        """Returns the train step: a function of state, batch, batch size and key."""
        shares = arms.taken_shares(self.config, self.axes, self.start_params)
        return functools.partial(
            train_step, task=self.task, tx=self.tx, shares=shares, mesh=self.mesh
        )

    def done(self, progress: Progress) -> int:
        """Returns how many of the run's steps are done."""
        return (progress.epoch - 1) * self.steps + progress.steps

    def is_due(self, step: int) -> bool:
        """Tells whether `--evaluations` asks for an evaluation after this step."""
        count, steps = self.config.evaluations, self.config.epochs * self.steps
        return step in {round((i + 1) * steps / count) for i in range(count)}

    def left(self, progress: Progress) -> tuple[list[np.ndarray], set[int]]:
        """Returns what an epoch still has to do.

        Returns:
          The examples of each batch, and the positions of the batches after which an
          evaluation is due.
        """
        batches = epoch_batches(
            self.config.seed, progress.epoch, size(self.task.splits["train"]),
            self.config.batch_size, keep_rest=self.task.keeps_rest,
        )[progress.steps :]  # fmt: skip
        first = self.done(progress) + 1
        return batches, {i for i in range(len(batches)) if self.is_due(first + i)}


def begin(config: Config, task: Task) -> tuple[Run, State]:
    """Returns a run, and its first state."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    variables = task.init(init_key)
    axes = fan_in_axes(task, variables)
    projection = arms.projection(config, axes, variables["params"])
    steps = config.epochs * epoch_steps(config, task)
    tx = optimizer(config, task.recipe, steps, projection)
    state = init_state(variables, tx)
    start = jax.device_get(state.params)
    return Run(config, task, all_devices(), step_key, axes, tx, start), state


def epoch_steps(config: Config, task: Task) -> int:
    """Returns the number of steps in an epoch."""
    count = size(task.splits["train"])
    return steps_an_epoch(count, config.batch_size, keep_rest=task.keeps_rest)


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
