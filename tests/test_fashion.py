"""The residual network trains on Fashion-MNIST as the plan says, to the end."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import lines, outcome, stopped_after
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from optax_gc import describe
from train import data, fashion
from train.engine import checkpoint
from train.engine.axes import fan_in_axes
from train.engine.batches import all_devices
from train.tasks import fashion as task_module
from train.tasks import resnet
from train.tasks.fashion import Fashion, crop_and_flip
from train.tasks.resnet import BatchNorm, ResNet

RNG = np.random.default_rng(0)
SIDE, CLASSES, HELD_OUT = 8, 4, 12


def split(count):
    """Images that their brightness tells apart."""
    labels = np.arange(count, dtype=np.int32) % CLASSES
    noise = RNG.integers(0, 60, (count, SIDE, SIDE, 1))
    return data.Split((noise + 60 * labels[:, None, None, None]).astype(np.uint8),
                      labels)  # fmt: skip


DATASET = data.Dataset(
    "fashion_mnist/3.0.1", "as asked", tuple("abcd"), split(60), split(20)
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The small images stand for the published ones."""
    use_small_images(monkeypatch)


def use_small_images(patch):
    patch.setattr(task_module, "VALIDATION", HELD_OUT)
    patch.setattr(data, "load", lambda name, data_dir, meanwhile: DATASET)


def leaves(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in paths}


def test_the_network_has_the_size_for_a_few_cores_and_no_kernel_has_a_bias():
    images = jnp.zeros((1, 28, 28, 1))
    variables = jax.eval_shape(ResNet(10).init, jax.random.key(0), images)
    params = leaves(variables["params"])
    assert 100_000 <= sum(leaf.size for leaf in params.values()) <= 300_000
    kernels = {path.removesuffix("/kernel") for path in params if "kernel" in path}
    biases = {path.removesuffix("/bias") for path in params if "bias" in path}
    assert len(kernels) == 11
    assert not kernels & biases
    assert {path.rpartition("/")[2] for path in leaves(variables["batch_stats"])} == {
        "mean", "var",
    }  # fmt: skip


def test_its_axes_are_read_without_a_doubt():
    task = Fashion(DATASET)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    rows = describe(variables["params"], fan_in_axes(task, variables)).rows
    found = {row.path: row.axes for row in rows if row.axes is not None}
    assert {path for path in found if not path.endswith("/kernel")} == set()
    assert found["Dense_0/kernel"] == (0,)
    assert found["Block_1/Conv_0/kernel"] == (0, 1, 2)
    assert len(found) == 11
    assert not [row.path for row in rows if row.doubt]


def normalized(x, weights):
    """The layer in training, each device with its share of the batch."""

    def share(variables, x, weights):
        return BatchNorm().apply(variables, x, weights, mutable=["batch_stats"])

    variables = BatchNorm().init(jax.random.key(0), x, None)
    mesh, batch = all_devices(), P("batch")
    layer = jax.shard_map(
        share, mesh=mesh, in_specs=(P(), batch, batch), out_specs=(batch, P()),
        check_vma=False,
    )  # fmt: skip
    x, weights = jax.device_put((x, weights), NamedSharding(mesh, batch))
    return layer(variables, x, weights)


