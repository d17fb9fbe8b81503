"""A table of faults: each is told in one line with its status, and loses nothing."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import jax
import pytest
from conftest import assert_one_line, make_dataset, pictures

from train import compare, horses, image
from train.record import workdir

# TensorStore tells the event loop of a file that could not be read when it is closed.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
SHAPE = (94, 94, 3)
ROOT = pathlib.Path(__file__).parents[1]


def shown(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns all files below a folder but those that its lock leaves."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.name not in (workdir.LOCK, workdir.OWNER)
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> pathlib.Path:
    """A folder of data sets: pictures, notest without a test split, notrain."""
    path = tmp_path_factory.mktemp("sets")
    splits = {"train": pictures(12, SHAPE), "test": pictures(5, SHAPE)}
    make_dataset(path, splits, SHAPE, 2)
    make_dataset(path, {"train": pictures(24, SHAPE)}, SHAPE, 2, "notest")
    make_dataset(path, {"test": pictures(4, SHAPE)}, SHAPE, 2, "notrain")
    return path


@pytest.fixture(scope="module")
def whole(run_small, sets, tmp_path_factory) -> pathlib.Path:
    """The folder of a run of three epochs that has ended."""
    path = tmp_path_factory.mktemp("whole") / "run"
    done = run_small(*options(sets, path))
    assert (done.returncode, done.stderr) == (0, "")
    return path


def options(sets, path, *args):
    return [
        f"--data-dir={sets}", "--batch-size=4", "--epochs=3", f"--workdir={path}",
        *args,
    ]  # fmt: skip


@dataclasses.dataclass
class Place:
    """Where a fault is caused: a run that has ended, a copy of the data, a folder."""

    run: pathlib.Path
    sets: pathlib.Path
    new: pathlib.Path


@pytest.fixture
def place(whole, sets, tmp_path, monkeypatch) -> Place:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    shutil.copytree(sets, tmp_path / "sets")
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "run", tmp_path / "sets", tmp_path / "new" / "run")


def ended(status: int, capsys) -> subprocess.CompletedProcess[str]:
    """Returns what a command came to that was called in this process."""
    return subprocess.CompletedProcess([], status, *capsys.readouterr())


def written(name: str, content: bytes) -> Callable[[Place], None]:
    return lambda place: (place.run / name).write_bytes(content)


def damaged_checkpoints(place: Place) -> None:
    for step in (place.run / "checkpoints").iterdir():
        largest = max(step.rglob("*"), key=lambda path: path.stat().st_size)
        largest.write_bytes(b"damaged")


DAMAGED = "is damaged"
RESUME = {  # what is done to a run, and what --resume says of it
    "an empty config.json": (written("config.json", b""), "config.json is damaged"),
    "a config.json of nothing": (written("config.json", b"{}"), "config.json is"),
    "a config.json of a list": (written("config.json", b"[]"), "config.json is"),
    "no config.json": (
        lambda place: (place.run / "config.json").unlink(),
        "without its config.json",
    ),
    "garbage in metrics.jsonl": (
        written("metrics.jsonl", b'{"epoch": 1}\ngarbage\n'),
        "line 2 of",
    ),
    "bytes in metrics.jsonl": (written("metrics.jsonl", b"\xff\xfe\n"), "line 1 of"),
    "a list in metrics.jsonl": (written("metrics.jsonl", b"[1]\n"), "line 1 of"),
    "no epoch in metrics.jsonl": (written("metrics.jsonl", b"{}\n"), "line 1 of"),
    "garbage in diagnostics.jsonl": (
        written("diagnostics.jsonl", b"garbage\n"),
        "line 1 of",
    ),
    "damaged checkpoints": (damaged_checkpoints, "train again in another"),
    "no checkpoints": (
        lambda place: shutil.rmtree(place.run / "checkpoints"),
        "none of its checkpoints",
    ),
}


@pytest.mark.parametrize("fault", RESUME)
def test_a_run_that_is_damaged_is_not_trained_over(fault, place, run_small):
    cause, part = RESUME[fault]
    cause(place)
    before = shown(place.run)
    done = run_small(*options(place.sets, place.run, "--resume"))
    expected = 2 if fault == "no config.json" else 1
    assert_one_line(done, expected, part, str(place.run))
    assert "remove it" not in done.stderr
    assert "warning" not in done.stderr
    assert shown(place.run) == before


def test_damaged_shares_are_told_and_the_run_goes_on(place, run_small):
    (place.run / "removed.npz").write_bytes(b"garbage")
    done = run_small(*options(place.sets, place.run, "--resume"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "removed.npz is damaged; its shares so far are lost" in done.stdout


def test_epochs_that_the_record_lacks_are_told(place, run_small):
    path = place.run / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    done = run_small(*options(place.sets, place.run, "--resume"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "has 2 of the 3 epochs that are done" in done.stdout


def without(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is not None, reason=f"{package} is there"
    )


SETS = [  # the name of a set, status, and what is said
    ("horse_or_humans", 2, "Did you mean horses_or_humans?"),
    ("picture", 2, "Did you mean pictures?"),
    ("", 2, "got an empty name."),
    ("notrain", 2, "notrain must have the split train, got test."),
    ("lfw", 2, "got lfw with label (Text), image (Image)."),
    ("imagenet2012", 1, "has to be downloaded by hand"),
    pytest.param(
        "coco", 1, "It needs TensorFlow: prepare", marks=without("tensorflow")
    ),
    pytest.param(
        "huggingface:mnist", 1, "Install what is missing", marks=without("datasets")
    ),
]


@pytest.mark.parametrize(("name", "status", "part"), SETS)
def test_a_set_that_cannot_be_used_is_told(name, status, part, place, capsys):
    before = shown(place.run.parent)
    args = [f"--dataset={name}", *options(place.sets, place.new)]
    assert_one_line(ended(horses.main(args), capsys), status, part)
    assert shown(place.run.parent) == before


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description_of_a_set_is_told(name, place, capsys):
    (place.sets / "pictures" / "1.0.0" / name).write_text("{")
    args = ["--dataset=pictures", *options(place.sets, place.new)]
    part = "the data set pictures cannot be used"
    assert_one_line(ended(horses.main(args), capsys), 1, part, "--data-dir")
    assert not place.new.parent.exists()


def test_a_set_without_a_test_split_lends_a_tenth_of_each_class(place, run_small):
    done = run_small("--dataset=notest", *options(place.sets, place.new))
    assert (done.returncode, done.stderr) == (0, "")
    assert "20 training and 4 test images" in done.stdout
    assert "test: a tenth of each class of train, its images 2, 12" in done.stdout
    found = workdir.read_config(place.new)["dataset"]
    assert (found["train_images"], found["test_images"]) == (20, 4)
    assert found["test"].startswith("a tenth of each class")


def no_metadata(place: Place) -> None:
    for path in (place.run / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")


def checkpoints_is_a_file(place: Place) -> None:
    place.new.mkdir(parents=True)
    (place.new / "config.json").write_bytes((place.run / "config.json").read_bytes())
    (place.new / "checkpoints").touch()


RUNS: dict[str, tuple[Callable[[Place], object], str, str]] = {
    "damaged params to start from": (no_metadata, "--init-from=run", DAMAGED),
    "a file named checkpoints": (
        checkpoints_is_a_file,
        "--resume",
        "cannot write a checkpoint into",
    ),
}


@pytest.mark.parametrize("fault", RUNS)
def test_a_run_that_cannot_begin_says_why(fault, place, run_small):
    cause, option, part = RUNS[fault]
    cause(place)
    done = run_small(*options(place.sets, place.new), option)
    assert_one_line(done, 1, part)
    assert "make room" not in done.stderr
    assert "Earlier checkpoints" not in done.stderr


def test_a_folder_has_one_owner_who_is_named(place, run_small):
    args = options(place.sets, place.run, "--resume")
    with workdir.Folder(place.run) as folder:
        folder.own()
        before = shown(place.run)
        done = run_small(*args)
        assert shown(place.run) == before
    part = f"run is in use by process {os.getpid()} on "
    assert_one_line(done, 1, part)
    with workdir.Folder(place.run.parent) as comparison:
        comparison.own()
        done = run_small(*args)
    assert_one_line(done, 1, "is in use by process")
    assert run_small(*args).returncode == 0


def test_another_users_lock_that_was_left_behind_keeps_nobody_out(tmp_path):
    with workdir.Folder(tmp_path / "run") as folder:
        folder.own()
        (tmp_path / "run" / "config.json").touch()
    assert (tmp_path / "run" / workdir.LOCK).stat().st_mode & 0o777 == 0o666


def test_a_picture_that_cannot_be_drawn_is_skipped(place, run_small, monkeypatch):
    from train.record import pictures

    def fail(*args):
        raise ValueError("'nonsense' is not a valid backend")

    monkeypatch.setattr(pictures, "plot_run", fail)
    done = run_small(*options(place.sets, place.new))
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: no picture was drawn ('nonsense' is not" in done.stdout
    assert (place.new / "summary.json").exists()


def test_without_compilation_nothing_begins(place, run_small):
    with jax.disable_jit():
        done = run_small(*options(place.sets, place.new))
    assert_one_line(done, 2, "JAX_DISABLE_JIT must be unset")
    assert not place.new.parent.exists()


COMPARISONS = [
    (["--arms"], "--arms must name at least one of none, gradient, update, placebo"),
    (["--protocol=published", "--arms", "none"], "--arms needs --protocol paired"),
    (["--dataset=horse_or_humans"], "Did you mean"),
    (["--out=other"], "--out must be a new or empty folder or a comparison's folder"),
]


@pytest.mark.parametrize(("args", "part"), COMPARISONS)
def test_a_comparison_that_fails_leaves_nothing(
    args, part, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("other").mkdir()
    pathlib.Path("other", "page.md").touch()
    done = ended(compare.main(["--out=compared/here", *args]), capsys)
    assert_one_line(done, 2, part)
    assert "--workdir" not in done.stderr
    assert [*shown(tmp_path)] == ["other", "other/page.md"]


def test_a_home_is_meant_by_a_tilde_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = horses.Config(
        workdir=pathlib.Path("~/run"), data_dir=pathlib.Path("~/sets"),
        init_from=pathlib.Path("~/first"),
    )  # fmt: skip
    made = [config.workdir, config.data_dir, config.init_from]
    made += [compare.Comparison(out=pathlib.Path("~/out")).out]
    made += [image.Config(image=pathlib.Path("~/image.png")).image]
    names = ("run", "sets", "first", "out", "image.png")
    assert made == [tmp_path / name for name in names]


def command(*args, cwd=ROOT, **env):
    return subprocess.run(
        [sys.executable, *args], capture_output=True, cwd=cwd, encoding="utf-8",
        env={**os.environ, **env},
    )  # fmt: skip


def test_devices_that_are_not_there_are_told(tmp_path):
    args = ["-m", "train.horses", f"--workdir={tmp_path / 'run'}"]
    done = command(*args, JAX_PLATFORMS="cuda")
    assert_one_line(done, 2, "no devices with JAX_PLATFORMS=cuda")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("closed", ["closed", "ascii"])
def test_output_that_is_closed_or_ascii_takes_any_text(closed):
    """The text ends with a character that ASCII lacks."""
    code = "from train.command import ends; ends.entry(lambda: print('caf\\xe9') or 0)"
    started = {
        "closed": ["-c", "import os, sys; os.close(1); os.execv(sys.executable, "
                   f"[sys.executable, '-c', {code!r}])"],
        "ascii": ["-c", code],
    }  # fmt: skip
    done = command(*started[closed], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == {"closed": "", "ascii": "caf\\xe9\n"}[closed]


BENCHMARKS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__"
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_of_a_benchmark_writes_nothing_and_names_the_command(name, tmp_path):
    places = {"cwd": tmp_path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = command("-m", f"benchmarks.{name}", "--help", **places)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m benchmarks.{name} ")
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def cache_at(path: pathlib.Path):
    """Has JAX keep compiled programs in a folder, and forget those in memory."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(path))
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


def test_a_damaged_program_in_the_cache_is_made_anew(tmp_path, monkeypatch, capsys):
    from train.command import compiled

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))

    def use() -> None:
        jax.clear_caches()
        with compiled.mended():
            jax.jit(lambda x: x * 3 + 1)(2.0)

    with cache_at(tmp_path):
        use()
        for path in tmp_path.glob("*-cache"):
            path.write_bytes(b"damaged")
        use()
        assert "were damaged and are compiled again" in capsys.readouterr().out
        assert b"damaged" not in [path.read_bytes() for path in tmp_path.iterdir()]
        use()
        assert capsys.readouterr().out == ""
