"""What the engine asks of a task."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import Array

from train.engine.optimizer import Recipe
from train.record.about import About
from train.record.metrics import Score

Examples = tuple[Any, ...]  # arrays that share their first axis, one row an example
Variables = Mapping[str, Any]  # "params", and what else a Flax module keeps


class Scores(NamedTuple):
    """How well examples were told, `(B,)` each.

    Attributes:
      loss: what is trained on.
      score: what the task's second score is the mean of, or a figure of the mean.
    """

    loss: Array
    score: Array


class Task(Protocol):
    """Data, a network and its loss.

    Attributes:
      about: what is told of the data.
      score: what it is judged by beside its loss.
      splits: the examples by split, in the host's memory: "train"; "validation", if
        there is one, to be evaluated as training goes on; and "test", which is opened
        after the last epoch, or takes the place of a validation split.
      recipe: what the task adds to its optimizers.
      keeps_rest: whether an epoch ends with a smaller batch of what is left.
      per_turn: examples that a device works on at a time; None where a network must
        see its whole share of a batch at once.
    """

    about: About
    score: Score
    splits: Mapping[str, Examples]
    recipe: Recipe
    keeps_rest: bool
    per_turn: int | None

    def init(self, key: Array) -> Variables:
        """Returns the variables to start from."""

    def train_scores(
        self, variables: Variables, examples: Examples, keys: Array, weights: Array
    ) -> tuple[Scores, Mapping[str, Any]]:
        """Returns the scores of a device's examples, and its variables but the params.

        By default those of `test_scores`, for a network that has no others.

        It runs inside `jax.shard_map`: the mesh's axis "batch" reaches the other
        shares of the batch.

        Args:
          variables: as `init` makes them.
          examples: some rows of the training split.
          keys: a PRNG key an example, `(B,)`.
          weights: 1 for an example and 0 for padding, float32 `(B,)`.
        """
        del keys, weights
        return self.test_scores(variables, examples), {}

    def test_scores(self, variables: Variables, examples: Examples) -> Scores:
        """Returns the scores of examples of any split, without randomness."""

    def draw(
        self, variables: Variables, metrics: Mapping[str, Any], folder: pathlib.Path
    ) -> None:
        """Draws what a trained network makes of the data; by default nothing.

        Args:
          variables: as they are after the last step, in the host's memory.
          metrics: the run's last ones by name, None where they were not wanted.
          folder: the run's.
        """


def size(examples: Examples) -> int:
    """Returns how many examples there are."""
    return len(examples[0])


def watched_split(task: Task) -> str:
    """Returns the split that is evaluated while training."""
    return "validation" if "validation" in task.splits else "test"


def take(examples: Examples, rows: np.ndarray | Array) -> Examples:
    """Returns the examples at the given rows."""
    return jax.tree.map(lambda x: x[rows], examples)
