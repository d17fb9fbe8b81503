"""Random flips, rotation and zoom of one image, as a single affine resampling.

The published experiment chains three Keras layers, each of which resamples the result
of the one before. Here their three maps are composed first, and the image is resampled
once: the geometry is the same, with less blur. Where zooming out reaches beyond the
frame, the original is mirrored rather than its already rotated crop.
"""

import jax
import jax.numpy as jnp
from jax import Array

MAX_TURN = 0.3  # rotation is uniform in +-0.3 of a full turn
MAX_ZOOM = 0.2  # the image is shrunk or enlarged by up to 20 %


def augment(key: Array, image: Array) -> Array:
    """Returns a randomly flipped, rotated and zoomed image.

    Args:
      key: a PRNG key.
      image: `(H, W, C)`, any real dtype.

    Returns:
      `(H, W, C)` in float32, in the units of `image`.
    """
    return resample(image, affine_map(*random_parameters(key)))


def random_parameters(key: Array) -> tuple[Array, Array, Array]:
    """Returns the flips, angle and zoom that `affine_map` takes, drawn at random."""
    flip_key, turn_key, zoom_key = jax.random.split(key, 3)
    flips = jax.random.bernoulli(flip_key, 0.5, (2,))
    turn = jax.random.uniform(turn_key, minval=-MAX_TURN, maxval=MAX_TURN)
    zoom = 1 + jax.random.uniform(zoom_key, minval=-MAX_ZOOM, maxval=MAX_ZOOM)
    return flips, 2 * jnp.pi * turn, zoom


def affine_map(flips: Array, angle: Array, zoom: Array) -> Array:
    """Returns the `(2, 2)` matrix of a flip, a rotation and a zoom, in this order.

    It maps an output pixel's offset from the centre, `(row, column)`, to the offset of
    the input pixel that is shown there.

    Args:
      flips: `(2,)` bool: whether to flip upside down, and left to right.
      angle: scalar, in radians, clockwise.
      zoom: scalar, the part of the input's height and width that the output shows.
    """
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    rotation = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    signs = jnp.where(flips, -1.0, 1.0)
    return signs[:, None] * rotation * zoom


def resample(image: Array, matrix: Array) -> Array:
    """Returns the image seen through a linear map about its centre.

    It interpolates bilinearly. Beyond its edges the image is mirrored, with the edge
    pixel repeated (`d c b a | a b c d | d c b a`, "reflect" in Keras and SciPy).

    Args:
      image: `(H, W, C)`, any real dtype.
      matrix: `(2, 2)`, output to input offsets from the centre, in pixels.

    Returns:
      `(H, W, C)` in float32.
    """
    height, width, _ = image.shape
    row = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    column = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    y = matrix[0, 0] * row + matrix[0, 1] * column + (height - 1) / 2  # (H, W)
    x = matrix[1, 0] * row + matrix[1, 1] * column + (width - 1) / 2
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    rows = [mirror(top.astype(jnp.int32) + i, height) for i in (0, 1)]
    columns = [mirror(left.astype(jnp.int32) + i, width) for i in (0, 1)]

    def across(row: Array) -> Array:
        first, second = (image[row, column].astype(jnp.float32) for column in columns)
        return (1 - right) * first + right * second

    upper, lower = map(across, rows)
    return (1 - down) * upper + down * lower


def mirror(index: Array, size: int) -> Array:
    """Returns indices into an axis that continues as its own mirror image."""
    index = index % (2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)
