"""One contender of `benchmarks.epoch`: the Keras example, without its GC.

KERAS_BACKEND=tensorflow python keras_epoch.py IMAGES.npz EPOCHS BATCH_SIZE
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers


class EpochSeconds(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        print(json.dumps({"epoch_seconds": time.perf_counter() - self.start}))


def batches(images, labels, batch_size):
    # One by one: a Sequential works in `tf.data` only on the TensorFlow backend.
    augmentations = (
        layers.RandomFlip("horizontal_and_vertical"),
        layers.RandomRotation(0.3),
        layers.RandomZoom(0.2),
    )

    def augment(batch, labels):
        batch = tf.cast(batch, tf.float32) / 255
        for layer in augmentations:
            batch = layer(batch, training=True)
        return batch, labels

    split = tf.data.Dataset.from_tensor_slices((images, labels))
    split = split.shuffle(len(labels)).batch(batch_size)
    split = split.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return split.prefetch(tf.data.AUTOTUNE)


def network(image_shape):
    model = keras.Sequential([keras.Input(image_shape)])
    for layer, features in enumerate((16, 32, 64, 64, 64)):
        model.add(layers.Conv2D(features, 3, activation="relu"))
        if layer in (1, 2):
            model.add(layers.Dropout(0.5))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.Dense(1, activation="sigmoid"))
    return model


def main(path, epochs, batch_size):
    with np.load(path) as split:
        images, labels = split["images"], split["labels"]
    model = network(images.shape[1:])
    optimizer = keras.optimizers.RMSprop(1e-4)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    model.fit(
        batches(images, labels, batch_size),
        epochs=epochs,
        verbose=0,
        callbacks=[EpochSeconds()],
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
