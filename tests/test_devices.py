"""Runs what needs several devices in a process that has them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

STEP = """
import json, jax, jax.numpy as jnp, numpy as np, optax
from flax import linen as nn
from train import data
from train.engine import batches, epoch, fit, processes, program
from train.engine.axes import fan_in_axes
from train.engine.checkpoint import Progress
from train.engine.state import init_state
from train.horses import Config
from train.tasks.horses import Horses

class Small(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = images[:, ::16, ::16].reshape(len(images), -1)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]

rng = np.random.default_rng(0)
split = data.Split(
    rng.integers(0, 256, (20, 64, 64, 3), np.uint8), rng.integers(0, 2, 20, np.int32)
)
task = Horses(data.Dataset("random", "as asked", ("horses", "humans"), split, split))
task.model = Small()
mesh = batches.all_devices()
config = Config(batch_size=12)
tx = optax.sgd(1.0)
variables = task.init(jax.random.key(0))
axes = fan_in_axes(task, variables)
state = processes.replicate(init_state(variables, tx), mesh)
test = batches.deal(task.splits["test"], np.arange(20), 20, mesh)
compiled = program.compile_program(config, task, tx, axes, state, test, mesh)
dealt = (
    (batches.deal(task.splits["train"], rows, 12, mesh), len(rows))
    for rows in batches.epoch_batches(0, 1, 20, 12, keep_rest=True)
)
state, done = epoch.train_epoch(
    compiled, state, dealt, jax.random.key(1), Progress(), lambda _: True
)
metrics = [done.loss, done.correct, done.images]
held_out = fit.evaluated(compiled, state, test, 20)
kernel = jax.device_get(state.params["Dense_0"]["kernel"])
print(json.dumps([metrics, held_out, kernel[:, 0].tolist()]))
"""


def results(devices):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-W", "error", "-c", STEP]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def one_device():
    return results(1)


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_several_devices_train_as_one_does(one_device, devices):
    for ours, theirs in zip(results(devices), one_device, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
