"""Counts the leaves of published models that each reader of axes gets right.

    uv venv --python 3.11 zoo
    uv pip install --python zoo --no-deps -r benchmarks/reading/requirements.txt -e .
    zoo/bin/python -m benchmarks.zoo [--libraries haiku keras ...]

The truth about a leaf is what its layer's own definition says, by class and attributes
(`reading/models`). `fan_in` gets the parameters, and `traced_fan_in` also the forward
pass. Nothing is loaded or downloaded: everything is traced with shapes only.
"""

import os
import platform
import sys
from typing import Annotated, Literal

import tyro
from rich.console import Console

# The module that has a library's models, and the distribution whose version is shown.
KNOWN = {  # the reader's rules were written with their models at hand
    "flax": ("linen_models", "flax"),
    "transformers": ("huggingface", "transformers"),
    "diffusers": ("diffusers_models", "diffusers"),
    "flaxmodels": ("flaxmodels_models", "flaxmodels"),
    "gemma": ("gemma_models", "gemma"),
    "tunix": ("tunix_models", "google-tunix"),
    "haiku": ("haiku_models", "dm-haiku"),
    "equinox": ("equinox_models", "equinox"),
    "esm2quinox": ("esm2_models", "esm2quinox"),
    "equimo": ("equimo_models", "equimo"),
    "alphafold": ("alphafold_models", "alphafold-colabfold"),
    "keras": ("keras_models", "keras"),
    "keras-hub": ("keras_hub_models", "keras-hub"),
}
NEW = {  # it had not met their models before its last change
    "netket": ("netket_models", "netket"),
    "e3x": ("e3x_models", "e3x"),
    "haliax": ("haliax_models", "marin-haliax"),
    "bijx": ("bijx_models", "bijx"),
    "flowjax": ("flowjax_models", "flowjax"),
    "pdequinox": ("pdequinox_models", "pdequinox"),
    "ott-jax": ("ott_models", "ott-jax"),
    "jraphx": ("jraphx_models", "jraphx"),
    "jaxkan": ("jaxkan_models", "jaxkan"),
    "mamba2-jax": ("mamba2_models", "mamba2-jax"),
    "memax": ("memax_models", "memax"),
    "clrs": ("clrs_models", "dm-clrs"),
}
LIBRARIES = KNOWN | NEW
Library = Literal[tuple(LIBRARIES)]
Libraries = Annotated[tuple[Library, ...], tyro.conf.arg(metavar="NAME ...")]


def main(libraries: Libraries = tuple(LIBRARIES), rounds: int = 7) -> None:
    """Reads the models that the options ask for and prints the tables.

    Args:
      libraries: The libraries to read; those that are not installed are left out.
      rounds: Rounds of timing; 0 for none.
    """
    # The models use JAX, whatever else is installed, and nothing needs a GPU.
    os.environ.update(KERAS_BACKEND="jax", USE_TF="0", USE_TORCH="0")
    os.environ.update(JAX_PLATFORMS="cpu", NETKET_ENABLE_X64="0")
    import jax

    from benchmarks.reading import verdicts

    console = Console(width=140, highlight=False)
    console.print(
        f"jax {jax.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; each cell: fan_in → traced_fan_in\n"
    )
    chosen = {name: LIBRARIES[name] for name in libraries}
    table, faults = verdicts.read_libraries(chosen, console, NEW)
    console.print(table)
    if rounds and "transformers" in libraries:
        console.print(verdicts.time_reading(rounds))
    for fault in faults:
        console.print(fault, soft_wrap=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.zoo", description=__doc__)
