"""The optimizers, with Gradient Centralization before or after them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from train.config import Config

RMSPROP_EPSILON = 1e-7  # Keras's, added inside the square root
MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a task adds to its optimizers.

    Attributes:
      decay: weight decay by optimizer, decoupled in AdamW and added to the gradient in
        others; an optimizer that is not named has none.
      decays: maps the parameters to a tree that tells which of them decay; None if all
        do.
      warmup: the share of a run's steps in which the rate rises from 0 before its
        cosine decay to 0; None for a constant rate.
    """

    decay: Mapping[str, float]
    decays: Callable[[Any], Any] | None = None
    warmup: float | None = None


def learning_rate(peak: float, recipe: Recipe, steps: int) -> optax.ScalarOrSchedule:
    """Returns the rate of each step of a run, or the constant rate of all."""
    if recipe.warmup is None:
        return peak
    warmup = max(1, round(recipe.warmup * steps))
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1))


def optimizer(
    config: Config,
    recipe: Recipe,
    steps: int,
    projection: optax.GradientTransformation | None,
) -> optax.GradientTransformation:
    """Returns the configured optimizer with the arm's projection in its place.

    Args:
      config: the optimizer, its learning rate, and the projection's placement.
      recipe: what the task adds.
      steps: number of steps in the run.
      projection: the arm's projection of gradients or updates; None if it has none.
    """
    decay = recipe.decay.get(config.optimizer)
    decayed = [optax.add_decayed_weights(decay, recipe.decays)] if decay else []
    scale = {
        "rmsprop": optax.scale_by_rms(eps=RMSPROP_EPSILON, eps_in_sqrt=True),
        "sgd": optax.trace(MOMENTUM),
        "adam": optax.scale_by_adam(),
        "adamw": optax.scale_by_adam(),
    }[config.optimizer]
    decoupled = config.optimizer == "adamw"
    parts = [scale, *decayed] if decoupled else [*decayed, scale]
    parts = [optax.chain(*parts)] if decayed else parts
    arm = [projection] if projection else []
    parts = [*parts, *arm] if config.placement == "update" else [*arm, *parts]
    rate = learning_rate(config.learning_rate, recipe, steps)
    return optax.chain(*parts, optax.scale_by_learning_rate(rate))
