"""Google's Tunix: language models in Flax NNX."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
from tunix.models.gemma import model as gemma
from tunix.models.gemma3 import model as gemma3
from tunix.models.gemma4 import model as gemma4
from tunix.models.gemma4 import moe
from tunix.models.llama3 import model as llama3
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3

from benchmarks.reading.models import nnx_layers
from benchmarks.reading.models.model import (
    LOOKED_UP,
    Axes,
    Model,
    Path,
    always,
    einsum_axes,
)


def einsum(layer: Any) -> Mapping[str, Axes]:
    return {"w": einsum_axes(layer.einsum_str)}


LAYERS = dict(nnx_layers.LAYERS)
for family in (gemma, gemma3, gemma4, llama3, qwen2, qwen3):
    LAYERS[family.Einsum, "__call__"] = einsum
    LAYERS[family.Embedder, "encode"] = always(input_embedding=LOOKED_UP)
    LAYERS[family.Embedder, "decode"] = always(input_embedding=(-1,))
LAYERS |= {
    (gemma4.Embedder, "encode_per_layer_input"): always(
        per_layer_input_embedding=LOOKED_UP
    ),
    # (experts, inputs, outputs), but Gemma's gate is (experts, 2, outputs, inputs).
    (qwen3.MoELayer, "__call__"): always(
        gate_proj=(-2,), up_proj=(-2,), down_proj=(-2,)
    ),
    (moe.MoERagged, "__call__"): always(
        router_logits=(-2,), gating_einsum=(-1,), linear=(-2,)
    ),
}


def build(model: type, config: Any, unused: tuple[Path, ...] = ()) -> Model:
    """Returns the model of a configuration, called as the library's tests call it."""

    def create() -> nnx.Module:
        return model(config, rngs=nnx.Rngs(0))

    inputs = nnx.eval_shape(create).get_model_input()
    return nnx_layers.model(create, layers=LAYERS, unused=unused, **inputs)


def gemma4_e2b() -> Model:
    """Returns Gemma4 E2B, whose last 20 layers share the keys and values of others."""
    unused = tuple(f"layers/{i}/attn/kv_einsum/w" for i in range(15, 35))
    return build(gemma4.Gemma4, gemma4.ModelConfig.gemma4_e2b(), unused)


def qwen3_small_experts() -> Model:
    """Returns Qwen3-30B-A3B with 2 layers of 8 experts."""
    config = qwen3.ModelConfig.qwen3_30b_a3b()
    config.num_layers, config.num_experts = 2, 8
    return build(qwen3.Qwen3, config)


CONFIGURATIONS = {
    "Gemma 2B": (gemma.Gemma, gemma.ModelConfig.gemma_2b),
    "Gemma 7B": (gemma.Gemma, gemma.ModelConfig.gemma_7b),
    "Gemma2 2B": (gemma.Gemma, gemma.ModelConfig.gemma2_2b),
    "Gemma3 1B": (gemma3.Gemma3, gemma3.ModelConfig.gemma3_1b_it),
    "Gemma3 4B": (gemma3.Gemma3, gemma3.ModelConfig.gemma3_4b_it),
    "Gemma4 26B-A4B": (gemma4.Gemma4, gemma4.ModelConfig.gemma4_26b_a4b),
    "Llama3.2 1B": (llama3.Llama3, llama3.ModelConfig.llama3p2_1b),
    "Llama3.1 8B": (llama3.Llama3, llama3.ModelConfig.llama3p1_8b),
    "Qwen2.5 0.5B": (qwen2.Qwen2, qwen2.ModelConfig.qwen2p5_0p5b),
    "Qwen3 0.6B": (qwen3.Qwen3, qwen3.ModelConfig.qwen3_0p6b),
}
MODELS: Mapping[str, Callable[[], Model]] = {
    name: functools.partial(lambda model, config: build(model, config()), *arguments)
    for name, arguments in CONFIGURATIONS.items()
} | {"Gemma4 E2B": gemma4_e2b, "Qwen3 A3B, 8 experts": qwen3_small_experts}
