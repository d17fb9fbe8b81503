"""The accelerator's benchmark runs on a CPU and records what it says, times aside."""

import io
import json
import os
import time

import jax
import pytest
import small_horses
from rich.console import Console

from benchmarks import accelerator
from benchmarks.cost import trees, updates
from benchmarks.devices import parts, peaks, step_parts, tables
from benchmarks.epochs import flop
from train.engine import feed
from train.tasks import horses


def here(function, *arguments, seconds):
    """Runs a part in this process."""
    assert seconds > 0
    return parts.attempt(function, *arguments)


def too_large(config, *args, choose=feed.choose):
    """Chooses a feed, but in bfloat16 there is no room on the device."""
    if config.feed == "device" and config.precision == "bfloat16":
        raise MemoryError("RESOURCE_EXHAUSTED: 1 GB\nand more")
    return choose(config, *args)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("accelerator") / "accelerator.json"


@pytest.fixture(scope="module")
def record(out):
    """The record of a quick run of one task, with a small network."""
    options = accelerator.Options(tasks=("horses",), quick=True, out=out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "in_own_process", here)
        patch.setattr(parts, "EPOCHS", 2)
        patch.setattr(step_parts, "LIMIT", 0.0)
        patch.setattr(feed, "choose", too_large)
        patch.setattr(horses, "CNN", small_horses.small())
        patch.setitem(updates.MODELS, "CNN", lambda: trees.many_leaves(4))
        with jax.numpy_dtype_promotion("standard"):  # schedules and Adam promote
            return accelerator.measure(options, Console(file=io.StringIO()))


def test_the_file_has_the_whole_record(record, out):
    assert json.loads(out.read_text()) == json.loads(json.dumps(record))
    assert record["seconds"] > 0


def test_device_versions_and_peaks_are_told(record):
    device = record["device"]
    assert device["devices"] == ["cpu"] * jax.device_count()
    assert {"jax", "jaxlib", "flax", "optax", "optax-gc"} <= device["versions"].keys()
    for peak in device["peaks"].values():
        assert peak["source"] == "matrix product of side 128"
        assert peak["flop_per_second"] == peak["product_per_second"] > 0


@pytest.mark.parametrize("precision", accelerator.PRECISIONS)
def test_each_feed_is_timed(record, precision):
    task = record["tasks"]["horses"][precision]
    assert (task["unit"], task["batch_size"]) == ("images", 8)
    assert task["flop"] > 0
    for where, timed in task["feeds"].items():
        timed = dict(timed)
        if (where, precision) == ("device", "bfloat16"):
            assert timed == {"failed": "MemoryError: RESOURCE_EXHAUSTED: 1 GB"}
            continue
        assert timed.pop("peak_bytes") is None  # a CPU has no memory of its own
        assert timed["epochs_timed"] == 2
        assert len(timed["mean_losses"]) == task["steps"]
        numbers = [value for key, value in timed.items() if key != "mean_losses"]
        assert min(numbers) > 0
        assert len(numbers) == 6


def test_both_feeds_train_alike(record):
    feeds = record["tasks"]["horses"]["float32"]["feeds"]
    losses = [timed["mean_losses"] for timed in feeds.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_step_is_its_parts_and_what_is_left_over(record):
    for task in record["tasks"]["horses"].values():
        spent = dict(task["step_seconds"])
        assert set(spent) == set(tables.PARTS)
        whole, left = spent.pop("whole step"), spent.pop("left over")
        assert min(whole, *spent.values()) > 0
        assert sum(spent.values()) + left == pytest.approx(whole)


def test_losses_of_both_precisions_agree(record):
    pair = record["losses"]["horses"]
    assert pair["steps"] == record["tasks"]["horses"]["float32"]["steps"]
    assert pair["agree"]
    assert 0 < pair["relative_difference"] <= pair["tolerance"]


def test_losses_that_are_too_far_apart_do_not_agree():
    pair = accelerator.compare([9.0, 1.0, 0.5], [9.0, 1.03])
    assert (pair["steps"], pair["agree"]) == (2, False)
    assert pair["relative_difference"] == pytest.approx(0.03)


def test_updates_are_compared_with_and_without_centralizing(record):
    for spent in record["updates"]["CNN"].values():
        assert spent["alone_seconds"] > 0
        for arm in tables.ARMS:
            low, median, high = spent[arm]
            assert 0 < low <= median <= high


def test_tables_show_every_part_and_what_failed(record):
    console = Console(file=io.StringIO(), width=120)
    console.print(*tables.tables(record), sep="\n")
    shown = console.file.getvalue()
    for title in ("An epoch", "Mean loss", "A step", "The update's time"):
        assert title in shown
    line = "horses, bfloat16, feeds, device: MemoryError: RESOURCE_EXHAUSTED: 1 GB"
    assert f"tasks, {line}" in shown
    assert shown.count("images") == 3


def test_parts_are_skipped_when_the_time_is_over(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerator, "BUDGET", 0)
    options = accelerator.Options(quick=True, out=tmp_path / "out.json")
    console = Console(file=io.StringIO(), width=120)
    found = accelerator.measure(options, console)
    console.print(*tables.tables(found), sep="\n")
    assert found["device"] == found["updates"]["CNN"]
    assert console.file.getvalue().count("skipped: 0 minutes are over") == 2 * 8


def test_a_process_that_ends_or_lasts_too_long_is_a_failure():
    ended = accelerator.in_own_process(os._exit, 3, seconds=100)
    assert ended == {"failed": "the process ended with status 3"}
    lasting = accelerator.in_own_process(time.sleep, 100, seconds=0.1)
    assert lasting == {"failed": "not done after 0 s"}


def test_arithmetic_is_that_of_the_networks_products_and_little_more():
    run, start = parts.prepared("horses", "float32", quick=True)
    products = sum(flop.layer_flop(94).values())
    counted = parts.flop_an_example(run, start)
    assert products < counted < 1.05 * products


@pytest.mark.parametrize(
    ("kind", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4e12),
        ("NVIDIA H100 PCIe", "bfloat16", None),  # a slower one
        ("Tesla T4", "bfloat16", None),
        ("TPU v5 lite", "float32", 197e12),
        ("TPU v5", "float32", 459e12),
    ],
)
def test_published_peaks_are_those_of_the_very_device(kind, precision, peak):
    assert peaks.published(kind, precision) == peak
