"""The experiment: Gradient Centralization on four tasks, with Flax Linen."""

import importlib.util
import sys

if sys.argv[0] == "-m" and importlib.util.find_spec("tyro") is None:  # a command
    sys.exit(
        "error: python -m train.* needs the extra `train`, which is not installed. "
        "From the clone: pip install -e '.[train]'"
    )
