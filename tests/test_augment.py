"""The augmentation is SciPy's resampling, with parameters in the published ranges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from train.tasks import augment

resample = jax.jit(augment.resample)


def reference(image, flips, angle, zoom):
    """The same picture by SciPy, in float64."""
    image = image[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    height, width, _ = image.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    rows, columns = rows - (height - 1) / 2, columns - (width - 1) / 2
    y = zoom * (np.cos(angle) * rows - np.sin(angle) * columns) + (height - 1) / 2
    x = zoom * (np.sin(angle) * rows + np.cos(angle) * columns) + (width - 1) / 2
    channels = [
        scipy.ndimage.map_coordinates(channel, [y, x], order=1, mode="reflect")
        for channel in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    return np.stack(channels, -1)


@pytest.mark.parametrize("shape", [(40, 40, 3), (31, 50, 1), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("flips", [(0, 0), (1, 0), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize(
    ("angle", "zoom"), [(0.0, 1.0), (0.7, 1.0), (0.0, 1.2), (-1.88, 0.8), (1.3, 1.19)]
)
def test_resampling_equals_scipys(shape, flips, angle, zoom):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    matrix = augment.affine_map(
        jnp.array(flips, bool), jnp.array(angle), jnp.array(zoom)
    )
    ours = resample(jnp.array(image), matrix)
    # A coordinate's float32 rounding, 1e-5 pixels, times up to 255 grey levels a pixel.
    np.testing.assert_allclose(ours, reference(image, flips, angle, zoom), atol=1e-2)


def test_a_quarter_turn_moves_whole_pixels():
    image = jnp.arange(48, dtype=jnp.float32).reshape(4, 4, 3)
    matrix = augment.affine_map(
        jnp.array([False, False]), jnp.array(jnp.pi / 2), jnp.array(1.0)
    )
    np.testing.assert_allclose(resample(image, matrix), jnp.rot90(image, -1), atol=1e-4)


def test_zoom_above_one_shows_more_of_the_scene():
    bright_centre = jnp.zeros((41, 41, 1)).at[10:31, 10:31].set(1.0)
    maps = [
        augment.affine_map(jnp.array([False, False]), jnp.array(0.0), jnp.array(zoom))
        for zoom in (0.8, 1.2)
    ]
    closer, farther = (resample(bright_centre, m).sum() for m in maps)
    assert farther < bright_centre.sum() < closer


def test_random_parameters_are_uniform_over_the_published_ranges():
    keys = jax.random.split(jax.random.key(0), 5000)
    flips, angle, zoom = map(np.array, jax.vmap(augment.random_parameters)(keys))
    turn = scipy.stats.uniform(-0.3, 0.6)  # full turns
    assert scipy.stats.kstest(angle / (2 * np.pi), turn.cdf).pvalue > 0.01
    assert scipy.stats.kstest(zoom, scipy.stats.uniform(0.8, 0.4).cdf).pvalue > 0.01
    counts = np.unique(flips, axis=0, return_counts=True)[1]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    assert len(counts) == 4
    assert abs(scipy.stats.spearmanr(angle, zoom).statistic) < 0.05


def test_the_same_key_gives_the_same_picture_and_another_key_another():
    image = jnp.arange(300, dtype=jnp.float32).reshape(10, 10, 3)
    first, again, other = (
        augment.augment(jax.random.key(seed), image) for seed in (0, 0, 1)
    )
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, other)
