"""What training changes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from train.engine.task import Variables


class State(struct.PyTreeNode):
    """The number of steps done, the parameters, and what is kept with them.

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
