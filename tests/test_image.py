"""An image is fitted from half of its pixels and judged by others, to the end."""

import json
import re
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from conftest import lines, outcome, stopped_after
from flax import linen as nn

from optax_gc import describe
from train import compare, data, image
from train.data.picture import load_picture
from train.engine import checkpoint
from train.engine.axes import fan_in_axes
from train.faults import UsageError
from train.record import pictures, statistics
from train.tasks import coordinates
from train.tasks.coordinates import OMEGA, WIDTH, Siren, encoded
from train.tasks.image import ImageFit, places, splits

RNG = np.random.default_rng(0)
SIDE = 16
STEPS = 4  # in an epoch of the runs below


def smooth(side, channels=3):
    """A square whose colors change slowly, so that few steps learn it."""
    down, across = np.meshgrid(*[np.linspace(0, 255, side)] * 2, indexing="ij")
    every = np.stack([down, across, (down + across) / 2], -1)
    return every[..., :channels].astype(np.uint8)


PICTURE = data.Picture("smooth.png", "as asked", smooth(SIDE))


def save(pixels, path, **options):
    PIL.Image.fromarray(pixels).save(path, **options)
    return path


# The pixels and their places.


def test_half_of_the_pixels_is_trained_on_and_a_quarter_each_is_held_out():
    numbers = np.arange(SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE, 1)
    parts = {name: part[1].ravel() for name, part in splits(numbers).items()}
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 128, "validation": 64, "test": 64,
    }  # fmt: skip
    assert sorted(np.concatenate([*parts.values()])) == list(range(SIDE**2))


