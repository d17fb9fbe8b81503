"""The arithmetic of the experiment's network."""

from train.tasks.cnn import CONV_FEATURES, DENSE_FEATURES


def layer_flop(side):
    """Returns each layer's multiplications and additions per image.

    They are for its value, its kernel's gradient and, except in the first layer, its
    input's gradient.
    """
    flop, channels = {}, 3
    for i, features in enumerate(CONV_FEATURES):
        times = 2 if i == 0 else 3
        flop[f"Conv_{i}"] = times * 2 * (side - 2) ** 2 * 9 * channels * features
        side, channels = (side - 2) // 2, features
    flop["Dense_0"] = 3 * 2 * side**2 * channels * DENSE_FEATURES
    flop["Dense_1"] = 3 * 2 * DENSE_FEATURES
    return flop
