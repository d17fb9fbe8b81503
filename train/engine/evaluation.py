"""Evaluates a split that is not trained on."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from train.engine.batches import Batch, deal, padded_size
from train.engine.run import Run
from train.engine.state import State
from train.engine.step import Totals, evaluate
from train.engine.task import size
from train.record.metrics import Score


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A split on the devices, and its compiled evaluation.

    Attributes:
      name: the split.
      batch: its examples.
      count: how many of them are not padding.
      score: the task's score.
      program: the compiled evaluation; None if it is not wanted.
    """

    name: str
    batch: Batch
    count: int
    score: Score
    program: Callable[..., Totals] | None = None

    def compiled(self, run: Run, state: State) -> "HeldOut":
        """Returns the same with a compiled evaluation."""
        share = padded_size(run.config.batch_size, run.mesh) // run.mesh.size
        per_turn = min(run.task.per_turn or share, share)
        evaluation = functools.partial(
            evaluate, task=run.task, mesh=run.mesh, per_turn=per_turn
        )
        count = jax.ShapeDtypeStruct((), jnp.int32)
        lowered = jax.jit(evaluation).lower(state, self.batch, count)
        return dataclasses.replace(self, program=lowered.compile())

    def evaluate(self, state: State) -> dict[str, float | None]:
        """Returns loss and score by name, None if not wanted."""
        if self.program is None:
            return dict.fromkeys(self.score.names(self.name))
        totals = self.program(state, self.batch, np.int32(self.count))
        means = (float(total) / self.count for total in totals)
        return self.score.figures(self.name, *means)


def held_out(run: Run, split: str) -> HeldOut:
    """Returns a split after sending its examples to the devices."""
    examples = run.task.splits[split]
    count = size(examples)
    batch = deal(examples, np.arange(count), count, run.mesh)
    return HeldOut(split, batch, count, run.task.score)
