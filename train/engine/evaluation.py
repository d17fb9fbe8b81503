"""The scores of a split that is not trained on."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from train.config import Config
from train.engine.batches import Batch, deal
from train.engine.program import compile_evaluation
from train.engine.state import State
from train.engine.step import Totals
from train.engine.task import Task, size
from train.record.metrics import Score


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A split on the devices, and what evaluates it.

    Attributes:
      name: the split.
      batch: its examples.
      count: how many of them are not padding.
      program: the compiled evaluation; None if none is wanted.
      score: the task's.
    """

    name: str
    batch: Batch
    count: int
    program: Callable[..., Totals] | None
    score: Score

    def evaluate(self, state: State) -> dict[str, float | None]:
        """Returns loss and score under their names, None if not wanted."""
        if self.program is None:
            return dict.fromkeys(self.score.names(self.name))
        totals = self.program(state, self.batch, np.int32(self.count))
        means = (float(total) / self.count for total in totals)
        return self.score.figures(self.name, *means)


def evaluate_once(
    config: Config, task: Task, state: State, split: str, mesh: Mesh
) -> dict[str, float | None]:
    """Returns loss and score of a split that is not on the devices yet."""
    count = size(task.splits[split])
    batch = deal(task.splits[split], np.arange(count), count, mesh)
    program = compile_evaluation(config, task, state, batch, mesh)
    return HeldOut(split, batch, count, program, task.score).evaluate(state)
