"""The notebook runs, and is the one that its source makes."""

import importlib.util
import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PARAMETERS = """
import pathlib, sys, tempfile
from train.config import prepare_jax
prepare_jax()
import jax
sys.path.append("tests")
import small_horses
from train.tasks import cnn, decoder, horses
cnn.CONV_FEATURES, cnn.DENSE_FEATURES = (8,) * 5, 16
decoder.LAYERS, decoder.WIDTH, horses.CNN = 1, 24, small_horses.small()
SEEDS, STEPS, TEXT_BYTES, HORSES_EPOCHS = 1, 40, 30_000, 1
DATASET, DATA_DIR = "pictures", pathlib.Path({data_dir!r})
RUNS = pathlib.Path(tempfile.mkdtemp())
"""


def load_build():
    path = ROOT / "notebooks" / "build.py"
    spec = importlib.util.spec_from_file_location("notebook_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()


def test_the_notebook_is_the_one_its_source_makes():
    made = build.notebook(build.address())
    kept = nbformat.read(build.NOTEBOOK, as_version=4)
    assert [(c.cell_type, c.source) for c in kept.cells] == [
        (c.cell_type, c.source) for c in made.cells
    ]


def test_the_notebook_was_run_whole_without_errors():
    kept = nbformat.read(build.NOTEBOOK, as_version=4)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [
        o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5


def test_the_notebook_runs_from_a_clean_kernel(small_data_dir):
    made = build.notebook(None)
    (cell,) = [c for c in made.cells if "parameters" in c.metadata.get("tags", [])]
    cell.source = PARAMETERS.format(data_dir=str(small_data_dir))
    resources = {"metadata": {"path": str(ROOT)}}
    client = nbclient.NotebookClient(made, timeout=300, resources=resources)
    client.execute()
    text = "".join(
        output.get("text", "") for c in made.cells for output in c.get("outputs", [])
    )
    assert "12 training images of pictures/1.0.0" in text
    frozen = next(line for line in text.splitlines() if line.startswith("optax.cent"))
    assert set(frozen.split()[1:]) == {"0.6931"}


@pytest.mark.parametrize("address", ["https://github.com/someone/optax_gc"])
def test_with_an_address_there_are_a_badge_and_an_install_cell(address):
    sources = "\n".join(cell.source for cell in build.notebook(address).cells)
    assert "colab.research.google.com/github/someone/optax_gc/blob/main/" in sources
    assert f"git clone -q --depth 1 {address}" in sources
    assert "ADDRESS" not in sources
