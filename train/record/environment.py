"""What a run's numbers depend on beside its configuration."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "optax-gc", "tensorflow-datasets")


def environment() -> dict[str, Any]:
    """Returns versions, devices and commit."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "commit": commit(),
    }


def commit() -> str | None:
    """Returns the commit of this source tree, "-dirty" if changed, if git knows it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None
