"""The parameter trees that the benchmarks update, with Flax's shapes and names."""

import itertools
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Tree: TypeAlias = dict[str, Any]


def cnn() -> Tree:
    """Returns the parameters of the experiment's CNN: 1,704,097 numbers."""
    channels = (3, 16, 32, 64, 64, 64)
    convs = itertools.pairwise(channels)
    tree = {f"Conv_{i}": _layer((3, 3, *io), io[1:]) for i, io in enumerate(convs)}
    tree["Dense_0"] = _layer((3136, 512), (512,))
    tree["Dense_1"] = _layer((512, 1), (1,))
    return tree


def resnet50() -> Tree:
    """Returns the parameters of ResNet-50 with 1000 classes: 25,557,032 numbers."""
    tree = {"conv_init": _conv(7, 3, 64), "bn_init": _norm(64)}
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for _ in range(blocks):
            tree[f"BottleneckBlock_{len(tree) - 2}"] = _bottleneck(inputs, width)
            inputs = 4 * width
    tree["Dense_0"] = _layer((2048, 1000), (1000,))
    return tree


def gpt2() -> Tree:
    """Returns the parameters of GPT-2 small with tied output: 124,439,808 numbers."""
    tree = {f"h_{i}": _transformer_block(768, 12) for i in range(12)}
    tree["wte"] = {"embedding": _array(50257, 768)}
    tree["wpe"] = {"embedding": _array(1024, 768)}
    tree["ln_f"] = _norm(768)
    return tree


def many_leaves(leaves: int) -> Tree:
    """Returns `leaves` small leaves, a kernel and a bias for each layer."""
    return {f"Dense_{i}": _layer((8, 8), (8,)) for i in range(leaves // 2)}


def count(tree: Tree) -> int:
    """Returns how many numbers the leaves of `tree` contain in total."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bottleneck(inputs: int, width: int) -> Tree:
    block = {
        "Conv_0": _conv(1, inputs, width),
        "Conv_1": _conv(3, width, width),
        "Conv_2": _conv(1, width, 4 * width),
        "BatchNorm_0": _norm(width),
        "BatchNorm_1": _norm(width),
        "BatchNorm_2": _norm(4 * width),
    }
    if inputs != 4 * width:  # the first block of a stage
        block["conv_proj"] = _conv(1, inputs, 4 * width)
        block["norm_proj"] = _norm(4 * width)
    return block


def _transformer_block(width: int, heads: int) -> Tree:
    split = (heads, width // heads)
    attention = {
        name: _layer((width, *split), split) for name in ("query", "key", "value")
    }
    attention["out"] = _layer((*split, width), (width,))
    return {
        "ln_1": _norm(width),
        "attn": attention,
        "ln_2": _norm(width),
        "mlp_in": _layer((width, 4 * width), (4 * width,)),
        "mlp_out": _layer((4 * width, width), (width,)),
    }


def _conv(window: int, inputs: int, outputs: int) -> Tree:
    return {"kernel": _array(window, window, inputs, outputs)}


def _layer(kernel: tuple[int, ...], bias: tuple[int, ...]) -> Tree:
    return {"kernel": _array(*kernel), "bias": _array(*bias)}


def _norm(features: int) -> Tree:
    return {"scale": _array(features), "bias": _array(features)}


def _array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
