"""The update of each arm: compiled, timed, and counted in bytes.

The arms are the optimizer alone, after `optax_gc.centralize_gradients` and after
`optax.centralize`. Nothing else differs: same process, same buffers, same round.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.stages import Compiled, Traced
from rich.table import Table

import optax_gc
from benchmarks.cost import trees
from benchmarks.cost.tables import blank_table

Seconds: TypeAlias = dict[str, list[float]]

CENTRALIZE = {
    "alone": optax.identity(),
    "optax_gc": optax_gc.centralize_gradients(),
    "optax.centralize": optax.centralize(),
}
ARMS = ("alone", "optax_gc")  # the arms compared where measuring takes long
# XLA's own time for a CPU grows faster than the leaves: minutes for 10,000, and 10 GB.
COMPILED_UP_TO = 1000
OPTIMIZERS = {"rmsprop": optax.rmsprop(1e-4), "adam": optax.adam(1e-4)}
MODELS = {"CNN": trees.cnn, "ResNet-50": trees.resnet50, "GPT-2": trees.gpt2}
# Bytes per float32 parameter: gradient, moments and weight are read, the last two
# are written.
FLOOR = {"rmsprop": 20, "adam": 28}


def trace_update(
    centralize: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    params: trees.Tree,
) -> Traced:
    """Returns the traced update `(params, state, grads) -> (params, state)`.

    Args:
      centralize: The transform before the optimizer; its state must be empty.
      optimizer: An optimizer, with or without state.
      params: Shapes, dtypes and, if given, shardings, which the state and the gradients
        share.

    Returns:
      The traced function, which donates its parameters and its state.
    """
    tx = optax.chain(centralize, optimizer)
    alone = optax.chain(optax.identity(), optimizer)  # every arm has the same state
    state = jax.eval_shape(alone.init, params)
    state = optax.tree.map_params(alone, lambda _, leaf: leaf, state, params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return update.trace(params, state, params)


def compile_updates(
    optimizer: optax.GradientTransformation, params: trees.Tree
) -> dict[str, Compiled]:
    """Returns the compiled update of each arm."""
    return {
        name: trace_update(centralize, optimizer, params).lower().compile()
        for name, centralize in CENTRALIZE.items()
    }


def time_updates(
    compiled: dict[str, Compiled],
    optimizer: optax.GradientTransformation,
    params: trees.Tree,
    rounds: int,
) -> Seconds:
    """Returns the seconds of each arm's update in each round.

    The arms take turns and hand the donated parameters and state to one another, so all
    of them work in the same memory. Each round begins with another arm.
    """
    rng = np.random.default_rng(0)
    weights, grads = (
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)
        for _ in range(2)
    )
    state = optax.chain(optax.identity(), optimizer).init(weights)
    seconds: Seconds = {name: [] for name in compiled}
    order = deque(compiled)
    for _ in range(rounds + 1):
        for name in order:
            start = time.perf_counter()
            weights, state = compiled[name](weights, state, grads)
            jax.block_until_ready((weights, state))
            seconds[name].append(time.perf_counter() - start)
        order.rotate()
    return {name: times[1:] for name, times in seconds.items()}  # the first warms up


def quartiles(seconds: Seconds, name: str) -> list[float]:
    """Returns the quartiles over rounds of an arm's time over the optimizer's alone."""
    ratios = np.divide(seconds[name], seconds["alone"])
    return np.percentile(ratios, (25, 50, 75)).tolist()


def cell(ratios: Sequence[float]) -> str:
    """Returns the median and the quartiles as a table shows them."""
    low, median, high = ratios
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def ratio(seconds: Seconds, name: str) -> str:
    """Returns an arm's time over the optimizer's alone: median and quartiles."""
    return cell(quartiles(seconds, name))


def bytes_per_parameter(compiled: Compiled, params: trees.Tree) -> float:
    """Returns the bytes that the compiled update accesses, over the parameters."""
    return compiled.cost_analysis()["bytes accessed"] / trees.count(params)


def trace_seconds(name: str, params: trees.Tree) -> tuple[float, Traced]:
    """Returns how long tracing RMSprop's update takes in one arm, and the trace."""
    start = time.perf_counter()
    traced = trace_update(CENTRALIZE[name], OPTIMIZERS["rmsprop"], params)
    return time.perf_counter() - start, traced


def compile_seconds(traced: Traced) -> float:
    """Returns how long lowering and compiling take."""
    start = time.perf_counter()
    traced.lower().compile()
    return time.perf_counter() - start


def measure_updates(
    models: dict[str, Callable[[], trees.Tree]], rounds: int
) -> tuple[Table, Table]:
    """Returns a table of the times of the updates, and one of the bytes they access."""
    gc_names = [name for name in CENTRALIZE if name != "alone"]
    times = blank_table("Update time", "model", "optimizer", "alone, ms", *gc_names)
    traffic = blank_table(
        "Bytes per parameter", "model", "optimizer", "floor", *CENTRALIZE
    )
    for model, make in models.items():
        params = make()
        for label, optimizer in OPTIMIZERS.items():
            compiled = compile_updates(optimizer, params)
            sizes = [bytes_per_parameter(c, params) for c in compiled.values()]
            traffic.add_row(model, label, *(f"{x:.1f}" for x in (FLOOR[label], *sizes)))
            seconds = time_updates(compiled, optimizer, params, rounds)
            alone = f"{np.median(seconds['alone']) * 1e3:.1f}"
            ratios = [ratio(seconds, name) for name in gc_names]
            times.add_row(model, label, alone, *ratios)
    return times, traffic


def measure_growth(sizes: Sequence[int]) -> Table:
    """Returns a table of the time to trace and compile trees of many leaves."""
    stages = [f"{stage}, {name}" for stage in ("trace", "compile") for name in ARMS]
    table = blank_table("Milliseconds per leaf, RMSprop", "leaves", *stages)
    compile_seconds(trace_seconds("alone", trees.many_leaves(2))[1])  # warm up
    for leaves in sizes:
        params = trees.many_leaves(leaves)
        traced = [trace_seconds(name, params) for name in ARMS]
        seconds = [spent for spent, _ in traced]
        if leaves <= COMPILED_UP_TO:
            seconds += [compile_seconds(trace) for _, trace in traced]
        table.add_row(f"{leaves:,}", *(f"{s / leaves * 1e3:.2f}" for s in seconds))
    return table
