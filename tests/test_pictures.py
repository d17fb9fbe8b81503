"""Pictures say what they show, and are read by eyes of every kind."""

import itertools

import numpy as np
import pytest
from matplotlib import colors

from train.fashion import Config as Fashion
from train.horses import Config as Horses
from train.record import pictures, reporter, statistics
from train.study import theme

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEUTERANOPE = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
     [-0.011820, 0.042940, 0.968881]]
)  # fmt: skip


def linear(color):
    rgb = np.array(colors.to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(color):
    return linear(color) @ (0.2126, 0.7152, 0.0722)


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    """Linear RGB in CIE 1976 L*a*b*."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                       [0.0193, 0.1192, 0.9505]])  # fmt: skip
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb / (0.9505, 1, 1.089), 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one, other):
    """How far apart a deuteranope sees two colors; 2.3 is just noticeable."""
    return np.linalg.norm(np.subtract(
        *(lab(np.clip(DEUTERANOPE @ linear(c), 0, 1)) for c in (one, other))
    ))  # fmt: skip


def test_red_and_green_of_one_lightness_are_alike_to_a_deuteranope():
    """The measure itself."""
    assert distance("#b05050", "#5c7d3a") < distance("#0969da", "#bc4c00") / 3


INKS = [pictures.BLUE, pictures.ORANGE, pictures.GRAY, pictures.BLACK]


@pytest.mark.parametrize("color", INKS)
def test_lines_have_a_contrast_of_four_and_a_half(color):
    assert contrast(color, "white") >= 4.5


@pytest.mark.parametrize("look", theme.THEMES)
def test_so_have_the_pictures_of_the_pages(look):
    inks = [theme.INK[look], theme.FAINT[look], *theme.COLORS[look].values()]
    assert all(contrast(ink, theme.GROUND[look]) >= 4.5 for ink in inks)


def test_lines_of_layers_differ_in_a_color_that_all_can_tell_or_in_their_dashes():
    assert len(pictures.LINES) >= 9
    for (one, dash), (other, others) in itertools.combinations(pictures.LINES, 2):
        assert dash != others or distance(one, other) > 20


def test_lines_of_arms_do_too():
    arms = ("none", "gradient", "update", "placebo", "first")
    for one, other in itertools.combinations(map(pictures.look, arms), 2):
        assert one[1] != other[1] or distance(one[0], other[0]) > 20


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (Horses(), "Horses: without GC, rmsprop at 0.0001, seed 0"),
        (Horses(gc=True, seed=3), "Horses: GC on the gradient, rmsprop at 0.0001, "
         "seed 3"),
        (
            Fashion(gc=True, placement="update", learning_rate=0.1),
            "Fashion: GC on the update, sgd at 0.1, seed 0",
        ),
        (
            Fashion(gc=True, gc_not=("Conv_0/*",)),
            "Fashion: GC on the gradient except Conv_0/*, sgd at 0.05, seed 0",
        ),
        (Horses(placebo=True), "Horses: placebo on the gradient, rmsprop at 0.0001, "
         "seed 0"),
    ],
)  # fmt: skip
def test_a_run_s_picture_says_task_arm_rate_and_seed(config, name):
    assert reporter.title(config) == name


def texts(figures):
    (figure,) = figures
    return [
        text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text"))
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: figures.append(self))
    return figures


def test_what_is_held_out_has_the_name_that_the_record_has(drawn):
    line = {"epoch": 1, "epoch_seconds": 2.5, "train_loss": 0.6, "train_accuracy": 0.7,
            "test_loss": 0.5, "test_accuracy": 0.6}  # fmt: skip
    pictures.plot_run([line, line | {"epoch": 2}], None, "A run")
    assert {"A run", "training", "test"} <= set(texts(drawn))
    assert not any("held" in text for text in texts(drawn))
    drawn.clear()
    run = statistics.Run("none", 0.1, 0, {}, line | {"total_seconds": 5}, [line], [])
    pictures.plot_curves([run], None)
    assert {"Training loss", "Test accuracy"} <= set(texts(drawn))


def test_the_pictures_of_layers_say_what_to_expect(drawn):
    layers = {f"Conv_{i}/kernel": 0.1 * i for i in range(7)}
    epochs = [{"epoch": 1, "removed_energy": layers, "mean_drift": layers}] * 2
    run = statistics.Run("gradient", 0.1, 0, {}, {}, [], epochs)
    pictures.plot_layers([run], "mean_drift", pictures.DRIFT, None, "log")
    found = " ".join(texts(drawn)).replace("\n", " ")
    assert pictures.DRIFT in found
    assert "GC on the gradient" in found
    (figure,) = drawn
    (panel,) = figure.axes
    looks = {(line.get_color(), line.get_linestyle()) for line in panel.lines}
    assert len(looks) == 7
