"""The whole train step lowers for accelerators on a machine that has none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import data, loop
from train.config import Config

SIDE = 94
SPLIT = data.Split(np.zeros((4, SIDE, SIDE, 3), np.uint8), np.zeros(4, np.int32))


def traced_step(gc):
    mesh = loop.all_devices()
    state = loop.init_state(
        jax.random.key(0), (SIDE, SIDE, 3), loop.optimizer(Config(gc=gc))
    )
    batch = loop.deal(SPLIT, np.arange(4), 4, mesh)
    step = functools.partial(loop.train_step, mesh=mesh, augmented=True, per_turn=2)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    return jax.jit(step).trace(state, batch, count, key)


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
    state = jax.eval_shape(
        lambda: loop.init_state(
            jax.random.key(0), (SIDE, SIDE, 3), loop.optimizer(Config(gc=True))
        )
    )
    everywhere = jax.NamedSharding(mesh, jax.P())
    spread = jax.NamedSharding(mesh, jax.P("batch"))

    def struct(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    state = jax.tree.map(lambda x: struct(x, everywhere), state)
    batch = loop.Batch(SPLIT.images, SPLIT.labels, np.arange(4, dtype=np.int32))
    batch = jax.tree.map(lambda x: struct(x, spread), batch)
    step = functools.partial(loop.train_step, mesh=mesh, augmented=True, per_turn=1)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    compiled = jax.jit(step).lower(state, batch, count, key).compile()
    assert "all-reduce" in compiled.as_text()
