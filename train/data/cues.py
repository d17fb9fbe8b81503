"""Measures how well a linear classifier does on trivial cues of the drawn data set.

    python -m train.data.cues

It should do badly, because shape is what distinguishes horses from humans.
"""

import argparse

import numpy as np

from train import data
from train.config import default_data_dir, expanded

PENALTIES = (1e-2, 1e-1, 1.0, 10.0)


def thumbnails(images: np.ndarray, side: int) -> np.ndarray:
    """Returns the images averaged to `side` by `side` pixels, flattened.

    Args:
      images: `(N, H, W, 3)`.
      side: the side of the thumbnails in pixels; 1 gives the mean colour of each image.

    Returns:
      `(N, side * side * 3)` in float64.
    """
    rows, columns = (np.arange(side) * size // side for size in images.shape[1:3])
    return np.stack([_average(image, rows, columns).ravel() for image in images])


def _average(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the mean of each block between the given first rows and columns."""
    heights = np.diff(np.append(rows, image.shape[0]))[:, None, None]
    widths = np.diff(np.append(columns, image.shape[1]))[None, :, None]
    sums = np.add.reduceat(image, rows, axis=0, dtype=np.float64) / heights
    return np.add.reduceat(sums, columns, axis=1) / widths


def best_test_accuracy(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> float:
    """Returns a logistic regression's best test accuracy over `PENALTIES`.

    Choosing the penalty on the test split favours the classifier, so this is an upper
    bound.

    Args:
      train: features `(N, D)` and labels 0 or 1 `(N,)`.
      test: the same for the test split.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def accuracy(penalty: float) -> float:
        regression = LogisticRegression(C=1 / (penalty * len(train[1])), max_iter=1000)
        return make_pipeline(StandardScaler(), regression).fit(*train).score(*test)

    return max(map(accuracy, PENALTIES))


def main() -> None:
    """Prints the accuracies on the mean colour and on 16x16 thumbnails."""
    parser = argparse.ArgumentParser(
        prog="python -m train.data.cues", description=main.__doc__
    )
    parser.add_argument(
        "--data-dir",
        type=expanded,
        default=default_data_dir(),
        help="folder of TensorFlow Datasets (default: %(default)s)",
    )
    dataset = data.load("rendered", parser.parse_args().data_dir)
    for side, cue in ((1, "mean colour"), (16, "16x16 thumbnail")):
        train, test = (
            (thumbnails(split.images, side), split.labels)
            for split in (dataset.train, dataset.test)
        )
        print(f"{cue}: {best_test_accuracy(train, test):.1%} of test images")


if __name__ == "__main__":
    main()
