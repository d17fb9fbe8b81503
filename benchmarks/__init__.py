"""What is measured: each file here is a command, `python -m benchmarks.overhead`.

What the commands are made of is in the folders below, one for each question that a
user asks. A command imports it when it runs, so that `--help` answers at once.
"""

import importlib.util
import sys

if sys.argv[:1] == ["-m"]:  # `python -m` is importing what is above a command
    for package in ("jax", "rich", "tyro"):
        if importlib.util.find_spec(package) is None:
            sys.exit(
                f"error: python -m benchmarks.* needs {package}, which is not "
                "installed. From the clone: pip install -e '.[train]'"
            )
