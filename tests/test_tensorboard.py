"""`--tensorboard`: event files say what the record says, also after a resume."""

import json
import shutil
import struct
import sys

import numpy as np
import pytest
import rich.console
from conftest import lines
from tensorboardX.proto.event_pb2 import Event, SessionLog

from train import fashion, horses
from train.record.reporter import Reporter
from train.record.tensorboard import TensorBoardReporter

STEPS = 6  # in an epoch


@pytest.fixture(scope="module")
def run(run_small, small_data_dir):
    def run(workdir, *args):
        done = run_small(
            "--gc", f"--data-dir={small_data_dir}", "--batch-size=2", "--epochs=2",
            "--evaluations=3", f"--workdir={workdir}", "--tensorboard", *args,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def records(path):
    """Yields the records of a TFRecord file: length, checksum, bytes, checksum."""
    data = path.read_bytes()
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + size]
        data = data[16 + size :]


def shown(workdir):
    """What TensorBoard shows of a run: value by step by tag.

    It reads the files in the order of their names. Where a session starts at a step, it
    drops what it has read from that step on.
    """
    found = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        for event in map(Event.FromString, records(path)):
            if event.session_log.status == SessionLog.START:
                for tag, values in found.items():
                    kept = {step: x for step, x in values.items() if step < event.step}
                    found[tag] = kept
            for value in event.summary.value:
                values = found.setdefault(value.tag, {})
                assert event.step not in values
                values[event.step] = value.simple_value
    return found


def recorded(workdir):
    """The same, by the run's record."""
    expected = {}

    def note(step, line):
        for name in ("loss", "accuracy"):
            for split in ("train", "test"):
                value = line[f"{split}_{name}"]
                expected.setdefault(f"{name}/{split}", {})[step] = value

    for line in lines(workdir, "evaluations.jsonl"):
        note(line["step"], line)
    for line in lines(workdir, "metrics.jsonl"):
        step = STEPS * line["epoch"]
        note(step, line)
        expected.setdefault("epoch_seconds", {})[step] = line["epoch_seconds"]
    for line in lines(workdir, "diagnostics.jsonl"):
        step = STEPS * line.pop("epoch")
        for name, leaves in line.items():
            for path, value in leaves.items():
                expected.setdefault(f"{name}/{path}", {})[step] = value
    return expected


def assert_as_recorded(workdir):
    ours, theirs = shown(workdir), recorded(workdir)
    assert ours.keys() == theirs.keys()
    for tag, values in ours.items():
        assert values.keys() == theirs[tag].keys(), tag
        float32 = {step: np.float32(x) for step, x in theirs[tag].items()}
        assert values == float32, tag


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert "tensorboard" in run(workdir)
    return workdir


def test_the_events_are_those_of_the_record(whole):
    assert_as_recorded(whole)
    assert [*shown(whole)["loss/test"]] == [4, 6, 8, 12]
    assert {"removed_energy/Conv_0/kernel", "mean_drift/Dense_0/kernel"} < {
        *shown(whole)
    }


def test_a_resumed_run_goes_on_behind_its_checkpoint(run, whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "12")
    run(workdir, "--resume")
    first, second = sorted((workdir / "tensorboard").iterdir())
    assert first.name in {path.name for path in (whole / "tensorboard").iterdir()}
    starts = [Event.FromString(record).step for record in records(second)][1]
    assert starts == STEPS + 1
    assert_as_recorded(workdir)


def test_a_run_from_before_the_option_goes_on(run, whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    record = json.loads((workdir / "config.json").read_text())
    del record["config"]["tensorboard"]
    (workdir / "config.json").write_text(json.dumps(record))
    assert "Continuing after epoch 2" in run(workdir, "--resume")
    assert len([*(workdir / "tensorboard").iterdir()]) == 1  # nothing was trained


def test_a_test_split_that_is_opened_at_the_end_is_shown_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Reporter, "finish", lambda self, test, draw: None)
    reporter = TensorBoardReporter(tmp_path, rich.console.Console(quiet=True))
    reporter.config = fashion.Config(epochs=2)
    reporter.resumed(STEPS, 1, 0)
    reporter.finish({"test_loss": 0.5, "test_accuracy": 0.75})
    assert shown(tmp_path) == {"loss/test": {12: 0.5}, "accuracy/test": {12: 0.75}}


def test_without_the_package_it_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert horses.main(["--tensorboard"]) == 2
    assert capsys.readouterr().err == (
        "error: --tensorboard needs tensorboardX, which is not installed. From the "
        "clone: pip install -e '.[tensorboard]'\n"
    )
    assert not [*tmp_path.iterdir()]
