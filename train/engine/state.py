"""What training changes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from optax_gc import centralize_gradients, describe
from train.engine.optimizer import Policy
from train.engine.task import Variables


class State(struct.PyTreeNode):
    """The number of steps done, the parameters, and what is kept beside them.

    Attributes:
      step: int32 scalar.
      params: the parameters.
      opt_state: the optimizer's state.
      model_state: the network's other variables by collection, such as `batch_stats`.
    """

    step: Array
    params: Any
    opt_state: Any
    model_state: Mapping[str, Any]

    @property
    def variables(self) -> Variables:
        return {"params": self.params, **self.model_state}


def init_state(variables: Variables, tx: optax.GradientTransformation) -> State:
    """Returns the state before the first step."""
    model_state = {k: v for k, v in variables.items() if k != "params"}
    params = variables["params"]
    return State(jnp.zeros((), jnp.int32), params, tx.init(params), model_state)


def mean_drift(params: Any, start: Any, axes: Policy) -> Any:
    """Returns how far the fan-in means of each leaf are from those at the start.

    The root mean square over the output units, in the units of the weights; 0 where
    nothing is centralized. GC conserves these means under SGD.
    """
    change = jax.tree.map(jnp.subtract, params, start)
    gc = centralize_gradients(axes)
    centralized, _ = gc.update(change, gc.init(change))
    # What centralizing takes from the change is the change of the means.
    return jax.tree.map(
        lambda x, y: jnp.sqrt(jnp.mean(jnp.square(x - y))), change, centralized
    )


def by_path(tree: Any, like: Any, axes: Policy) -> dict[str, float]:
    """Returns the scalars of `tree` at the leaves of `like` that GC centralizes."""
    rows = describe(like, axes).rows
    values = jax.tree.leaves(jax.device_get(tree))
    return {
        row.path: float(value)
        for row, value in zip(rows, values, strict=True)
        if row.axes is not None
    }
