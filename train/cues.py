"""How well a linear classifier does on trivial cues of the embedded dataset.

python -m train.cues --data-dir ~/tensorflow_datasets
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy.optimize

from train import rendered

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def thumbnails(source, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a TFDS data source, averaged to a few pixels, and labels.

    Args:
      source: Examples with ``image`` of shape ``(300, 300, 3)`` and ``label``.
      side: Side of the thumbnails; 1 gives each image's mean colour.

    Returns:
      Features of shape ``(images, side * side * 3)`` and labels of shape ``(images,)``.
    """
    edges = np.arange(side) * 300 // side
    area = np.diff(np.append(edges, 300))
    area = (area[:, None] * area[None])[..., None]
    features, labels = [], []
    for example in source:
        sums = np.add.reduceat(example["image"].astype(np.float64), edges, axis=0)
        features.append((np.add.reduceat(sums, edges, axis=1) / area).ravel())
        labels.append(example["label"])
    return np.stack(features), np.array(labels)


def best_test_accuracy(train, test) -> float:
    """Returns a logistic regression's best test accuracy over ``PENALTIES``.

    Choosing the penalty on the test split flatters the classifier: the bound is strict.

    Args:
      train: Features of shape ``(images, d)`` and labels 0 or 1 of shape ``(images,)``.
      test: The same of the test split.
    """
    mean, std = train[0].mean(0), train[0].std(0)
    (x, y), (x_test, y_test) = (
        ((f - mean) / std, labels) for f, labels in (train, test)
    )
    accuracies = []
    for penalty in PENALTIES:
        weights = _fit(x, y, penalty)
        accuracies.append(np.mean((x_test @ weights[:-1] + weights[-1] > 0) == y_test))
    return float(max(accuracies))


def _fit(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    sign = 2 * y - 1

    def loss(weights):
        margin = sign * (x @ weights[:-1] + weights[-1])
        slope = -sign / (1 + np.exp(np.clip(margin, -700, 700))) / len(y)
        value = (
            np.logaddexp(0, -margin).mean() + penalty / 2 * weights[:-1] @ weights[:-1]
        )
        gradient = np.append(x.T @ slope + penalty * weights[:-1], slope.sum())
        return value, gradient

    start = np.zeros(x.shape[1] + 1)
    return scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x


def main() -> None:
    """Prints the accuracies on the mean colour and on 16x16 thumbnails."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data-dir", default="~/tensorflow_datasets")
    builder = rendered.prepare(parser.parse_args().data_dir)
    for side, cue in ((1, "mean colour"), (16, "16x16 thumbnail")):
        train = thumbnails(builder.as_data_source("train"), side)
        test = thumbnails(builder.as_data_source("test"), side)
        print(f"{cue}: {best_test_accuracy(train, test):.1%} of test images")


if __name__ == "__main__":
    main()
