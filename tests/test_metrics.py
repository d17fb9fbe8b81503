"""A task has a second score, and a reader sees it by its name in a record."""

import numpy as np
import pytest

from train.record.metrics import ACCURACY, PSNR, decibels, metrics_in, sentence


def test_the_accuracy_of_a_split_is_the_mean_itself():
    figures = ACCURACY.figures("test", 0.5, 0.75)
    assert figures == {"test_loss": 0.5, "test_accuracy": 0.75}


def test_the_psnr_of_a_split_is_that_of_its_mean_squared_error():
    errors = np.random.default_rng(0).normal(0, 0.1, 1000)
    mean = np.square(errors).mean()
    figures = PSNR.figures("validation", mean, mean)
    root = np.sqrt(mean)
    np.testing.assert_allclose(figures["validation_psnr"], 20 * np.log10(1 / root))
    assert figures["validation_loss"] == mean


def test_a_perfect_fit_has_a_finite_psnr():
    assert decibels(0.0) == 120


def test_metrics_are_known_by_their_names_in_a_record_whatever_their_order():
    names = ["test_psnr", "epoch", "test_loss", "train_psnr", "train_loss", "seed"]
    found = metrics_in(names)
    assert list(found) == ["train_loss", "train_psnr", "test_loss", "test_psnr"]
    assert [one.short for one in found.values()] == [
        "loss", "PSNR (dB)", "test loss", "test PSNR (dB)",
    ]  # fmt: skip
    assert [one.long for one in found.values()] == [
        "training loss", "training PSNR (dB)", "held-out loss", "held-out PSNR (dB)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number", "figure"),
    [("train_loss", "0.000789", "0.000789"), ("train_psnr", "31.03", "31.03 dB")],
)
def test_a_squared_error_is_shown_to_the_digits_that_a_psnr_has(name, number, figure):
    metric = metrics_in(["train_loss", "train_psnr"])[name]
    value = {"train_loss": 7.89e-4, "train_psnr": 31.029}[name]
    assert (metric.number(value), metric.figure(value)) == (number, figure)


def test_beside_an_accuracy_a_loss_has_four_digits():
    metric = metrics_in(["train_loss", "train_accuracy"])["train_loss"]
    assert metric.number(7.89e-4) == "0.0008"
    assert metric.number(0.25, "+") == "+0.2500"


def test_a_sentence_begins_with_a_capital_and_keeps_the_others():
    assert sentence("test PSNR") == "Test PSNR"
