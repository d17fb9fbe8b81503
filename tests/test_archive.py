"""Runs' folders in one file, and back: nothing of a record is lost."""

import json
import pathlib

import pytest

from train.record import archive

CONFIG = {"config": {"seed": 0, "learning_rate": 1e-4}, "commit": "c0ffee"}


def write(folder, name, config=CONFIG, **files):
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file, text in files.items():
        (path / file.replace("_", ".")).write_text(text)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "confirm"
    lines = '{"epoch": 1, "loss": 0.1}\n{"epoch": 2, "loss": 1e-08}\n'
    for seed in (10, 9):
        write(
            folder, f"task/none-seed{seed}", metrics_jsonl=lines,
            evaluations_jsonl='{"step": 3}\n', summary_json='{\n  "loss": NaN\n}\n',
        )  # fmt: skip
    write(folder, "deeper/0.1/gc-seed0", metrics_jsonl="", diverged_txt="at step 3\n")
    write(folder, "task/open-seed0", metrics_jsonl=lines)
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*-seed*/*")
        if not path.parent.name.startswith("open")
    }


def test_folders_unpack_to_the_same_bytes_and_open_runs_are_left_out(folder):
    assert archive.gather(folder) == 3
    before = contents(folder)
    moved = folder.with_name("again")
    archive.archive_of(folder).rename(archive.archive_of(moved))
    assert archive.unpack(moved) == 3
    assert contents(moved) == before
    assert len(before) == 11


def test_lines_are_in_the_order_of_names_and_seeds(folder):
    archive.gather(folder)
    names = list(archive.read_archive(folder))
    assert names == ["deeper/0.1/gc-seed0", "task/none-seed9", "task/none-seed10"]
    assert list(archive.read_archive(folder, "deeper")) == names[:1]


def test_gathering_again_adds_what_is_new_and_keeps_what_is_gone(folder):
    archive.gather(folder)
    before = archive.archive_of(folder).read_text()
    for path in (folder / "task").glob("none-seed9/*"):
        path.unlink()
    write(folder, "task/none-seed11", summary_json="{}")
    assert archive.gather(folder) == 1
    after = archive.archive_of(folder).read_text()
    assert after.splitlines()[:-1] == before.splitlines()
    assert archive.unpack(folder) == 1
    assert archive.unpack(folder) == 0


def test_another_record_of_a_run_is_refused_and_the_first_is_kept(folder, monkeypatch):
    archive.gather(folder)
    before = archive.archive_of(folder).read_text()
    (folder / "task/none-seed9/summary.json").write_text('{"loss": 2}')
    monkeypatch.setattr("sys.argv", ["archive", "gather", str(folder)])
    assert archive.main() == 1
    assert archive.archive_of(folder).read_text() == before


@pytest.mark.parametrize("commit", ["c0ffee-dirty", None])
def test_a_record_of_an_unknown_source_is_refused(folder, commit, monkeypatch, capsys):
    write(folder, "task/x-seed0", {**CONFIG, "commit": commit}, summary_json="{}")
    monkeypatch.setattr("sys.argv", ["archive", "gather", str(folder)])
    assert archive.main() == 1
    assert f"must come from a committed source, got {commit}" in capsys.readouterr().err
    assert not archive.archive_of(folder).exists()


def test_the_results_can_be_browsed():
    root = pathlib.Path(__file__).parents[1] / "results"
    files = [
        path
        for path in root.rglob("*")
        if path.is_file() and not any("-seed" in part for part in path.parts)
    ]
    assert len(files) <= 40
