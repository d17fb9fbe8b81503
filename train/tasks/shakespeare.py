"""Predicting Shakespeare byte by byte."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from train.config import Precision
from train.data import Text
from train.engine.optimizer import Recipe
from train.engine.task import Examples, Scores, Task, Variables
from train.record.about import About
from train.record.metrics import ACCURACY
from train.tasks.decoder import Decoder, Norm
from train.tasks.scores import cross_entropy

LENGTH = 64  # bytes predicted in a passage, each from those before it
CPU_PASSAGES = 8  # that a core works on at a time, so that they stay in its cache


def matrices(params: Any) -> Any:
    """Tells which parameters decay: kernels and tables, but not a norm's scale."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


class Shakespeare(Task):
    """Passages of a text, a decoder, and the cross-entropy of each byte.

    The scores of a passage are means over its bytes.
    """

    score = ACCURACY
    recipe = Recipe(decay={"adamw": 0.1, "sgd": 1e-4}, decays=matrices, warmup=0.1)
    keeps_rest = False

    def __init__(
        self,
        text: Text,
        *,
        norm: Norm = "layer",
        test: bool = True,
        precision: Precision = "float32",
    ):
        """Makes the task.

        Args:
          text: the splits as bytes.
          norm: the decoder's norm.
          test: whether the test split may be evaluated.
          precision: the precision of the network's activations.
        """
        self.model = Decoder(norm, jnp.dtype(precision))
        self.per_turn = CPU_PASSAGES if jax.default_backend() == "cpu" else None
        names = ("train", "validation", "test") if test else ("train", "validation")
        self.splits = {name: passages(getattr(text, name)) for name in names}
        self.about = about(text)

    def init(self, key: Array) -> Variables:
        """Returns fresh parameters."""
        return jax.jit(self.model.init)(key, jnp.zeros((1, LENGTH), jnp.int32))

    def test_scores(self, variables: Variables, examples: Examples) -> Scores:
        """Returns the scores of the passages."""
        text = examples[0].astype(jnp.int32)
        scores = cross_entropy(self.model.apply(variables, text[:, :-1]), text[:, 1:])
        return jax.tree.map(lambda x: x.mean(-1), scores)


def passages(text: np.ndarray) -> Examples:
    """Returns the passages of a text, one after another, uint8 `(N, LENGTH + 1)`.

    Each begins with the byte that the previous one ends with, and does not predict that
    byte. No bytes are copied.
    """
    windows = np.lib.stride_tricks.sliding_window_view(text, LENGTH + 1)
    return (windows[::LENGTH],)


def about(text: Text) -> About:
    """Returns a description of the text."""
    sizes = {
        f"{name}_bytes": len(getattr(text, name))
        for name in ("train", "validation", "test")
    }
    train, validation, test = sizes.values()
    return About(
        name=text.name,
        reason="as asked",
        unit="passages",
        sizes=sizes,
        text=f"{train} training, {validation} validation and {test} test bytes, "
        f"in passages of {LENGTH}",
    )
