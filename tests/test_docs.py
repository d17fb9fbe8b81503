"""Commands in docs/ can be given as they are written, and print what is shown."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from conftest import prose

from train import compare, fashion, horses, image, shakespeare
from train.command import options

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TASKS = {"horses": horses, "fashion": fashion, "shakespeare": shakespeare,
         "image": image}  # fmt: skip
COMMAND = r"python (?:-m )?[\w./]+(?:(?:[^\n`#]|\\\n)*[^\s`'#])?"
# Each has a test that runs it, here or in the file that is named.
RUN = {
    "python -m train.data.rendered docs/rendered.png --rows 4": "here",
    "python -m train.image --gc --workdir runs/image-gc": "here",
    "python docs/optax_centralize.py": "test_upstream.py",
    "python docs/keras_loop.py": "test_keras.py",
    "python docs/keras_fit.py": "test_keras.py",
}
LONGER = {  # than a minute, or in need of what is not everywhere
    "python -m benchmarks.removed": "two to three minutes",
    "python -m benchmarks.step_aot": "libtpu",
    "python -m tests.test_rewrites": "five minutes",
    "python -m train.data.cues": "draws all images",
    "python tests/trials.py kills --tries 50": "fifty runs",
    "python tests/trials.py signals": "many runs, stopped as they start",
}


def commands():
    """Every command of the pages, as one line each."""
    text = "\n".join(path.read_text() for path in PAGES).replace("\\\n", "")
    found = (" ".join(one.split()) for one in re.findall(COMMAND, text))
    return list(dict.fromkeys(found))


def trains(command):
    return re.match(
        r"python -m train\.(horses|fashion|shakespeare|image|compare)\b", command
    )


def test_each_command_is_run_or_read_by_a_test_or_takes_longer():
    others = {command for command in commands() if not trains(command)}
    image_command = {command for command in RUN if trains(command)}
    assert others == (RUN.keys() - image_command) | LONGER.keys()
    assert image_command <= set(commands())
    for where in set(RUN.values()) - {"here"}:
        script = next(c for c, file in RUN.items() if file == where).split()[1]
        text = (ROOT / "tests" / where).read_text()
        assert pathlib.Path(script).name in text


@pytest.mark.parametrize("command", [*filter(trains, commands())])
def test_a_training_command_has_options_that_there_are(command):
    name, *args = shlex.split(command)[2:]
    task = name.removeprefix("train.")
    kind = compare.options_of(args) if task == "compare" else TASKS[task].Config
    config = options.read(kind, args, name)
    config.check()
    assert isinstance(config, kind)


def test_the_sheet_of_drawings_is_the_one_that_its_command_makes(tmp_path):
    command = next(command for command in RUN if "rendered" in command)
    args = shlex.split(
        command.replace("docs/rendered.png", str(tmp_path / "sheet.png"))
    )
    subprocess.run([sys.executable, *args[1:]], cwd=ROOT, check=True)
    with (
        PIL.Image.open(tmp_path / "sheet.png") as made,
        PIL.Image.open(ROOT / "docs" / "rendered.png") as kept,
    ):
        np.testing.assert_array_equal(np.asarray(made), np.asarray(kept))


def test_the_image_is_fitted_as_well_as_the_page_says(tmp_path):
    text = prose(ROOT / "docs" / "experiment.md")
    stated = re.search(r"At seed 0 that is ([\d.]+) dB", text)[1]
    command = next(command for command in RUN if "train.image" in command)
    args = shlex.split(command.replace("runs/image-gc", str(tmp_path / "run")))
    done = subprocess.run(
        [sys.executable, *args[1:]], cwd=ROOT, check=True, capture_output=True,
        text=True, env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    printed = re.search(r"Test PSNR: ([\d.]+) dB", done.stdout)[1]
    assert float(printed) == pytest.approx(float(stated), abs=0.3)
    assert (tmp_path / "run" / "reconstruction.png").exists()
