"""KerasHub's backbones on JAX, with two layers each."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from keras import layers
from keras_hub import models
from keras_hub.layers import PositionEmbedding
from keras_hub.src.models.deberta_v3.relative_embedding import RelativeEmbedding
from keras_hub.src.models.mixtral.mixtral_decoder import MixtralMoeExperts
from keras_hub.src.models.t5.t5_multi_head_attention import T5MultiHeadAttention
from keras_hub.src.models.xlnet.xlnet_encoder import XLNetEncoder

from benchmarks.reading.models import keras_models
from benchmarks.reading.models.keras_models import without_weights
from benchmarks.reading.models.model import ELEMENTWISE, LOOKED_UP, Model, Path, always

LAYERS = {
    **keras_models.LAYERS,
    PositionEmbedding: always(position_embeddings=ELEMENTWISE),
    layers.ReversibleEmbedding: always(embeddings=LOOKED_UP, reverse_embeddings=(-2,)),
    T5MultiHeadAttention: always(relative_attention_bias=LOOKED_UP),
    MixtralMoeExperts: always(
        _expert_feedforward_gate_dense=(-2,),
        _expert_feedforward_intermediate_dense=(-2,),
        _expert_feedforward_output_dense=(-2,),
    ),
    XLNetEncoder: always(
        content_attention_bias=ELEMENTWISE,
        positional_attention_bias=ELEMENTWISE,
        segment_attention_bias=ELEMENTWISE,
        segment_encoding=(-1,),  # "ibnd,snd->ibns" with the queries
    ),
    RelativeEmbedding: always(rel_embeddings=ELEMENTWISE),
}
TEXT = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 64,
    "intermediate_dim": 96,
}
GROUPED = {key: value for key, value in TEXT.items() if key != "num_heads"} | {
    "num_query_heads": 4,
    "num_key_value_heads": 2,
}


def backbone(
    name: str,
    unused: tuple[Path, ...] = (),
    **options: Any,
) -> Model:
    model = without_weights(lambda: getattr(models, f"{name}Backbone")(**options))
    return keras_models.build(model, None, LAYERS, length=16, unused=unused)


def causal(name: str, tied: bool, **options: Any) -> Model:
    """Returns a language model, whose first variable may be its last layer's kernel."""
    trunk = getattr(models, f"{name}Backbone")(**options)
    model = getattr(models, f"{name}CausalLM")(backbone=trunk, preprocessor=None)
    return keras_models.build(model, {"0": (-1,)} if tied else None, LAYERS, length=16)


BACKBONES = {
    "Albert": TEXT | {"embedding_dim": 32},
    "Bart": TEXT,
    "Bert": TEXT,
    "DebertaV3": TEXT | {"dropout": 0.0},
    "DistilBert": TEXT,
    "ESM": TEXT,
    "FNet": {key: value for key, value in TEXT.items() if key != "num_heads"},
    "Roberta": TEXT,
    "T5": TEXT,
    "Whisper": TEXT,
    "XLNet": TEXT | {"unused": ("1",)},  # `mask_emb`, of the mask's layer
}
CAUSAL = {
    "Bloom": TEXT | {"tied": True},
    "Falcon": TEXT | {"num_attention_heads": 4, "tied": True},
    "Gemma": GROUPED | {"head_dim": 16, "tied": True},
    "GPT2": TEXT | {"tied": True},
    "GPTNeoX": TEXT | {"tied": True},
    "Llama": GROUPED | {"tied": False},
    "Mistral": GROUPED | {"tied": False},
    "Mixtral": GROUPED | {"num_experts": 4, "top_k": 2, "tied": False},
    "OPT": TEXT | {"tied": True},
    "Phi3": GROUPED | {"tied": False},
    "Qwen": GROUPED | {"tied": True},
}
MODELS: Mapping[str, Callable[[], Model]] = {
    **{name: functools.partial(backbone, name, **o) for name, o in BACKBONES.items()},
    **{name: functools.partial(causal, name, **o) for name, o in CAUSAL.items()},
}
