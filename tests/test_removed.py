"""The shares that the page on what GC does states are those of the record."""

import json

import jax
import matplotlib as mpl
import numpy as np
import PIL.Image
import pytest

from benchmarks.effect import networks, page, shares
from train.study import theme

RECORD = json.loads(page.RECORD.read_text())
PAGE = (networks.ROOT / "docs" / "identity.md").read_text()


def test_the_page_shows_the_table_of_the_record():
    assert page.markdown(RECORD) in PAGE


def test_the_page_states_what_the_trained_kernels_of_each_kind_lose():
    prose = " ".join(PAGE.split("\n- **", 1)[1].split())
    for kernels in page.by_input(RECORD).values():
        assert page.span([row["end"] for row in kernels]) in prose


def test_the_page_states_how_long_the_networks_were_trained():
    steps = {training["steps"] for training in RECORD["trainings"]}
    assert all(f"for {n} steps" in PAGE for n in steps)
    assert len(steps) == 2


def test_every_kernel_is_counted_once():
    groups = page.by_input(RECORD).values()
    assert sum(map(len, groups)) == len(RECORD["kernels"])
    assert all(groups)


@pytest.fixture(scope="module")
def cases():
    images = np.random.default_rng(0).uniform(0, 1, (8, 15, 15, 3)).astype(np.float32)
    return networks.cases(images, np.arange(8) % 2, text_steps=1, image_steps=1)


@pytest.mark.parametrize(
    ("name", "kernels"),
    [("decoder, LayerNorm", 7), ("CNN, BatchNorm + ReLU, standardized", 5)],
)
def test_each_kernel_of_a_network_is_measured(cases, name, kernels, monkeypatch):
    monkeypatch.setattr(networks, "BLOCKS", 1)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        summary, rows = shares.measure(name, cases[name])
    assert summary["steps"] == 1
    assert len(rows) == kernels
    for row in rows:
        behind_norm = row["behind"] == "LayerNorm"
        assert (row["start"] < page.SMALLEST) == behind_norm
        assert row["start"] != row["end"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(1e-13, "0"), (0.0000142, "0.001"), (1 / 64, "1.6"), (0.914, "91"), (0.07, "7")],
)
def test_a_share_is_shown_with_a_digit_or_two(share, text):
    assert page.percent(share) == text


def test_the_pictures_are_those_of_the_record_for_light_pages_and_dark(tmp_path):
    page.plot(RECORD, tmp_path / "removed.png")
    for name, ground in (("removed.png", "light"), ("removed-dark.png", "dark")):
        with (
            PIL.Image.open(tmp_path / name) as made,
            PIL.Image.open(page.RECORD.with_name(name)) as kept,
        ):
            assert made.size == kept.size
            r, g, b = (x / 255 for x in kept.getpixel((0, 0))[:3])
            assert mpl.colors.to_hex((r, g, b)) == theme.GROUND[ground]
