"""Cross-entropy, which is the loss of every task here."""

import jax.numpy as jnp
import optax
from jax import Array

from train.engine.task import Scores


def cross_entropy(logits: Array, labels: Array) -> Scores:
    """Returns each example's cross-entropy, and 1 if its class was predicted, else 0.

    The cross-entropy is binary for logits `(B,)`, and that of a softmax for logits
    `(B, ..., classes)`.

    Args:
      logits: in float32.
      labels: int32, of the shape of the logits without the axis of classes.
    """
    if logits.ndim == labels.ndim:
        losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32))
        correct = (logits > 0) == (labels > 0)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.argmax(logits, -1) == labels
    return Scores(losses, correct.astype(jnp.float32))
