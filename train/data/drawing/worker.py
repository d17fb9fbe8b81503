"""A drawing process: reads one index per line, writes each picture and its label.

    python -m train.data.drawing.worker train

It ends when its standard input does.
"""

import pickle
import sys

from train.data.drawing import scene


def main(split: str) -> None:
    """Writes the pickled `(PNG, label)` of each index, in order."""
    for line in sys.stdin:
        pickle.dump(scene.draw_png(split, int(line)), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
