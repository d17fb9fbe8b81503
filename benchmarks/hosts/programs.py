"""The train step of each task, compiled for the chips of a mesh."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from rich.table import Table

from benchmarks.cost import chips, hlo
from train import data, fashion, horses, shakespeare
from train.engine import arms, batches, feed
from train.engine.axes import fan_in_axes
from train.engine.optimizer import optimizer
from train.engine.state import State, init_state
from train.engine.step import train_step
from train.engine.task import Task

EXAMPLES = 12_000  # training examples, more than Fashion's validation split needs
KEY = jax.eval_shape(jax.random.key, 0)


def blank_images(shape: tuple[int, ...], classes: int) -> data.Dataset:
    """Returns black images, which take no memory until they are read."""
    images = np.broadcast_to(np.zeros((), np.uint8), (EXAMPLES, *shape))
    split = data.Split(images, np.zeros(EXAMPLES, np.int32))
    return data.Dataset(
        "blank", "as asked", tuple(map(str, range(classes))), *[split] * 2
    )


def tasks(precision: str) -> dict[str, tuple[Task, Any]]:
    """Returns each task as accelerators run it, with its default configuration."""
    blank = data.Text("blank", *[np.zeros(1_000_000, np.uint8)] * 3)
    of = {
        "horses": (horses, blank_images((300, 300, 3), 2)),
        "fashion": (fashion, blank_images((28, 28, 1), 10)),
        "shakespeare": (shakespeare, blank),
    }
    made = {}
    for name, (module, examples) in of.items():
        config = functools.partial(module.Config, precision=precision)
        task = module.task(config(), examples)
        task.per_turn = None  # the whole share at once, unlike on a CPU
        made[name] = task, config
    return made


def step_and_state(task: Task, config: Any, mesh: Mesh) -> tuple[Any, State]:
    """Returns the train step, and the shapes of the state that it takes."""
    variables = jax.eval_shape(task.init, KEY)
    axes = fan_in_axes(task, variables)
    projection = arms.projection(config, axes, variables["params"])
    tx = optimizer(config, task.recipe, 1000, projection)
    shares = arms.taken_shares(config, axes, variables["params"])
    step = functools.partial(train_step, task=task, tx=tx, shares=shares, mesh=mesh)
    return step, jax.eval_shape(lambda key: init_state(task.init(key), tx), KEY)


def lowered(task: Task, config: Any, mesh: Mesh) -> dict[str, jax.stages.Lowered]:
    """Returns the step, and the loop of many steps, lowered for the chips."""
    step, state = step_and_state(task, config, mesh)
    everywhere = NamedSharding(mesh, P())

    def whole(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)

    state, examples = jax.tree.map(whole, (state, task.splits["train"]))
    batch = batches.batch_shapes(examples, config.batch_size * mesh.size, mesh)
    one = jax.jit(step, donate_argnums=0).lower(state, batch, feed.COUNT, KEY)
    many = feed.lower_turn(step, state, (examples, batch.positions), mesh)
    return {"step": one, "loop": many}


def tpu_mesh(grid: tuple[int, int]) -> Mesh:
    """Returns the chips as a mesh like the engine's."""
    return Mesh(chips.tpu_mesh(grid).devices.ravel(), ("batch",))


def peak(compiled: jax.stages.Compiled) -> int:
    """Returns the most bytes that a chip needs."""
    found = compiled.memory_analysis()
    kept = found.argument_size_in_bytes + found.output_size_in_bytes
    return kept + found.temp_size_in_bytes - found.alias_size_in_bytes


def row(task: Task, config: Any, mesh: Mesh) -> list[str]:
    """Returns the counts for a program."""
    programs = {k: v.compile() for k, v in lowered(task, config, mesh).items()}
    text, flop = programs["step"].as_text(), programs["step"].cost_analysis()["flops"]
    return [
        f"{flop / 1e9:.1f}",
        f"{hlo.hbm_bytes(text) / 1e6:,.0f}",
        f"{peak(programs['step']) / 1e6:,.0f}",
        hlo.summary(hlo.collectives(text)),
        hlo.summary(hlo.collectives(programs["loop"].as_text())),
    ]


def measure(grids: tuple[tuple[int, int], ...], precision: str) -> Table:
    """Returns the table of all tasks."""
    columns = ("GFLOP", "HBM, MB", "peak, MB", "collectives", "of the loop")
    title = f"A chip's step, {precision}"
    table = Table("task", "TPU v5e", *columns, title=title)
    for name, (task, config) in tasks(precision).items():
        for grid in grids:
            cells = row(task, config(gc=True), tpu_mesh(grid))
            table.add_row(name, "x".join(map(str, grid)), *cells)
    return table
