"""What the engine requires of a task."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import Array

from train.engine.optimizer import Recipe
from train.record.about import About
from train.record.metrics import Score

Examples = tuple[Any, ...]  # arrays that share their first axis, one row per example
Variables = Mapping[str, Any]  # "params", and whatever else a Flax module keeps


class Scores(NamedTuple):
    """How well a network does on examples, `(B,)` each.

    Attributes:
      loss: the training loss.
      score: the second score; the task reports its mean, or a figure of that mean.
    """

    loss: Array
    score: Array


class Task(Protocol):
    """Data, a network and its loss.

    Attributes:
      about: a description of the data.
      score: the score that is measured besides the loss.
      splits: the examples by split, in the host's memory: "train"; "validation", if
        there is one, which is evaluated during training; and "test", which is evaluated
        after the last epoch, or during training if there is no validation split.
      recipe: what the task adds to its optimizers.
      keeps_rest: whether an epoch ends with a smaller batch of what is left.
      per_turn: examples that a device works on at a time; None if a network must see
        its whole share of a batch at once.
    """

    about: About
    score: Score
    splits: Mapping[str, Examples]
    recipe: Recipe
    keeps_rest: bool
    per_turn: int | None

    def init(self, key: Array) -> Variables:
        """Returns the initial variables."""

    def train_scores(
        self, variables: Variables, examples: Examples, keys: Array, weights: Array
    ) -> tuple[Scores, Mapping[str, Any]]:
        """Returns a device's scores, and its variables other than the parameters.

        By default those of `test_scores`, for a network that has no others.

        It runs inside `jax.shard_map`: the mesh's axis "batch" reaches the other
        shares of the batch.

        Args:
          variables: as `init` makes them.
          examples: some rows of the training split.
          keys: a PRNG key for each example, `(B,)`.
          weights: 1 for an example and 0 for padding, float32 `(B,)`.
        """
        del keys, weights
        return self.test_scores(variables, examples), {}

    def test_scores(self, variables: Variables, examples: Examples) -> Scores:
        """Returns the scores of examples of any split, without randomness."""

    def draw(
        self, variables: Variables, metrics: Mapping[str, Any], folder: pathlib.Path
    ) -> None:
        """Draws a picture of a trained network's output; by default, none.

        Args:
          variables: those after the last step, in the host's memory.
          metrics: the run's last metrics by name, None if they were not wanted.
          folder: the run's folder.
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
