"""The optimizers, with Gradient Centralization in its place."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from optax_gc import centralize_gradients
from train.config import Config

Policy = Callable[[Any], Any]  # of axes, as in optax_gc
RMSPROP_EPSILON = 1e-7  # Keras's, added inside the square root
MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a task adds to its optimizers.

    Attributes:
      decay: weight decay by optimizer, none where it is not named: decoupled in AdamW,
        else added to the gradient.
    """

    decay: Mapping[str, float]


def optimizer(
    config: Config, recipe: Recipe, axes: Policy
) -> optax.GradientTransformation:
    """Returns the configured optimizer with Gradient Centralization in its place.

    Args:
      config: the run's configuration.
      recipe: what the task adds.
      axes: what is centralized over which axes.
    """
    decay = recipe.decay.get(config.optimizer)
    decayed = [optax.add_decayed_weights(decay)] if decay else []
    scale = {
        "rmsprop": optax.scale_by_rms(eps=RMSPROP_EPSILON, eps_in_sqrt=True),
        "sgd": optax.trace(MOMENTUM),
        "adam": optax.scale_by_adam(),
        "adamw": optax.scale_by_adam(),
    }[config.optimizer]
    decoupled = config.optimizer == "adamw"
    parts = [scale, *decayed] if decoupled else [*decayed, scale]
    parts = [optax.chain(*parts)] if decayed else parts
    gc = [centralize_gradients(axes)] if config.gc else []
    parts = [*parts, *gc] if config.placement == "update" else [*gc, *parts]
    return optax.chain(*parts, optax.scale_by_learning_rate(config.learning_rate))
