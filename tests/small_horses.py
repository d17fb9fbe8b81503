"""`python -m train.horses` and `compare` with a network that starts at once.

For what is tested of the engine around it; the real one runs in `test_horses.py`.
"""

import sys
from typing import Any

from train import compare, config, horses
from train.comparison import jobs


def small():
    """Returns the network: a convolution, dropout and a dense layer."""
    from flax import linen as nn

    class Small(nn.Module):
        classes: int = 2
        dtype: Any = None

        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.relu(nn.Conv(16, (8, 8), strides=8, dtype=self.dtype)(images))
            x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
            if self.classes == 2:
                return nn.Dense(1, dtype=self.dtype)(x)[:, 0]
            return nn.Dense(self.classes, dtype=self.dtype)(x)

    return Small


def install(replace=setattr):
    config.prepare_jax()
    from train.record import pictures
    from train.tasks import horses as task

    replace(task, "CNN", small())
    replace(pictures, "plot_run", lambda history, path, title: path.touch())


if __name__ == "__mp_main__":  # a process of a comparison
    jobs.prepare_jax = install
if __name__ == "__main__":
    install()
    command = compare if sys.argv[1] == "compare" else horses
    sys.exit(command.main(sys.argv[1 + (command is compare) :]))
