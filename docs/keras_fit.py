# KERAS_BACKEND=jax python docs/keras_fit.py
from keras import Sequential, layers, optimizers, random, saving

from optax_gc import centralize, describe, traced_fan_in


@saving.register_keras_serializable()
class CentralizedSGD(optimizers.SGD):
    def __init__(self, *args, axes, **kwargs):
        super().__init__(*args, **kwargs)
        self.axes = axes  # for each trainable variable; None leaves it alone

    def apply(self, grads, trainable_variables=None):
        pairs = zip(grads, self.axes, strict=True)
        grads = [g if axes is None else centralize(g, axes) for g, axes in pairs]
        super().apply(grads, trainable_variables)

    def get_config(self):
        return super().get_config() | {"axes": self.axes}


stack = [layers.Conv2D(8, 3), layers.DepthwiseConv2D(3), layers.Conv2DTranspose(6, 2)]
stack += [layers.Flatten(), layers.EinsumDense("bi,ihd->bhd", (4, 5)), layers.Dense(3)]
model = Sequential([layers.Input((8, 8, 3)), *stack])
x, y = random.uniform((64, 8, 8, 3)), random.uniform((64, 4, 3))
tv, ntv = [v.value for v in model.trainable_variables], model.non_trainable_variables
policy = traced_fan_in(lambda tv, x: model.stateless_call(tv, ntv, x)[0], tv, x)
axes = [row.axes for row in describe(tv, policy).rows]
model.compile(CentralizedSGD(0.01, axes=axes), "mse")
model.fit(x, y, epochs=20, verbose=2)
