# python docs/frameworks/train_linen.py
import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from optax_gc import centralize_gradients, describe, traced_fan_in

rng = np.random.default_rng(0)  # stripes that lie (0) or stand (1), in noise
y = np.arange(64) % 2
waves = np.sin(np.arange(8) * 1.5 + rng.uniform(0, 6, (64, 1, 1))).repeat(8, 1)
x = np.where(y[:, None, None], waves, waves.transpose(0, 2, 1))
x = np.float32(x + rng.normal(0, 0.5, x.shape))[..., None]  # (64, 8, 8, 1)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        return nn.Dense(2)(x.mean((1, 2)))


def loss(params, x, y):
    logits = model.apply({"params": params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


model = Network()
params = model.init(jax.random.key(0), x)["params"]
axes = traced_fan_in(loss, params, x, y)
tx = optax.chain(centralize_gradients(axes), optax.sgd(0.3, momentum=0.9))
state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
gradient = jax.jit(jax.grad(loss))
for _ in range(30):
    state = state.apply_gradients(grads=gradient(state.params, x, y))
print(f"loss {loss(params, x, y):.4f} -> {loss(state.params, x, y):.4f}")
before, after = jax.tree.leaves(params), jax.tree.leaves(state.params)
for row, old, new in zip(describe(params, axes).rows, before, after, strict=True):
    if row.axes:
        means = abs((new - old).mean(row.axes)).max()
        print(f"{row.path} moved {abs(new - old).max():.2f}, its means {means:.0e}")
