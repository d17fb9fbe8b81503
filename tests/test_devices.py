"""Several devices train as one does."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

HORSES = """
from flax import linen as nn
from train.horses import Config
from train.tasks.horses import Horses

class Small(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = images[:, ::16, ::16].reshape(len(images), -1)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]

task = Horses(dataset((64, 64, 3), 2))
task.model = Small()
config = Config(
    batch_size=12, epochs=1, optimizer="sgd", learning_rate=1.0, feed="host"
)
"""
ON_DEVICES = HORSES.replace('"host"', '"device"')
FASHION = """
from train.fashion import Config
from train.tasks import fashion, resnet
fashion.VALIDATION = 5
resnet.FEATURES = (8,)
task = fashion.Fashion(dataset((8, 8, 1), 4))
config = Config(batch_size=5, epochs=1, optimizer="sgd", learning_rate=0.01)
"""
IMAGE = """
from train.image import Config
from train.tasks.image import ImageFit
pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
task = ImageFit(data.Picture("random", "as asked", pixels))
config = Config(batch_size=11, epochs=1, learning_rate=1e-3)
"""
RUN = """
import json, jax, numpy as np, rich.console
from train import data
from train.engine import fit
from train.faults import Stop
from train.record.reporter import Reporter

def dataset(shape, classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *shape), np.uint8)
    split = data.Split(images, rng.integers(0, classes, 20, np.int32))
    return data.Dataset("random", "as asked", tuple(map(str, range(classes))), split,
                        split)
{task}
reporter = Reporter(None, rich.console.Console(quiet=True))
state = fit.fit(config, task, reporter, Stop())
(metrics,) = reporter.history
numbers = [v for k, v in metrics.items() if "seconds" not in k]
leaves = jax.tree.leaves(jax.device_get((state.params, state.model_state)))
print(json.dumps([numbers, *(leaf.ravel().tolist() for leaf in leaves)]))
"""


@functools.cache
def results(task, devices):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-W", "error", "-c", RUN.replace("{task}", task)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("task", "devices", "alone"),
    [
        (HORSES, 3, HORSES), (HORSES, 8, HORSES), (ON_DEVICES, 3, HORSES),
        (FASHION, 2, FASHION), (FASHION, 8, FASHION), (IMAGE, 2, IMAGE),
    ],
    ids=["horses-3", "horses-8", "on-devices-3", "fashion-2", "fashion-8", "image-2"],
)  # fmt: skip
def test_several_devices_train_as_one_does(task, devices, alone):
    ours, theirs = results(task, devices), results(alone, 1)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
