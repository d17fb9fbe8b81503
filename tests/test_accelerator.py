"""The accelerators' benchmark records what it says; no time is asserted."""

import copy
import functools
import io
import json
import math
import os
import socket

import jax
import optax
import pytest
from rich.console import Console

from benchmarks import (
    accelerator,
    accelerator_parts,
    accelerator_tables,
    overhead,
    peaks,
    processes,
)
from train.tasks import resnet


def in_this_process(function, *arguments, seconds):
    """Measures one precision for both, which halves the time."""
    assert seconds > 0
    known = {"bfloat16": "float32"}
    found = function(*(known.get(argument, argument) for argument in arguments))
    return copy.deepcopy(found)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The record of one small task, and what was printed."""
    out = tmp_path_factory.mktemp("accelerator") / "record.json"
    options = accelerator.Options(tasks=("fashion",), quick=True, out=out)
    console = Console(record=True, width=120, file=io.StringIO())
    once = functools.cache(accelerator_parts.measure_task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "FEATURES", (8,))
        patch.setattr(overhead, "OPTIMIZERS", {"rmsprop": optax.rmsprop(1e-4)})
        patch.setattr(accelerator, "in_own_process", in_this_process)
        patch.setattr(accelerator_parts, "measure_task", once)
        with jax.numpy_dtype_promotion("standard"):  # Optax's schedules promote
            record = accelerator.measure(options, console)
    console.print(*accelerator_tables.tables(record), sep="\n")
    assert json.loads(out.read_text())["tasks"] == record["tasks"]
    return record, console.export_text()


def test_an_epoch_is_timed_by_both_feeds(measured):
    record, _ = measured
    task = record["tasks"]["fashion"]["float32"]
    assert task["steps"] == 4
    assert task["flop"] > 1e5
    assert set(task["feeds"]) == {"host", "device"}
    for timed in task["feeds"].values():
        for name in ("compile_seconds", "first_step_seconds", "epoch_seconds"):
            assert timed[name] > 0
        assert timed["per_second"] == pytest.approx(32 / timed["epoch_seconds"])
        peak = record["device"]["peaks"]["float32"]["flop_per_second"]
        share = task["flop"] * timed["per_second"] / peak
        assert timed["share_of_peak"] == pytest.approx(share)
        assert len(timed["mean_losses"]) == 4


def test_the_parts_of_a_step_and_what_is_left_add_up(measured):
    record, _ = measured
    parts = dict(record["tasks"]["fashion"]["float32"]["step_seconds"])
    whole = parts.pop("whole step")
    assert set(parts) == {*accelerator_tables.PARTS} - {"whole step"}
    assert sum(parts.values()) == pytest.approx(whole)


def test_the_update_is_timed_beside_optax(measured):
    record, _ = measured
    for spent in record["updates"]["CNN"].values():
        assert set(spent) == {"alone_seconds", *accelerator_tables.ARMS}


def test_every_table_is_printed(measured):
    _, text = measured
    for part in ("Peak in float32", "An epoch", "Mean loss", "A step", "The update's"):
        assert part in text
    assert "failed" not in text


def test_losses_that_differ_by_more_than_allowed_are_told():
    same = accelerator.compare([2.0, 1.0], [2.1, 1.01, 0.9])
    assert (same["steps"], same["agree"]) == (2, True)
    assert not accelerator.compare([1.0], [1.03])["agree"]


def fail():
    raise MemoryError("no room\nand more")


def test_what_fails_in_its_process_is_told_and_the_rest_goes_on():
    found = accelerator.in_own_process(fail, seconds=60)
    assert found == {"failed": "MemoryError: no room"}
    ended = accelerator.in_own_process(os._exit, 3, seconds=60)
    assert ended == {"failed": "the process ended with status 3"}
    texts = [*accelerator_tables.failures({"tasks": {"horses": found}})]
    assert texts == ["tasks, horses: MemoryError: no room"]


def test_a_published_peak_is_of_the_device_and_its_precision():
    assert peaks.published("NVIDIA H100 80GB HBM3", "bfloat16") == 989.4e12
    assert peaks.published("Tesla T4", "bfloat16") is None
    assert peaks.published("cpu", "float32") is None
    assert math.isfinite(peaks.measured("float32", 32))


def test_what_processes_send_and_hide_is_by_hand():
    assert processes.ring_bytes(8.0, 4) == 12.0
    alone = {"step": 1.0}
    found = {"step": 1.25, "reduce": 0.5, "sent": 2e6}
    assert processes.hidden(found, alone) == 0.5
    assert processes.hidden({"step": 0.9, "reduce": 0.5}, alone) == 1
    assert processes.hidden({"step": 3.0, "reduce": 0.5}, alone) == 0
    console = Console(record=True, width=100, file=io.StringIO())
    one = {"step": 1.0, "reduce": 0.0, "sent": 0.0}
    console.print(processes.scaling_table({1: one, 2: found}, 2))
    row = console.export_text().splitlines()[-2].replace("│", " ").split()
    assert row == ["2", "1", "1250", "1.25", "500", "50", "%", "2.0"]


def test_the_loopback_s_counter_counts_what_is_sent():
    before = processes.loopback_bytes()
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            sender.sendall(bytes(100_000))
            assert receiver.recv(1)
            assert processes.loopback_bytes() - before >= 30_000
