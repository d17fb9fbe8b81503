"""Every command shows all its options, in groups, and a command line sets them."""

import contextlib
import dataclasses
import io
import pathlib

import pytest

from train import compare, config, fashion, horses, image, shakespeare
from train.command import options

COMMANDS = {
    "horses": horses.Config,
    "fashion": fashion.Config,
    "shakespeare": shakespeare.Config,
    "image": image.Config,
    "compare": compare.Comparison,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_and_has_the_arm_first_in_groups(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    screen = io.TextIOWrapper(io.BytesIO(), "utf-8")  # where tyro draws its boxes
    with contextlib.redirect_stdout(screen), pytest.raises(SystemExit, match=r"^0$"):
        options.read(COMMANDS[name], ["--help"], f"python -m train.{name}")
    screen.seek(0)
    text = screen.read()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [line.strip("╭╮─ ") for line in lines if line.startswith("╭")]
    first = "comparison options" if name == "compare" else "arm options"
    assert titles[:3] == ["options", first, "data options"]
    others = titles[3:]
    assert others[:2] == ["training options", "stop-and-resume options"]
    assert ("hosts options" in others) == (name != "compare")
    assert "(default: )" not in text
    assert "None" not in text
    for field in dataclasses.fields(COMMANDS[name]):
        assert f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_every_option_has_its_text_and_every_grouped_name_is_an_option(command):
    texts = options.docstrings(command)
    names = {field.name for field in dataclasses.fields(command)}
    assert all(texts[name].endswith(".") for name in names)


def test_groups_name_no_option_that_no_command_has():
    known = {f.name for c in COMMANDS.values() for f in dataclasses.fields(c)}
    named = [name for fields in options.GROUPS.values() for name in fields]
    assert set(named) <= known
    assert len(named) == len(set(named))
    assert set(options.METAVARS) <= known


def test_a_command_line_sets_the_options_of_all_groups():
    line = (
        "--gc --placement update --gc-only Conv_* Dense_* --data-dir here --epochs 3 "
        "--workdir there --resume --coordinator host:1 --num-processes 2 --process-id 1"
    )
    assert options.read(horses.Config, line.split(), "command") == horses.Config(
        gc=True, placement="update", gc_only=("Conv_*", "Dense_*"), epochs=3,
        data_dir=pathlib.Path("here"), workdir=pathlib.Path("there"), resume=True,
        coordinator="host:1", num_processes=2, process_id=1,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_without_a_command_line_all_options_have_their_defaults(command):
    assert options.read(command, [], "command") == command()


def test_a_text_of_ones_own_class_goes_before_that_of_another():
    assert (
        options.docstrings(config.Training)["epochs"]
        != (options.docstrings(horses.Training)["epochs"])
    )
