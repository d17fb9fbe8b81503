"""The whole train step lowers for accelerators on a machine that has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost import chips, hlo
from benchmarks.hosts import programs
from train import data
from train.engine import batches
from train.horses import Config
from train.tasks.horses import Horses

SIDE = 94
SPLIT = data.Split(np.zeros((4, SIDE, SIDE, 3), np.uint8), np.zeros(4, np.int32))
TASK = Horses(data.Dataset("blank", "as asked", ("horses", "humans"), SPLIT, SPLIT))
COUNT = jax.ShapeDtypeStruct((), jnp.int32)
KEY = jax.eval_shape(jax.random.key, 0)


def traced_step(gc):
    mesh = batches.all_devices()
    step, state = programs.step_and_state(TASK, Config(gc=gc), mesh)
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


@pytest.mark.parametrize(
    ("task", "reductions"), [("horses", 1), ("fashion", 15), ("shakespeare", 1)]
)
def test_on_tpus_gc_adds_no_collective(task, reductions, monkeypatch):
    """One all-reduce of the gradients; the ResNet's 14 others are of its BatchNorms."""
    pytest.importorskip("libtpu")
    for name, value in chips.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    made, config = programs.tasks("float32")[task]
    mesh = programs.tpu_mesh((2, 2))
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules promote
        lowered = [programs.lowered(made, config(gc=gc), mesh) for gc in (False, True)]
    for name in ("step", "loop"):
        without, with_gc = (
            hlo.collectives(arm[name].compile().as_text()) for arm in lowered
        )
        assert without == with_gc
        assert {kind: number for kind, (number, _) in with_gc.items()} == {
            "all-reduce": reductions
        }
