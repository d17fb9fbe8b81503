# KERAS_BACKEND=jax python docs/keras_loop.py
import jax
import optax
from keras import Sequential, layers, random

from optax_gc import centralize_gradients, describe, traced_fan_in

stack = [layers.Conv2D(8, 3), layers.DepthwiseConv2D(3), layers.Conv2DTranspose(6, 2)]
stack += [layers.Flatten(), layers.EinsumDense("bi,ihd->bhd", (4, 5)), layers.Dense(3)]
model = Sequential([layers.Input((8, 8, 3)), *stack])
x, y = random.uniform((64, 8, 8, 3)), random.randint((64, 4), 0, 3)
tv, ntv = model.trainable_variables, model.non_trainable_variables
weights, rest = [v.value for v in tv], [v.value for v in ntv]
axes = traced_fan_in(lambda w, x: model.stateless_call(w, rest, x)[0], weights, x)
print(describe(weights, axes))
tx = optax.chain(centralize_gradients(axes), optax.sgd(0.1))


def loss(weights, rest):
    logits, rest = model.stateless_call(weights, rest, x, training=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), rest


gradient, state = jax.jit(jax.grad(loss, has_aux=True)), tx.init(weights)
for _ in range(20):
    grads, rest = gradient(weights, rest)
    updates, state = tx.update(grads, state, weights)
    weights = optax.apply_updates(weights, updates)
for variable, value in zip(tv + ntv, weights + rest, strict=True):
    variable.assign(value)
