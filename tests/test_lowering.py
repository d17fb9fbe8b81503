"""The whole train step lowers for accelerators on a machine that has none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import data
from train.engine import arms, batches
from train.engine.axes import fan_in_axes
from train.engine.optimizer import optimizer
from train.engine.state import init_state
from train.engine.step import train_step
from train.horses import Config
from train.tasks.horses import Horses

SIDE = 94
SPLIT = data.Split(np.zeros((4, SIDE, SIDE, 3), np.uint8), np.zeros(4, np.int32))
TASK = Horses(data.Dataset("blank", "as asked", ("horses", "humans"), SPLIT, SPLIT))
COUNT = jax.ShapeDtypeStruct((), jnp.int32)
KEY = jax.eval_shape(jax.random.key, 0)


def step_and_state(gc, mesh):
    """The train step, and the shapes of the state that it takes."""
    config, variables = Config(gc=gc), jax.eval_shape(TASK.init, KEY)
    arm = config, fan_in_axes(TASK, variables), variables["params"]
    tx = optimizer(config, TASK.recipe, 1, arms.projection(*arm))
    shares = arms.taken_shares(*arm)
    step = functools.partial(train_step, task=TASK, tx=tx, shares=shares, mesh=mesh)
    return step, jax.eval_shape(lambda key: init_state(TASK.init(key), tx), KEY)


def traced_step(gc):
    mesh = batches.all_devices()
    step, state = step_and_state(gc, mesh)
    batch = batches.batch_shapes(TASK.splits["train"], 4, mesh)
    return jax.jit(step).trace(state, batch, COUNT, KEY)


@pytest.mark.parametrize("gc", [False, True])
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_the_train_step_lowers_with_the_ordinary_layers(platform, gc):
    text = traced_step(gc).lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in text
    assert "stablehlo.reduce_window" in text  # max-pooling, as on no CPU
    assert "stablehlo.select_and_scatter" in text


def test_on_a_cpu_the_pool_is_written_otherwise():
    text = traced_step(True).lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.select_and_scatter" not in text


def test_the_step_compiles_for_a_tpu_where_its_compiler_is_installed():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:2x2", num_slices=1
    )
    mesh = topologies.make_mesh(topology, (4,), ("batch",))
    step, state = step_and_state(gc=True, mesh=mesh)
    everywhere = jax.NamedSharding(mesh, jax.P())
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state
    )
    batch = batches.batch_shapes(TASK.splits["train"], 4, mesh)
    compiled = jax.jit(step).lower(state, batch, COUNT, KEY).compile()
    assert "all-reduce" in compiled.as_text()
