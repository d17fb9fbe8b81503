"""The experiment: Gradient Centralization on four tasks, with Flax Linen."""

import sys

from train import faults

if faults.is_command():
    # Listen this early, because imports take most of the first seconds.
    _listening = faults.Stop().listening()
    _listening.__enter__()

    import importlib.util

    if importlib.util.find_spec("tyro") is None:
        sys.exit(
            "error: python -m train.* needs the extra `train`, which is not installed. "
            "From the clone: pip install -e '.[train]'"
        )
