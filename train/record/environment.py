"""What a run's numbers depend on besides its configuration."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import tomllib
from typing import Any

import jax

import optax_gc

PACKAGES = ("jax", "jaxlib", "flax", "optax", "optax-gc", "tensorflow-datasets")
NVIDIA_DRIVER = pathlib.Path("/proc/driver/nvidia/version")


def environment() -> dict[str, Any]:
    """Returns versions, devices and commit."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | source_version(pathlib.Path(optax_gc.__file__).parents[1]),
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "commit": commit(),
    }


def source_version(folder: pathlib.Path) -> dict[str, str]:
    """Returns the version of an optax_gc source tree; nothing for any other package.

    The version that pip noted at installation may be that of an older tree in the same
    folder, or of another tree.
    """
    path = folder / "pyproject.toml"
    if not path.exists():
        return {}
    project = tomllib.loads(path.read_text()).get("project", {})
    return {"optax-gc": project["version"]} if project.get("name") == "optax-gc" else {}


def unused_card(driver: pathlib.Path = NVIDIA_DRIVER) -> str | None:
    """Returns what to tell a user whose NVIDIA card JAX does not see, else None.

    Args:
      driver: a file that the card's driver creates.
    """
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen or not driver.exists() or jax.default_backend() != "cpu":
        return None
    return (
        "this machine has an NVIDIA card, but JAX sees only the CPU. To train on the "
        "card: pip install -U 'jax[cuda13]'"
    )


def commit() -> str | None:
    """Returns the commit of this source tree, with "-dirty" if changed, if known."""
    head = git("rev-parse", "HEAD")
    changed = head and git("status", "--porcelain", "--untracked-files=no")
    return f"{head}-dirty" if changed else head or None


def git(*args: str) -> str:
    """Returns what git prints about this source tree; nothing if there is none.

    It takes no locks, because a run that is killed meanwhile would leave one behind, as
    with `git describe --dirty`.
    """
    command = ["git", "--no-optional-locks", *args]
    folder = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