def test_which_pixels_are_held_out_depends_on_the_size_alone():
    black = splits(np.zeros((SIDE, SIDE, 1), np.uint8))
    for name, (at, _) in splits(smooth(SIDE)).items():
        np.testing.assert_array_equal(at, black[name][0])
    assert not np.array_equal(black["train"][0], places(SIDE)[: SIDE**2 // 2])


def test_a_place_is_the_middle_of_its_pixel():
    expected = [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)]
    np.testing.assert_array_equal(places(2), np.float32(expected))


# The networks.


def test_a_place_is_encoded_as_waves_of_fixed_frequencies():
    at = jnp.array(RNG.uniform(-1, 1, (9, 2)), jnp.float32)
    waves = np.asarray(encoded(at), np.float64)
    sines, cosines = np.split(waves, 2, -1)
    frequencies = np.random.default_rng(0).normal(0, 5, (2, 64))
    expected = np.exp(1j * np.pi * np.asarray(at, np.float64) @ frequencies)
    np.testing.assert_allclose(cosines + 1j * sines, expected, atol=1e-4)


def test_a_siren_s_kernels_and_biases_fill_their_ranges():
    init = jax.jit(Siren(3).init)
    params = init(jax.random.key(0), jnp.zeros((1, 2)))["params"]
    hidden = (6 / WIDTH) ** 0.5 / OMEGA
    kernels, biases = [0.5, hidden, hidden, hidden, hidden], [2**-0.5] + 4 * [128**-0.5]
    for i in range(5):
        layer = params[f"Dense_{i}"]
        for leaf, limit in ((layer["kernel"], kernels[i]), (layer["bias"], biases[i])):
            assert jnp.abs(leaf).max() <= limit
            assert jnp.abs(leaf).max() > 0.6 * limit
            assert abs(leaf.mean()) < 0.4 * limit


def test_a_siren_s_layers_have_outputs_alike():
    at = jnp.array(RNG.uniform(-1, 1, (300, 2)), jnp.float32)
    outputs = []

    def record(call, args, kwargs, context):
        outputs.append(call(*args, **kwargs))
        return outputs[-1]

    with nn.intercept_methods(record):
        Siren(3).init_with_output(jax.random.key(0), at)
    phases = [OMEGA * float(output.std()) for output in outputs[1:4]]
    np.testing.assert_allclose(phases, phases[0], rtol=0.4)
    assert 1 < phases[0] < 3


@pytest.mark.parametrize("network", ["relu", "siren"])
def test_every_kernel_is_read_as_dense_without_a_doubt_and_nothing_normalizes(network):
    task = ImageFit(PICTURE, network=network)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    rows = describe(variables["params"], fan_in_axes(task, variables)).rows
    found = {row.path: row.axes for row in rows if row.axes is not None}
    assert found == {f"Dense_{i}/kernel": (0,) for i in range(5)}
    assert {row.path for row in rows if row.axes is None} == {
        f"Dense_{i}/bias" for i in range(5)
    }
    assert not [row.path for row in rows if row.doubt]


def test_a_pixel_s_scores_are_its_mean_squared_error():
    task = ImageFit(PICTURE)
    variables = task.init(jax.random.key(0))
    at, colors = task.splits["validation"]
    scores = task.test_scores(variables, (at, colors))
    fit = np.asarray(task.model.apply(variables, at), np.float64)
    expected = np.square(fit - colors / 255).mean(-1)
    np.testing.assert_allclose(scores.loss, expected, rtol=1e-4)
    np.testing.assert_array_equal(scores.loss, scores.score)


# The files.


def test_the_sample_is_a_photograph_in_color():
    picture = load_picture(None, 32)
    assert picture.name == "grace_hopper.jpg"
    assert picture.pixels.shape == (32, 32, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.std() > 20


def test_of_an_image_the_middle_square_is_taken(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = smooth(20)
    path = save(wide, tmp_path / "wide.png")
    np.testing.assert_array_equal(load_picture(path, 20).pixels, smooth(20))


def test_an_image_is_as_its_exif_orientation_says(tmp_path):
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned clockwise
    path = save(smooth(20), tmp_path / "turned.png", exif=exif)
    expected = np.rot90(smooth(20), -1)
    np.testing.assert_array_equal(load_picture(path, 20).pixels, expected)


FORMS = {
    "gray": (smooth(20, 1)[..., 0], smooth(20, 1)),
    "gray in 16 bits": (
        np.linspace(1000, 3000, 400).reshape(20, 20).astype(np.uint16),
        np.linspace(0, 255, 400).round().reshape(20, 20, 1),
    ),
    "opaque": (np.dstack([smooth(20), np.full((20, 20), 255, np.uint8)]), smooth(20)),
    "transparent": (np.zeros((20, 20, 4), np.uint8), np.full((20, 20, 3), 255)),
    "gray and transparent": (
        np.zeros((20, 20, 2), np.uint8),
        np.full((20, 20, 1), 255),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_gray_stays_gray_and_what_is_transparent_is_white(form, tmp_path):
    pixels, expected = FORMS[form]
    found = load_picture(save(pixels, tmp_path / "image.png"), 20).pixels
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(float), expected, atol=1)


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = save(np.full((9, 9), np.nan, np.float32), tmp_path / "image.tiff")
    with pytest.raises(UsageError, match=r"Pillow can read, got .*image.tiff .*finite"):
        load_picture(path, 20)


# The runs.


def shrink(patch):
    """Takes a network that is ready at once, and no picture of the curves."""
    sizes = {"WIDTH": 16, "LAYERS": 1, "FREQUENCIES": 8, "DEVIATION": 0.5}
    for name, value in sizes.items():
        patch.setattr(coordinates, name, value)
    patch.setattr(pictures, "plot_run", lambda history, path, title: path.touch())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(smooth(SIDE), tmp_path_factory.mktemp("file") / "smooth.png")


def options(file):
    return [
        f"--image={file}", f"--size={SIDE}", "--epochs=3", "--batch-size=32",
        "--learning-rate=0.01",
    ]  # fmt: skip


def run(file, folder, *args):
    with (
        jax.numpy_dtype_promotion("standard"),  # Optax's schedules promote
        pytest.MonkeyPatch.context() as patch,
    ):
        shrink(patch)
        return image.main([*options(file), f"--workdir={folder}", *args])


@pytest.fixture(scope="module")
def whole(file, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(file, folder, "--gc") == 0
    return folder


def test_a_run_leaves_its_psnr_and_that_is_numpys(whole, monkeypatch):
    epochs = lines(whole, "metrics.jsonl")
    assert epochs[-1].keys() == {
        "epoch", "epoch_seconds", "train_loss", "train_psnr", "validation_loss",
        "validation_psnr",
    }  # fmt: skip
    summary = json.loads((whole / "summary.json").read_text())
    shrink(monkeypatch)
    task = ImageFit(PICTURE)
    params = checkpoint.load_params(whole / "params")
    for split in ("validation", "test"):
        at, colors = task.splits[split]
        fit = np.asarray(task.model.apply({"params": params}, at), np.float64)
        mean = np.square(fit - colors / 255).mean()
        np.testing.assert_allclose(summary[f"{split}_loss"], mean, rtol=1e-4)
        np.testing.assert_allclose(summary[f"{split}_psnr"], -10 * np.log10(mean),
                                   atol=1e-3)  # fmt: skip
    assert epochs[-1]["train_psnr"] > epochs[0]["train_psnr"] + 3


def test_a_run_says_what_it_learns_from(whole):
    config = json.loads((whole / "config.json").read_text())
    checksum = config["dataset"].pop("sha256")
    assert len(checksum) == 64
    assert config["dataset"] == {
        "name": "smooth.png", "reason": "as asked", "train_pixels": 128,
        "validation_pixels": 64, "test_pixels": 64,
    }  # fmt: skip


def test_a_run_draws_what_it_has_learned(whole):
    with PIL.Image.open(whole / "reconstruction.png") as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (1650, 600))


def test_a_stopped_run_goes_on_with_a_copy_of_its_image_and_ends_the_same(
    whole, file, tmp_path
):
    with stopped_after(2, STEPS - 1):
        assert run(file, tmp_path / "run", "--gc") == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "reconstruction.png").exists()
    copy = shutil.copy(file, tmp_path)
    assert run(copy, tmp_path / "run", "--gc", "--resume") == 0
    assert outcome(tmp_path / "run") == outcome(whole)
    drawn = [path / "reconstruction.png" for path in (tmp_path / "run", whole)]
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


def test_another_image_of_the_same_name_is_refused(whole, tmp_path, capsys):
    other = save(255 - smooth(SIDE), tmp_path / "smooth.png")
    assert run(other, whole, "--gc", "--resume") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the run used other pixels: sha256 was ")
    assert error.endswith(". Give the run's own with --image.\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("network", "rate"), [("relu", 8e-3), ("siren", 2.5e-4)])
def test_each_network_has_its_own_rate_unless_one_is_given(network, rate):
    assert image.Config(network=network).learning_rate == rate
    assert image.Config(network=network, learning_rate=0.1).learning_rate == 0.1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--image=nowhere.png"], "--image must be a file, got nowhere.png."),
        (["--image=."], "--image must be a file, got .."),
        (["--size=7"], "--size must lie in [8, 4096], got 7."),
        (
            ["--size=8", "--batch-size=33"],
            "--batch-size must be at most the 32 training pixels, got 33.",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_fitted_is_one_line_and_status_2(
    args, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert image.main(args) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


DAMAGES = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "a poem": lambda whole: b"Roses are red",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_whole_image_is_one_line_and_status_2(
    damage, file, tmp_path, capsys
):
    path = tmp_path / "image.png"
    path.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert image.main([f"--image={path}", f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --image must be an image that Pillow can read, got")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_comparison_is_in_decibels_and_chooses_by_the_validation_loss(
    file, tmp_path, monkeypatch, capsys
):
    shrink(monkeypatch)
    monkeypatch.setattr(pictures, "plot_reconstruction", lambda *args: None)
    monkeypatch.setattr(pictures, "plot_all", lambda runs, folder: None)
    args = [
        *options(file), "--epochs=1", "--task=image", "--arms", "none", "gradient",
        "--seeds=1", "--network=siren", f"--out={tmp_path}",
    ]  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules promote
        assert compare.main(args) == 0
    printed = capsys.readouterr().out
    runs = statistics.read_runs(tmp_path)
    assert [run.arm for run in runs] == ["none", "gradient"]
    assert statistics.chosen_by(runs) == "validation_loss"
    none, gradient = (run.summary["test_psnr"] for run in runs)
    (line,) = re.findall(r"gradient - none +test PSNR \(dB\) +1 +(\S+)", printed)
    assert line == f"{gradient - none:+.2f}"
