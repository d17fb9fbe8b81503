"""Runs what needs several devices in a process that has them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

STEP = """
import json, jax, numpy as np, optax
from flax import linen as nn
from train import data, loop, processes
from train.checkpoint import Progress
from train.config import Config

class Small(nn.Module):
    classes: int = 2

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images[:, ::16, ::16].reshape(len(images), -1)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]

rng = np.random.default_rng(0)
split = data.Split(
    rng.integers(0, 256, (20, 64, 64, 3), np.uint8), rng.integers(0, 2, 20, np.int32)
)
loop.CNN = Small
mesh = loop.all_devices()
config = Config(batch_size=12)
state = loop.init_state(jax.random.key(0), (64, 64, 3), optax.sgd(1.0))
state = processes.replicate(state, mesh)
test = loop.deal(split, np.arange(20), 20, mesh)
program = loop.compile_program(config, state, test, mesh)
batches = (
    (loop.deal(split, rows, 12, mesh), len(rows))
    for rows in loop.epoch_batches(0, 1, 20, 12)
)
state, done = loop.train_epoch(
    program, state, batches, jax.random.key(1), Progress(), lambda _: True
)
metrics = [done.loss, done.correct, done.images]
held_out = loop.evaluated(program, state, test, 20)
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
