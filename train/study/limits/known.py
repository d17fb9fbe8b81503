"""The first study's networks, which join by their sharpness and known outcome."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import optax_gc
from train import config, fashion, horses, shakespeare
from train.engine import processes
from train.engine.batches import deal
from train.engine.checkpoint import Progress
from train.engine.run import Run, begin
from train.engine.state import State
from train.engine.step import train_step
from train.engine.task import Examples, Task, take
from train.study.limits.arms import WARMUP
from train.study.limits.curvature import FIGURES
from train.study.limits.store import Store

PART = "known"
ALONG = (0.1, 0.2, 0.5, 1.0)  # of the steps, where both arms are followed


@dataclasses.dataclass(frozen=True)
class Known:
    """A network of the first study.

    Attributes:
      name: of its task there.
      command: what trains it.
      optimizer: as an option.
      rate: that of `none` there.
      probe: training examples that the sharpness is measured on.
      arms: along which runs it is measured.
      shares: of the steps, after which it is.
      options: further ones of the command.
    """

    name: str
    command: Any
    optimizer: config.Optimizer
    rate: float
    probe: int
    arms: tuple[str, ...] = ("none",)
    shares: tuple[float, ...] = (0.0, WARMUP)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


PUBLISHED = {"dataset": "horses_or_humans"}
KNOWN = (
    Known("fashion", fashion, "sgd", 0.2, 512),
    Known("shakespeare", shakespeare, "adamw", 0.016, 64),
    Known("horses-sgd", horses, "sgd", 0.01, 64, ("none", "gradient"),
          (0.0, WARMUP, *ALONG), PUBLISHED),
    Known("horses-rmsprop", horses, "rmsprop", 0.0008, 64, options=PUBLISHED),
)  # fmt: skip


def key(known: Known, arm: str, share: float) -> dict[str, Any]:
    """Returns what a record of a network's sharpness is found by."""
    return {
        "part": PART, "problem": known.name, "optimizer": known.optimizer, "arm": arm,
        "steps": share, "rate": known.rate,
    }  # fmt: skip


def measure(store: Store, known: Known, data_dir: pathlib.Path) -> list[dict]:
    """Returns the records of a network's sharpness along its runs, made once."""
    keys = {arm: [key(known, arm, share) for share in known.shares]
            for arm in known.arms}  # fmt: skip
    for arm in known.arms:
        missing = [key["steps"] for key in keys[arm] if store.get(key) is None]
        if missing:
            for share, found in followed(known, arm, data_dir, missing):
                store.add(key(known, arm, share) | found)
    return [store.get(key) for arm in known.arms for key in keys[arm]]


def followed(
    known: Known, arm: str, data_dir: pathlib.Path, shares: Sequence[float]
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yields the sharpness along a run of seed 0, by the share of its steps."""
    options = known.command.Config(
        data_dir=data_dir, optimizer=known.optimizer, learning_rate=known.rate,
        gc=arm == "gradient", **known.options,
    )  # fmt: skip
    task = known.command.task(options, known.command.load_data(options))
    run, start = begin(options, task)
    ends = {round(share * run.steps * options.epochs): share for share in shares}
    loss = functools.partial(train_loss, task)
    examples = take(task.splits["train"], slice(known.probe))
    keys = jax.random.split(jax.random.key(0), known.probe)
    for step, state in trained(run, start, sorted(ends)):
        params, rest = jax.device_get((state.params, state.model_state))
        found = optax_gc.sharpness(loss, params, rest, examples, keys, axes=run.axes)
        yield ends[step], {name: getattr(found, name) for name in FIGURES}


def train_loss(
    task: Task, params: Any, rest: Any, examples: Examples, keys: Array
) -> Array:
    """Returns the loss that a task trains on, of examples on one device."""

    def losses(examples: Examples, keys: Array) -> Array:
        variables = {"params": params, **rest}
        scores, _ = task.train_scores(variables, examples, keys, jnp.ones(len(keys)))
        return scores.loss

    # As in a step, the mesh's axis has a name, with a single device in it.
    one = jax.vmap(losses, axis_name="batch")
    return one(jax.tree.map(lambda x: x[None], examples), keys[None]).mean()


def trained(run: Run, state: State, ends: Sequence[int]) -> Iterator[tuple[int, State]]:
    """Yields the state after each of some numbers of steps, as a run trains it."""
    examples, size = run.task.splits["train"], run.config.batch_size
    step = jax.jit(one_step(run))
    state = processes.replicate(state, run.mesh)
    epochs = (Progress(epoch=epoch) for epoch in itertools.count(1))
    batches = itertools.chain.from_iterable(run.left(epoch)[0] for epoch in epochs)
    for done in itertools.count():
        if done in ends:
            yield done, state
        if done == ends[-1]:
            return
        rows = next(batches)
        batch = deal(examples, rows, size, run.mesh)
        state = step(state, batch, jnp.int32(len(rows)), run.key)[0]


def one_step(run: Run) -> Callable[..., Any]:
    """Returns a run's step."""
    return functools.partial(
        train_step, task=run.task, tx=run.tx, shares=lambda grads: {}, mesh=run.mesh
    )
