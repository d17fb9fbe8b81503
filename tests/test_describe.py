"""The table tells the axes of each leaf and why; the energy is the share removed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_gc import centralize, describe, removed_energy

PARAMS = {
    "Dense_0": {"kernel": jnp.ones((512, 10)), "bias": jnp.ones(10)},
    "attend": {"kernel": jnp.ones((3, 8, 16))},
}

TABLE = """\
path            shape       fan-in axes  size  why
--------------  ----------  -----------  ----  --------------
Dense_0/bias    (10,)       -               -  rank 1
Dense_0/kernel  (512, 10)   (0,)          512  bias (10,)
attend/kernel   (3, 8, 16)  (0, 1)         24  all but last ?

2 of 3 leaves are centralized, 99.8% of 5,514 parameters.
? attend/kernel: (1,) if layers are stacked, (0,) if a DenseGeneral. Settle it with \
{'attend/kernel': (0, 1)} or other axes."""


def test_the_table_is_aligned_and_names_the_override_to_write():
    assert str(describe(PARAMS)) == TABLE
    assert repr(describe(PARAMS)) == TABLE


def test_what_settles_a_doubt_can_be_pasted_as_it_is_printed():
    report = describe(PARAMS, {"attend/kernel": (0, 1)})
    assert not any(row.doubt for row in report.rows)


def test_shapes_are_enough():
    assert str(describe(jax.eval_shape(lambda: PARAMS))) == TABLE


def test_tracers_are_enough():
    seen = []
    jax.jit(lambda tree: seen.append(str(describe(tree))))(PARAMS)
    assert seen == [TABLE]


def test_rows_are_data():
    row = describe(PARAMS).rows[1]
    assert (row.path, row.shape, row.axes, row.fan_in, row.why, row.doubt) == (
        "Dense_0/kernel",
        (512, 10),
        (0,),
        512,
        "bias (10,)",
        "",
    )


ROWS = jnp.array([[4.0], [2.0]])
GRADS = {
    "Dense_0": {"kernel": jnp.tile(ROWS, (256, 10)), "bias": jnp.ones(10)},
    "attend": {"kernel": jnp.zeros((3, 8, 16))},
}

MEASURED = """\
path            shape       fan-in axes  size  removed  chance  why
--------------  ----------  -----------  ----  -------  ------  --------------
Dense_0/bias    (10,)       -               -        -       -  rank 1
Dense_0/kernel  (512, 10)   (0,)          512   90.00%   0.20%  bias (10,)
attend/kernel   (3, 8, 16)  (0, 1)         24    0.00%   4.17%  all but last ?"""


def test_the_share_removed_stands_beside_what_chance_would_remove():
    report = describe(PARAMS, updates=GRADS)
    assert str(report).startswith(MEASURED)
    kernel = report.rows[1]
    assert kernel.removed == pytest.approx(0.9)
    assert kernel.chance == 1 / 512
    assert "<td>90.00%</td><td>0.20%</td>" in report._repr_html_()


def test_updates_of_another_structure_are_an_error():
    with pytest.raises(ValueError, match="`updates` must have the structure"):
        describe(PARAMS, updates={"Dense_0": GRADS["Dense_0"]})


def test_rows_tell_output_and_stacked_axes():
    query = {"kernel": jnp.ones((3, 16, 4, 4)), "bias": jnp.ones((3, 4, 4))}
    row = describe(query).rows[1]
    assert (row.axes, row.outputs, row.stacked) == ((1,), (2, 3), (0,))


def test_a_notebook_gets_the_same_table_escaped():
    html = describe({"<b>": jnp.ones((4, 3, 2))})._repr_html_()
    assert html.count("<tr>") == 2
    assert "<td>&lt;b&gt;</td><td>(4, 3, 2)</td><td>(0, 1)</td><td>12</td>" in html
    assert "(1,) if layers are stacked" in html
    assert "<b>" not in html


def test_the_table_says_that_nothing_is_centralized():
    assert "None of the 1 leaves" in str(describe({"bias": jnp.ones(3)}))


def test_the_table_says_that_a_pattern_is_idle():
    assert "'haed/*' decides on no leaf" in str(describe(PARAMS, {"haed/*": None}))


def test_a_tree_without_leaves_is_described():
    assert "0 of 0 leaves" in str(describe({}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_the_removed_energy_is_the_share_of_the_squared_norm(dtype):
    noise = np.random.default_rng(0).normal(1, 1, (2, 3, 3, 8, 5))
    x = jnp.asarray(noise[0] + 1j * noise[1] if dtype == "complex64" else noise[0])
    x = x.astype(dtype)
    exact = np.asarray(x).astype(np.complex128)
    mean = np.broadcast_to(exact.mean((0, 1, 2)), exact.shape)
    expected = np.linalg.norm(mean) ** 2 / np.linalg.norm(exact) ** 2
    got = removed_energy({"kernel": x})["kernel"]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30], ids=["tiny", "huge"])
def test_the_removed_energy_neither_underflows_nor_overflows(scale):
    kernel = scale * jnp.array([[4.0], [2.0]])
    np.testing.assert_allclose(removed_energy(kernel), 0.9, rtol=1e-6)


def test_the_removed_energy_of_what_is_left_alone_or_zero_is_zero():
    updates = {
        "bias": jnp.ones(3),
        "count": jnp.ones((3, 3), int),
        "zero": jnp.zeros((4, 3)),
        "centralized": centralize(jnp.arange(12.0).reshape(4, 3), 0),
    }
    got = removed_energy(updates)
    assert got == dict.fromkeys(updates, 0.0)


def test_the_removed_energy_of_a_constant_fan_in_is_one():
    got = removed_energy({"kernel": jnp.full((1000, 3), 0.1)})["kernel"]
    assert got == pytest.approx(1, abs=1e-6)
    assert got <= 1


def test_the_removed_energy_takes_the_axes_it_is_given():
    x = {"kernel": jnp.array([[1.0, -1.0], [1.0, -1.0]])}
    assert removed_energy(x)["kernel"] == 1
    assert removed_energy(x, {"kernel": 1})["kernel"] == 0


def layer(shape=(8, 8)):
    return {"mlp": {"kernel": jnp.ones(shape), "bias": jnp.ones(shape[-1])}}


STACK = {"h": {str(i): layer() for i in range(12)}, "head": layer()}


def table(params, **kwargs):
    lines = str(describe(params, **kwargs)).splitlines()[2:]
    return lines[: lines.index("")]


def test_repeated_layers_are_one_line():
    assert [line.split("  ")[0] for line in table(STACK)] == [
        "h/0..11/mlp/bias x 12", "h/0..11/mlp/kernel x 12", "head/mlp/bias",
        "head/mlp/kernel",
    ]  # fmt: skip
    assert len(describe(STACK).rows) == 26
    assert "13 of 26 leaves are centralized" in str(describe(STACK))


def test_a_layer_that_differs_or_a_gap_stands_alone():
    params = {"h": {str(i): layer((8, 8 + (i == 3))) for i in range(4)}}
    paths = [line.split("  ")[0] for line in table(params)]
    assert "h/0..2/mlp/kernel x 3" in paths
    assert "h/3/mlp/kernel" in paths
    gap = {"h": {str(i): layer() for i in (0, 1, 3)}}
    assert len(table(gap)) == 6
    assert len(table({"h": {str(i): layer() for i in range(2)}})) == 4


def test_of_two_numbers_the_one_with_more_layers_is_counted():
    params = {
        f"h_{i}": {f"Dense_{j}": {"kernel": jnp.ones((8, 4))} for j in range(4)}
        for i in range(3)
    }
    assert [line.split("  ")[0] for line in table(params)] == [
        f"h_{i}/Dense_0..3/kernel x 4" for i in range(3)
    ]


def test_a_line_of_several_has_the_range_of_what_is_removed_and_one_override():
    params = {f"h_{i}": {"kernel": jnp.zeros((3, 8, 16))} for i in range(3)}
    grads = {
        f"h_{i}": {"kernel": jnp.ones((3, 8, 16)).at[0].set(1 + i)} for i in range(3)
    }
    report = describe(params, updates=grads)
    shares = [row.removed for row in report.rows]
    (line,) = table(params, updates=grads)
    assert f"{100 * min(shares):.2f}..{max(shares):.2%}" in line
    assert "? h_0..2/kernel: " in str(report)
    assert "Settle it with {'h_*/kernel': (0, 1)}" in str(report)
    assert not any(r.doubt for r in describe(params, {"h_*/kernel": (0, 1)}).rows)


def test_an_update_that_is_none_is_told_by_its_leaf():
    params = {"Dense_0": {"kernel": jnp.ones((4, 3)), "bias": None}}
    report = describe(params, updates=params)  # None in both is no leaf
    assert [row.removed for row in report.rows] == [1]
    with pytest.raises(TypeError, match=r"got None for 'Dense_0/kernel'\. Pass"):
        describe(params, updates={"Dense_0": {"kernel": None, "bias": None}})


@pytest.mark.parametrize("measure", [describe, removed_energy])
def test_an_int_for_a_policy_is_refused_with_what_to_write(measure):
    with pytest.raises(TypeError, match=r"got 5\. .* write \{'\*kernel': 5\}"):
        measure({"kernel": jnp.ones((4, 3))}, 5)