def test_statistics_are_those_of_the_examples_with_a_weight():
    x = jnp.array(RNG.normal(3, 2, (8, 5, 4, 3)), jnp.float32)
    weights = jnp.array([1.0, 1, 1, 0, 1, 0, 1, 1])
    y, after = normalized(x, weights)
    kept = np.asarray(x, np.float64)[np.asarray(weights) > 0]
    mean, var = kept.mean((0, 1, 2)), kept.var((0, 1, 2))
    expected = (np.asarray(x) - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    stats = after["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-4)


def test_evaluation_uses_the_running_statistics():
    x = jnp.array(RNG.normal(3, 2, (8, 5, 4, 3)), jnp.float32)
    _, after = normalized(x, jnp.ones(8))
    variables = {"params": {"scale": jnp.full(3, 2.0), "bias": jnp.ones(3)}, **after}
    y = BatchNorm().apply(variables, x, None)
    stats = after["batch_stats"]
    mean, var = (np.asarray(stats[name]) for name in ("mean", "var"))
    expected = 2 * (np.asarray(x) - mean) / np.sqrt(var + 1e-5) + 1
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_validation_is_the_end_of_the_training_images_whatever_the_seed():
    task = Fashion(DATASET)
    train, validation, test = (
        task.splits[name][0] for name in ("train", "validation", "test")
    )
    assert len(validation) == HELD_OUT
    np.testing.assert_array_equal(
        np.concatenate([train, validation]), DATASET.train.images
    )
    np.testing.assert_array_equal(test, DATASET.test.images)
    assert "test" not in Fashion(DATASET, test=False).splits


def test_a_crop_moves_an_image_by_up_to_two_pixels_and_flips_half_of_them():
    image = jnp.zeros((9, 9, 1)).at[4, 4].set(1.0).at[4, 5].set(0.5)
    crops = jax.vmap(crop_and_flip, (0, None))(
        jax.random.split(jax.random.key(0), 2000), image
    )[..., 0]
    places = np.argwhere(crops == 1)
    assert len(places) == 2000
    moves, counts = np.unique(places[:, 1:] - 4, axis=0, return_counts=True)
    assert sorted(map(tuple, moves)) == [
        (i, j) for i in range(-2, 3) for j in range(-2, 3)
    ]
    assert counts.min() > 2000 / 25 / 2
    is_flipped = [crop[row, column - 1] == 0.5 for crop, (_, row, column) in
                  zip(np.asarray(crops), places, strict=True)]  # fmt: skip
    assert abs(np.mean(is_flipped) - 0.5) < 0.05


@pytest.fixture
def shallow(monkeypatch):
    """One block instead of three, as the runs below have."""
    monkeypatch.setattr(resnet, "FEATURES", (8,))


def run(folder, *args):
    command = [
        "--epochs=3", "--batch-size=8", "--learning-rate=0.02",
        f"--workdir={folder}", *args,
    ]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules promote
        return fashion.main(command)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with evaluations, and one of a placebo that leaves the test split shut."""
    folder = tmp_path_factory.mktemp("fashion")
    with pytest.MonkeyPatch.context() as patch:
        use_small_images(patch)
        patch.setattr(resnet, "FEATURES", (8,))
        assert run(folder / "gc", "--gc", "--evaluations=9") == 0
        assert run(folder / "placebo", "--placebo", "--no-test") == 0
    return folder


def test_a_run_watches_the_validation_split_and_opens_the_test_split_at_its_end(runs):
    watched = {"validation_loss", "validation_accuracy"}
    epochs = lines(runs / "gc", "metrics.jsonl")
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    for epoch in epochs:
        assert epoch.keys() == watched | {
            "epoch", "epoch_seconds", "train_loss", "train_accuracy",
        }  # fmt: skip
    summary = json.loads((runs / "gc" / "summary.json").read_text())
    assert {name: summary[name] for name in epochs[-1]} == epochs[-1]
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["test_loss"] > 0
    assert summary["compile_seconds"] > 0
    config = json.loads((runs / "gc" / "config.json").read_text())
    assert config["dataset"] == {
        "name": "fashion_mnist/3.0.1", "reason": "as asked", "train_images": 48,
        "validation_images": 12, "test_images": 20,
    }  # fmt: skip


def test_the_test_split_stays_shut_if_told_to(runs):
    summary = json.loads((runs / "placebo" / "summary.json").read_text())
    assert "test_loss" not in summary
    assert "validation_loss" in summary
    assert (summary["gc"], summary["placement"]) == (False, "gradient")


def test_evaluations_have_the_steps_they_were_made_after(runs):
    evaluations = lines(runs / "gc", "evaluations.jsonl")
    assert [line["step"] for line in evaluations] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    seconds = [line["seconds"] for line in evaluations]
    assert seconds == sorted(seconds)
    epochs = lines(runs / "gc", "metrics.jsonl")
    for epoch in epochs:
        line = evaluations[3 * epoch["epoch"] - 1]
        assert line["validation_loss"] == epoch["validation_loss"]
    assert not (runs / "placebo" / "evaluations.jsonl").exists()


def test_the_share_that_each_step_took_of_each_kernel_is_kept(runs):
    with np.load(runs / "gc" / "removed.npz") as file:
        paths, shares = file["paths"].tolist(), file["shares"]
    assert shares.shape == (18, 5)
    assert ((shares >= 0) & (shares <= 1)).all()
    means = lines(runs / "gc", "diagnostics.jsonl")[1]["removed_energy"]
    np.testing.assert_allclose(
        shares[6:12].mean(0), [means[path] for path in paths], rtol=1e-5
    )


@pytest.mark.usefixtures("shallow")
def test_parameters_and_statistics_are_left(runs):
    params, state = (
        checkpoint.load_params(runs / "gc" / name) for name in ("params", "model_state")
    )
    logits = ResNet(CLASSES).apply(
        {"params": params, **state}, task_module.standardized(DATASET.test.images)
    )
    accuracy = (np.argmax(logits, -1) == DATASET.test.labels).mean()
    summary = json.loads((runs / "gc" / "summary.json").read_text())
    np.testing.assert_allclose(summary["test_accuracy"], accuracy, atol=1e-6)


@pytest.mark.usefixtures("shallow")
def test_a_stopped_run_goes_on_with_its_statistics_and_ends_the_same(runs, tmp_path):
    args = (tmp_path / "gc", "--gc", "--evaluations=9")
    with stopped_after(2, 4):
        assert run(*args) == 128 + signal.SIGTERM
    assert not (tmp_path / "gc" / "summary.json").exists()
    assert run(*args, "--resume") == 0
    assert outcome(tmp_path / "gc") == outcome(runs / "gc")


@pytest.mark.usefixtures("shallow")
def test_with_the_images_on_the_device_the_run_is_the_same(runs, tmp_path):
    assert run(tmp_path / "gc", "--gc", "--evaluations=9", "--feed=device") == 0
    (ours, *_), (theirs, *_) = map(outcome, (tmp_path / "gc", runs / "gc"))
    for one, other in zip(ours, theirs, strict=True):
        one, other = map(jax.tree.leaves, (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
