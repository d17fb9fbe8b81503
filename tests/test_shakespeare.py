"""The decoder predicts each byte from those before it, and trains to the end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_gc import describe
from train import data, shakespeare
from train.engine.axes import fan_in_axes
from train.tasks.decoder import HEADS, WIDTH, Decoder
from train.tasks.shakespeare import LENGTH, Shakespeare, matrices, passages

# Each byte but the first follows from the one before.
TEXT = np.tile(np.arange(97, 123, dtype=np.uint8), 60)
TEXTS = data.Text("tiny_shakespeare/1.0.0", TEXT, TEXT[:400], TEXT[400:700])


def shapes(norm="layer"):
    text = jnp.zeros((1, LENGTH), jnp.int32)
    return jax.eval_shape(Decoder(norm).init, jax.random.key(0), text)["params"]


def test_the_decoder_has_the_size_for_a_few_cores():
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes()))
    assert 300_000 <= count <= 1_000_000


def test_attention_is_in_flaxs_layout_and_no_kernel_has_a_bias():
    layer = shapes()["layer_0"]
    head = WIDTH // HEADS
    for name in ("query", "key", "value"):
        assert {k: v.shape for k, v in layer["attention"][name].items()} == {
            "kernel": (WIDTH, HEADS, head)
        }
    assert layer["attention"]["out"]["kernel"].shape == (HEADS, head, WIDTH)
    assert layer["mlp_in"].keys() == layer["mlp_out"].keys() == {"kernel"}


@pytest.mark.parametrize(
    ("norm", "leaves"), [("layer", {"scale", "bias"}), ("rms", {"scale"})]
)
def test_the_norm_is_the_one_asked_for(norm, leaves):
    params = shapes(norm)
    assert params["norm"].keys() == params["layer_2"]["mlp_norm"].keys() == leaves


def test_its_axes_are_read_without_a_doubt():
    task = Shakespeare(TEXTS)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    rows = describe(variables["params"], fan_in_axes(task, variables)).rows
    found = {row.path: row.axes for row in rows if row.axes is not None}
    assert found["layer_1/attention/query/kernel"] == (0,)
    assert found["layer_1/attention/out/kernel"] == (0, 1)
    assert found["head/kernel"] == (0,)
    assert len(found) == 3 * 6 + 1
    assert not [row.path for row in rows if row.doubt]


def test_a_byte_is_predicted_from_those_before_it():
    model, text = Decoder(), jnp.array(TEXT[None, :LENGTH], jnp.int32)
    variables = model.init(jax.random.key(0), text)
    before = model.apply(variables, text)
    after = model.apply(variables, text.at[0, 40].set(7))
    np.testing.assert_array_equal(before[0, :40], after[0, :40])
    assert not np.allclose(before[0, 40:], after[0, 40:])


def test_passages_follow_each_other_and_predict_each_byte_once():
    text = np.arange(3 * LENGTH + 10, dtype=np.int32)
    (windows,) = passages(text)
    assert windows.shape == (3, LENGTH + 1)
    np.testing.assert_array_equal(windows[:, 1:].ravel(), text[1 : 3 * LENGTH + 1])
    assert np.shares_memory(windows, text)


def test_a_passages_scores_are_the_means_over_its_bytes():
    task = Shakespeare(TEXTS)
    variables = task.init(jax.random.key(0))
    examples = (task.splits["train"][0][:3],)
    scores = task.test_scores(variables, examples)
    text = examples[0].astype(np.int32)
    logits = np.asarray(task.model.apply(variables, text[:, :-1]), np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chance = np.take_along_axis(chances, text[:, 1:, None], -1)
    np.testing.assert_allclose(scores.loss, -np.log(chance).mean((1, 2)), rtol=1e-5)
    right = (logits.argmax(-1) == text[:, 1:]).mean(1)
    np.testing.assert_allclose(scores.score, right, atol=1e-6)


def test_kernels_and_tables_decay_and_nothing_else():
    decays = matrices(shapes())
    assert decays["head"]["kernel"]
    assert decays["embed"]["embedding"]
    assert not decays["norm"]["scale"]
    assert not decays["norm"]["bias"]


def test_a_run_learns_the_alphabet_and_leaves_its_record(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_text", lambda name, data_dir: TEXTS)
    command = [
        "--gc", "--norm=rms", "--epochs=3", "--batch-size=4", "--learning-rate=0.01",
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules promote
        assert shakespeare.main(command) == 0
    config, summary = (
        json.loads((tmp_path / "run" / name).read_text())
        for name in ("config.json", "summary.json")
    )
    assert config["dataset"] == {
        "name": "tiny_shakespeare/1.0.0", "reason": "as asked",
        "train_bytes": 1560, "validation_bytes": 400, "test_bytes": 300,
    }  # fmt: skip
    assert summary["validation_loss"] < np.log(26)
    assert summary["test_accuracy"] > 1 / 26
    assert summary["train_loss"] < np.log(256)
    with np.load(tmp_path / "run" / "removed.npz") as file:
        assert file["shares"].shape == (18, 19)
