"""The arms of the study: what becomes of a gradient on its way to an update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

import optax_gc
from train.study.limits.problems import Problem, applied

MOMENTUM = 0.9
ARMS = {  # of each optimizer, in the order in which they are run
    "adam": ("none", "gradient", "update", "shorten", "muon", "muon-gradient"),
    "sgd": ("none", "gradient", "shorten"),
}
BIAS_ARMS = ("bias", "bias-gradient")  # of one problem alone
BIAS_PROBLEM = ("mlp", "sgd")
WARMUP = 0.05  # of the steps, in which the rate rises; then it falls on a cosine to 0


def axes_of(problem: Problem, params: Any) -> Any:
    """Returns the policy of the fan-in axes, read off the forward pass."""

    def forward(params: Any, x: Any) -> Array:
        return applied(problem.model, params, x)

    return optax_gc.traced_fan_in(forward, params, problem.split.train.x[:2])


def transformation(
    problem: Problem, optimizer: str, arm: str, params: Any, rate: Array, steps: int
) -> optax.GradientTransformation:
    """Returns what trains an arm.

    Args:
      problem: what is trained.
      optimizer: "adam" or "sgd".
      arm: one of `ARMS`, or of `BIAS_ARMS`.
      params: fresh ones.
      rate: the largest step size; it may be traced.
      steps: of the run.
    """
    axes = axes_of(problem, params)
    centralize = optax_gc.centralize_gradients(axes)
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, round(WARMUP * steps), steps)
    scaled = optax.scale_by_learning_rate(lambda count: rate * shape(count))
    name, _, placed = arm.partition("-")
    before = [centralize] if "gradient" in (name, placed) else []
    after = {"update": [centralize], "shorten": [shorten(axes)]}.get(name, [])
    if name == "muon":
        numbers = optax_gc.muon_dimension_numbers(params, axes)
        return optax.chain(
            *before,
            optax.contrib.muon(
                lambda count: rate * shape(count), muon_weight_dimension_numbers=numbers
            ),
        )
    if name == "bias":
        after = [faster_biases(bias_factors(problem, params))]
    scale = optax.scale_by_adam() if optimizer == "adam" else optax.trace(MOMENTUM)
    return optax.chain(*before, scale, *after, scaled)


def shorten(axes: Any) -> optax.GradientTransformation:
    """Returns a transformation that makes each kernel as short as GC would leave it.

    Its direction is kept: the control that does everything but take the mean away.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        removed = optax_gc.removed_energy(updates, axes)
        left = jax.tree.map(lambda x, share: x * jnp.sqrt(1 - share), updates, removed)
        return left, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def faster_biases(factors: Any) -> optax.GradientTransformation:
    """Returns a transformation that lengthens each leaf's update by its factor."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(jnp.multiply, updates, factors), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def bias_factors(problem: Problem, params: Any) -> Any:
    """Returns 1 + M m^2 for each bias, and 1 for every other leaf.

    M is the fan-in of the bias's layer, and m^2 the mean over the training examples of
    the squared mean of the layer's inputs. Along the mean of its inputs a kernel is a
    second bias, and moves the outputs M m^2 times as far as the bias does at one rate.
    """
    means: dict[str, Array] = {}

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and "kernel" in variables(context.module):
            inputs = args[0]
            square = jnp.mean(jnp.square(inputs.mean(-1)))
            means[context.module.name] = 1 + inputs.shape[-1] * square
        return call(*args, **kwargs)

    import flax.linen as nn

    with nn.intercept_methods(note):
        applied(problem.model, params, problem.probe.x)
    return {
        layer: {name: means[layer] if name == "bias" else 1.0 for name in leaves}
        for layer, leaves in params.items()
    }


def variables(module: Any) -> Any:
    """Returns the params of a bound module."""
    return module.variables.get("params", {})
