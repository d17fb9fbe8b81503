"""Benchmarks: each file here is a command, such as `python -m benchmarks.overhead`.

The parts of the commands are in the folders, one for each question that a user asks. A
command imports them when it runs, so that `--help` answers at once.
"""

import importlib.util
import sys

if sys.argv[:1] == ["-m"]:  # `python -m` is importing a command's package
    for package in ("jax", "rich", "tyro"):
        if importlib.util.find_spec(package) is None:
            sys.exit(
                f"error: python -m benchmarks.* needs {package}, which is not "
                "installed. From the clone: pip install -e '.[train]'"
            )
