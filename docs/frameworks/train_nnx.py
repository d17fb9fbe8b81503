# python docs/frameworks/train_nnx.py
import jax
import numpy as np
import optax
from flax import nnx

from optax_gc import centralize_gradients, describe, traced_fan_in

rng = np.random.default_rng(0)  # stripes that lie (0) or stand (1), in noise
y = np.arange(64) % 2
waves = np.sin(np.arange(8) * 1.5 + rng.uniform(0, 6, (64, 1, 1))).repeat(8, 1)
x = np.where(y[:, None, None], waves, waves.transpose(0, 2, 1))
x = np.float32(x + rng.normal(0, 0.5, x.shape))[..., None]  # (64, 8, 8, 1)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).mean((1, 2)))


def loss(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


model = Network(nnx.Rngs(0))
axes = traced_fan_in(loss, model, x, y)
gc, lr = centralize_gradients(axes), optax.scale_by_learning_rate(0.03)
tx = optax.chain(optax.scale_by_adam(), gc, lr)
optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
params, start = nnx.state(model, nnx.Param), loss(model, x, y)
before = jax.tree.leaves(params)
gradient = nnx.jit(nnx.grad(loss))
for _ in range(30):
    optimizer.update(model, gradient(model, x, y))
print(f"loss {start:.4f} -> {loss(model, x, y):.4f}")
after = jax.tree.leaves(nnx.state(model, nnx.Param))
for row, old, new in zip(describe(params, axes).rows, before, after, strict=True):
    if row.axes:
        means = abs((new - old).mean(row.axes)).max()
        print(f"{row.path} moved {abs(new - old).max():.2f}, its means {means:.0e}")
