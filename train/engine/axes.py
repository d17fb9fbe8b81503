"""The axes that GC averages over: those that the task's own network contracts."""

import jax

from optax_gc import traced_fan_in
from train.engine.arms import Policy
from train.engine.task import Task, Variables, take


def fan_in_axes(task: Task, variables: Variables) -> Policy:
    """Returns the policy traced from the task's evaluation, without running it.

    Args:
      task: the task.
      variables: as `task.init` makes them; shapes and dtypes are enough.
    """
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    example = take(task.splits["train"], slice(1))

    def scores(params, rest, example):
        return task.test_scores({"params": params, **rest}, example)

    shapes = jax.eval_shape(lambda: (variables["params"], rest))
    return traced_fan_in(scores, *shapes, example)
