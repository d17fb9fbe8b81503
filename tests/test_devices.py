"""Several devices train as one does."""

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
BEGIN = """
import json, jax, numpy as np, rich.console
from train import data
from train.engine import fit, run
from train.faults import Stop
from train.record.reporter import Reporter

def dataset(shape, classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *shape), np.uint8)
    split = data.Split(images, rng.integers(0, classes, 20, np.int32))
    return data.Dataset("random", "as asked", tuple(map(str, range(classes))), split,
                        split)
"""
RUN = """
{task}
run.all_devices = lambda: jax.sharding.Mesh(jax.devices()[:{devices}], ("batch",))
reporter = Reporter(None, rich.console.Console(quiet=True))
state = fit.fit(config, task, reporter, Stop())
(metrics,) = reporter.history
numbers = [v for k, v in metrics.items() if "seconds" not in k]
leaves = jax.tree.leaves(jax.device_get((state.params, state.model_state)))
print(json.dumps([numbers, *(leaf.ravel().tolist() for leaf in leaves)]))
"""
CASES = {
    "horses-3": (HORSES, 3, HORSES),
    "horses-8": (HORSES, 8, HORSES),
    "on-devices-3": (ON_DEVICES, 3, HORSES),
    "fashion-2": (FASHION, 2, FASHION),
    "fashion-8": (FASHION, 8, FASHION),
    "image-2": (IMAGE, 2, IMAGE),
}


@pytest.fixture(scope="module")
def results():
    """The metrics and parameters of each task on some of eight devices."""
    runs = [(task, devices) for task, devices, _ in CASES.values()]
    runs += [
        (alone, 1) for alone in dict.fromkeys(alone for *_, alone in CASES.values())
    ]
    code = BEGIN + "".join(
        RUN.replace("{task}", task).replace("{devices}", str(devices))
        for task, devices in runs
    )
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(runs, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("task", "devices", "alone"), CASES.values(), ids=CASES)
def test_several_devices_train_as_one_does(task, devices, alone, results):
    ours, theirs = results[task, devices], results[alone, 1]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
