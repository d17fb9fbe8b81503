"""The Flax Linen models of Hugging Face's transformers, in their default sizes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from unittest import mock

import jax
import jax.numpy as jnp
import transformers
from transformers.models.gpt2.modeling_flax_gpt2 import FlaxConv1D
from transformers.models.wav2vec2 import modeling_flax_wav2vec2 as wav2vec2

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import (
    ELEMENTWISE,
    LOOKED_UP,
    Axes,
    Model,
    Path,
    make,
)

Shape: TypeAlias = tuple[int, ...]


def outputs_first(*_: Any) -> Mapping[str, Axes]:
    return {"kernel": (-1,)}  # (out, in), transposed before the product


def weight_norm(*_: Any) -> Mapping[str, Axes]:
    return {"weight_v": (-2, -1), "weight_g": ELEMENTWISE}  # (out, in, window)


def codebook(*_: Any) -> Mapping[str, Axes]:
    return {"codevectors": LOOKED_UP}  # by the one-hot matrix of an argmax


LAYERS = {
    **linen_layers.LAYERS,
    FlaxConv1D: outputs_first,
    wav2vec2.FlaxConvWithWeightNorm: weight_norm,
    wav2vec2.FlaxWav2Vec2GumbelVectorQuantizer: codebook,
}

# Parameters outside any layer: all are added to activations.
ADDED = (
    "final_logits_bias",
    "*/cls_token",
    "*/position_embeddings",
    "*/relative_position_bias_table",
)
TOKENS = {"input_ids": (1, 16)}
SEQ2SEQ = {"input_ids": (1, 16), "decoder_input_ids": (1, 8)}
IMAGES = {"pixel_values": (1, 3, 224, 224)}
AUDIO = {"input_values": (1, 16000)}
SPEECH = {"input_features": (1, 80, 3000), "decoder_input_ids": (1, 8)}

# The embedding that is also the kernel of the last layer, if there is one.
SHARED = "model/shared/embedding"
WORDS = "embeddings/word_embeddings/embedding"
TOKEN_TABLE = "embed_tokens/embedding"

FULL = "original_full"
SHORT = {"max_position_embeddings": 512}  # causal masks and sinusoids are computed
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
# An argmax chooses the code, and passes no gradient back.
QUANTIZED = STABLE | {"unused": ("quantizer/weight_proj/kernel",)}


def clip(x: Any, a_min: Any = None, a_max: Any = None) -> Any:
    """Returns ``jnp.clip`` with its arguments' old names, which T5 uses."""
    return CLIP(x, a_min, a_max)


CLIP = jnp.clip


@mock.patch.object(jnp, "clip", clip)
def build(
    name: str,
    inputs: Mapping[str, Shape],
    tied: Path = "",
    unused: tuple[Path, ...] = (),
    **config: Any,
) -> Model:
    """Returns ``Flax{name}``, whose last layer's kernel is the transpose of `tied`."""
    model_class = getattr(transformers, f"Flax{name}")
    model = model_class(model_class.config_class(**config), _do_init=False)
    variables = model.params_shape_tree
    if "batch_stats" in variables:
        params, state = variables["params"], {"batch_stats": variables["batch_stats"]}
    else:
        params, state = variables, None

    @mock.patch.object(jnp, "clip", clip)
    def apply(params: Any, state: Any, inputs: Any) -> Any:
        variables = params if state is None else {"params": params, **state}
        return model(**inputs, params=variables)

    shapes = {
        key: jax.ShapeDtypeStruct(shape, jnp.int32 if "ids" in key else jnp.float32)
        for key, shape in inputs.items()
    }
    run = functools.partial(jax.eval_shape, apply, params, state, shapes)
    also = dict.fromkeys(ADDED, ELEMENTWISE) | ({tied: (-1,)} if tied else {})
    uses = linen_layers.record(run, LAYERS)
    return make(params, apply, (state, shapes), uses, also, unused)


ENTRIES: tuple[tuple[str, Mapping[str, Shape], Path, Mapping[str, Any]], ...] = (
    ("AlbertForPreTraining", TOKENS, "albert/" + WORDS, {}),
    ("BartForConditionalGeneration", SEQ2SEQ, SHARED, {}),
    ("BeitForImageClassification", IMAGES, "", {}),
    ("BertForPreTraining", TOKENS, "bert/" + WORDS, {}),
    ("BigBirdForMaskedLM", TOKENS, "bert/" + WORDS, {"attention_type": FULL}),
    ("BlenderbotForConditionalGeneration", SEQ2SEQ, SHARED, {}),
    ("BlenderbotSmallForConditionalGeneration", SEQ2SEQ, SHARED, {}),
    ("BloomForCausalLM", TOKENS, "transformer/word_embeddings/embedding", {}),
    ("CLIPModel", TOKENS | IMAGES, "", {}),
    ("Dinov2ForImageClassification", IMAGES, "", {"unused": ("*/mask_token",)}),
    ("DistilBertForMaskedLM", TOKENS, "distilbert/" + WORDS, {}),
    ("ElectraForMaskedLM", TOKENS, "electra/" + WORDS, {}),
    ("ElectraForPreTraining", TOKENS, "", {}),
    ("GemmaForCausalLM", TOKENS, "model/embed_tokens/embedding", SHORT),
    ("GPT2LMHeadModel", TOKENS, "transformer/wte/embedding", {}),
    ("GPTJForCausalLM", TOKENS, "", {}),
    ("GPTNeoForCausalLM", TOKENS, "transformer/wte/embedding", {}),
    ("LlamaForCausalLM", TOKENS, "", SHORT),
    ("LongT5ForConditionalGeneration", SEQ2SEQ, "shared/embedding", {}),
    ("MarianMTModel", SEQ2SEQ, SHARED, SHORT),
    ("MBartForConditionalGeneration", SEQ2SEQ, SHARED, {}),
    ("MistralForCausalLM", TOKENS, "", SHORT),
    ("MT5ForConditionalGeneration", SEQ2SEQ, "", {}),
    ("OPTForCausalLM", TOKENS, "model/decoder/embed_tokens/embedding", {}),
    ("PegasusForConditionalGeneration", SEQ2SEQ, SHARED, SHORT),
    ("RegNetForImageClassification", IMAGES, "", {}),
    ("ResNetForImageClassification", IMAGES, "", {}),
    ("RobertaForMaskedLM", TOKENS, "roberta/" + WORDS, {}),
    ("RobertaPreLayerNormForMaskedLM", TOKENS, "roberta_prelayernorm/" + WORDS, {}),
    ("RoFormerForMaskedLM", TOKENS, "roformer/" + WORDS, {}),
    ("T5ForConditionalGeneration", SEQ2SEQ, "shared/embedding", {}),
    ("ViTForImageClassification", IMAGES, "", {}),
    ("Wav2Vec2ForCTC", AUDIO, "", STABLE),
    ("Wav2Vec2ForPreTraining", AUDIO, "", QUANTIZED),
    ("WhisperForConditionalGeneration", SPEECH, "model/decoder/" + TOKEN_TABLE, {}),
    ("XGLMForCausalLM", TOKENS, "model/" + TOKEN_TABLE, SHORT),
    ("XLMRobertaForMaskedLM", TOKENS, "roberta/" + WORDS, {}),
)
MODELS: Mapping[str, Callable[[], Model]] = {
    f"Flax{name}": functools.partial(build, name, inputs, tied, **options)
    for name, inputs, tied, options in ENTRIES
}
