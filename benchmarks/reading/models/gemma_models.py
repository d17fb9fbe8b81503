"""Google's Gemma, in Flax Linen: language and vision, T5Gemma, and one with LoRA."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from kauldron import checkpoints

# Gemma 3.3 loads weights through this class, which kauldron has not had since 1.4.
checkpoints.AbstractPartialLoader = object

from gemma import gm, peft
from gemma.gm.nn import _layers
from gemma.gm.nn.gemma3n import _layers as layers_3n
from gemma.gm.nn.gemma3n import _modules as modules_3n
from gemma.multimodal import vision, vision_utils
from gemma.research import t5gemma

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import (
    ELEMENTWISE,
    LOOKED_UP,
    Axes,
    Model,
    einsum_axes,
)


def einsum(layer: Any, _: str, args: tuple[Any, ...]) -> Mapping[str, Axes]:
    return {layer.weight_name: einsum_axes(args[0])}


def embedder(_: Any, method: str, args: tuple[Any, ...]) -> Mapping[str, Axes]:
    if method == "encode_per_layer_input":
        return {"per_layer_input_embedding": LOOKED_UP}
    uses = {"encode": LOOKED_UP, "decode": (-1,)}
    return {"input_embedding": uses[method]} if method in uses else {}


def alternating_updates(_: Any, method: str, args: Any) -> Mapping[str, Axes]:
    if method == "predict":
        return {"prediction_coefs": einsum_axes("...p,pij->...ij")}
    return {"correction_coefs": einsum_axes("...p,pi->...i")}


def lora(layer: peft.LoRAEinsumAdapter, *_: Any) -> Mapping[str, Axes]:
    inputs = len(einsum_axes(layer.einsum_str))
    outputs = len(layer.shape) - inputs
    return {"a": tuple(range(-inputs - 1, -1)), "b": (-outputs - 1,)}


def vision_transformer(*_: Any) -> Mapping[str, Axes]:
    return {"pos_embedding": ELEMENTWISE}


LAYERS = {
    **linen_layers.LAYERS,
    _layers.Einsum: einsum,
    layers_3n.Einsum: einsum,
    gm.nn.Embedder: embedder,
    modules_3n.Embedder: embedder,
    modules_3n.AltUp: alternating_updates,
    peft.LoRAEinsumAdapter: lora,
    vision_utils.ViTModel: vision_transformer,
}
TOKENS = jax.ShapeDtypeStruct((1, 16), jnp.int32)
IMAGES = {"images": jax.ShapeDtypeStruct((1, 1, 896, 896, 3), jnp.uint8)}


def text(name: str) -> Model:
    """Returns a language model without its vision encoder."""
    return linen_layers.model(text_module(name), TOKENS, layers=LAYERS)


def text_module(name: str) -> Any:
    model = getattr(gm.nn, name)
    return model(text_only=True) if hasattr(model, "text_only") else model()


def with_images(name: str) -> Model:
    """Returns a model with a vision encoder that is also trained."""
    model = getattr(gm.nn, name)
    encoder = vision.SigLiPFromPatches(apply_stop_gradient=False)
    config = dataclasses.replace(model.config, vision_encoder=encoder)
    return linen_layers.model(model(config=config), TOKENS, named=IMAGES, layers=LAYERS)


def with_lora(name: str) -> Model:
    """Returns a language model with adapters of rank 4."""
    module = gm.nn.LoRA(rank=4, model=text_module(name))
    return linen_layers.model(module, TOKENS, layers=LAYERS)


def encoder_decoder(name: str) -> Model:
    """Returns a T5Gemma."""
    module = t5gemma.T5GemmaPreset[name].config.make()
    return linen_layers.model(module, TOKENS, TOKENS, layers=LAYERS)


MODELS: Mapping[str, Callable[[], Model]] = {
    "Gemma2_2B": functools.partial(text, "Gemma2_2B"),
    "Gemma2_9B": functools.partial(text, "Gemma2_9B"),
    "Gemma3_270M": functools.partial(text, "Gemma3_270M"),
    "Gemma3_1B": functools.partial(text, "Gemma3_1B"),
    "Gemma3_4B": functools.partial(with_images, "Gemma3_4B"),
    "Gemma3n_E2B": functools.partial(text, "Gemma3n_E2B"),
    "T5Gemma small": functools.partial(encoder_decoder, "GEMMA2_SMALL_SMALL"),
    "Gemma3_1B with LoRA": functools.partial(with_lora, "Gemma3_1B"),
}
