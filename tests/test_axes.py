"""Which axes the policies choose, and what they refuse."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_gc import all_but_first, all_but_last, centralize_gradients, describe


def zeros(**shapes):
    """A module's parameters, as shapes."""
    return {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}


def axes_of(params, spec=None):
    report = describe(params) if spec is None else describe(params, spec)
    return {row.path: row.axes for row in report.rows}


def doubts(params):
    return {row.path: row.doubt for row in describe(params).rows if row.doubt}


BIAS_TELLS = [
    pytest.param((5, 4), (4,), (0,), id="dense"),
    pytest.param((3, 3, 1, 8), (8,), (0, 1, 2), id="depthwise-conv"),
    pytest.param((8, 8), (8,), (0,), id="square-dense"),
    pytest.param((3, 3, 3, 3), (3,), (0, 1, 2), id="square-conv"),
    pytest.param((16, 4, 4), (4, 4), (0,), id="two-output-axes"),
    pytest.param((6, 4, 16), (16,), (0, 1), id="two-input-axes"),
    pytest.param((3, 8, 8), (3, 8), (1,), id="stack-of-dense"),
    pytest.param((3, 5, 5, 2, 8), (3, 8), (1, 2, 3), id="stack-of-conv"),
    pytest.param((3, 16, 4, 2), (3, 4, 2), (1,), id="stack-of-attention-inputs"),
    pytest.param((3, 4, 2, 16), (3, 16), (1, 2), id="stack-of-attention-outputs"),
    pytest.param((7, 3, 8, 6), (7, 3, 6), (2,), id="ensemble-of-stacks"),
    pytest.param((9, 9, 36, 8), (9, 9, 8), (2,), id="one-filter-a-position"),
    pytest.param((64, 3, 16), (16, 3), (0,), id="stacked-along-axis-1"),
    pytest.param((16, 3, 16), (16, 3), (0,), id="square-stacked-along-axis-1"),
    pytest.param((3, 3, 8, 4), (8,), (0, 1, 3), id="transposed-conv"),
    pytest.param((512, 1), (1,), (0,), id="one-output"),
]


@pytest.mark.parametrize(("kernel", "bias", "axes"), BIAS_TELLS)
def test_a_sibling_bias_tells_the_fan_in_of_a_kernel(kernel, bias, axes):
    assert axes_of(zeros(kernel=kernel, bias=bias))["kernel"] == axes


WEIGHTS = [
    pytest.param((5, 4), (5,), (1,), id="linear"),
    pytest.param((4, 4), (4,), (1,), id="square-linear"),
    pytest.param((1, 4), (1,), (1,), id="one-output"),
    pytest.param((8, 4, 3, 3), (8, 1, 1), (1, 2, 3), id="conv"),
    pytest.param((8, 8, 3, 3), (8, 1, 1), (1, 2, 3), id="square-conv"),
    pytest.param((7, 5, 4), (7, 5), (2,), id="ensemble-of-linear"),
    pytest.param((7, 8, 4, 3, 3), (7, 8, 1, 1), (2, 3, 4), id="ensemble-of-conv"),
    pytest.param((4, 5), (5,), (0,), id="input-first-says-the-bias"),
]


@pytest.mark.parametrize(("weight", "bias", "axes"), WEIGHTS)
def test_a_weight_is_read_outputs_first(weight, bias, axes):
    assert axes_of(zeros(weight=weight, bias=bias))["weight"] == axes


WITHOUT_BIAS = [
    pytest.param("dense/kernel", (5, 4), (0,), id="dense"),
    pytest.param("conv/kernel", (3, 3, 4, 8), (0, 1, 2), id="conv"),
    pytest.param("mha/query/kernel", (16, 4, 2), (0,), id="query"),
    pytest.param("mha/key/kernel", (16, 4, 2), (0,), id="key"),
    pytest.param("mha/value/kernel", (16, 4, 2), (0,), id="value"),
    pytest.param("blocks/query/kernel", (3, 16, 4, 2), (1,), id="stacked-query"),
    pytest.param("linear/w", (5, 4), (0,), id="haiku-linear"),
    pytest.param("cell/weight_hh", (24, 8), (1,), id="equinox-recurrent"),
    pytest.param("conv/weight", (8, 4, 3, 3), (1, 2, 3), id="equinox-conv"),
    pytest.param("depthwise_conv2d/kernel", (3, 3, 8, 2), (0, 1), id="keras-depthwise"),
    pytest.param("conv/depthwise_kernel", (3, 3, 8, 2), (0, 1), id="keras-separable"),
    pytest.param("gru/recurrent_kernel", (8, 24), (0,), id="keras-recurrent"),
]


@pytest.mark.parametrize(("path", "shape", "axes"), WITHOUT_BIAS)
def test_names_tell_the_fan_in_where_no_bias_does(path, shape, axes):
    tree = jax.ShapeDtypeStruct(shape, jnp.float32)
    for key in reversed(path.split("/")):
        tree = {key: tree}
    assert axes_of(tree) == {path: axes}


def test_a_path_in_one_key_is_read_like_a_nested_one():
    shapes = {
        "a/query/kernel": (16, 4, 4),
        "a/query/bias": (4, 4),
        "a/embeddings": (9, 4),
    }
    params = {path: jnp.zeros(shape) for path, shape in shapes.items()}
    nested = {
        "a": {
            "query": zeros(kernel=(16, 4, 4), bias=(4, 4)),
            **zeros(embeddings=(9, 4)),
        }
    }
    found = [(row.path, row.axes, row.why) for row in describe(params).rows]
    assert found == [(row.path, row.axes, row.why) for row in describe(nested).rows]


@pytest.mark.parametrize(
    "shape", [(9, 4), (3, 3, 8, 2)], ids=["a matrix or an embedding", "any convolution"]
)
def test_a_list_without_names_is_in_doubt(shape):
    (row,) = describe([jnp.zeros(shape)]).rows
    assert row.axes == tuple(range(len(shape) - 1))
    assert "trace the model" in row.doubt


def test_a_kernel_that_may_be_depthwise_is_in_doubt():
    (row,) = describe({"conv": zeros(kernel=(3, 3, 8, 1))}).rows
    assert row.doubt == "(0, 1) if depthwise"


def test_attention_output_has_two_fan_in_axes_behind_stacked_layers():
    query, out = zeros(kernel=(3, 16, 4, 2)), zeros(kernel=(3, 4, 2, 16))
    assert axes_of({"query": query, "out": out})["out/kernel"] == (1, 2)


def test_a_convolution_called_out_is_no_attention():
    assert axes_of({"out": zeros(kernel=(3, 3, 8, 4))}) == {"out/kernel": (0, 1, 2)}


LEFT_ALONE = [
    pytest.param(zeros(kernel=()), id="rank-0"),
    pytest.param(zeros(kernel=(4,)), id="rank-1"),
    pytest.param(zeros(kernel=(0, 4)), id="empty"),
    pytest.param(zeros(kernel=(1, 4), bias=(4,)), id="fan-in-of-1"),
    pytest.param(zeros(kernel=(1, 1, 1, 8), bias=(8,)), id="pointwise-depthwise"),
    pytest.param(zeros(bias=(4, 4)), id="bias-of-rank-2"),
    pytest.param(zeros(b=(4, 4)), id="haiku-bias"),
    pytest.param(zeros(bias_n=(3, 8)), id="stacked-recurrent-bias"),
    pytest.param(zeros(scale=(3, 8)), id="stacked-scale"),
    pytest.param(zeros(offset=(1, 1, 8)), id="haiku-batch-norm"),
    pytest.param(zeros(embedding=(10, 4)), id="embedding"),
    pytest.param(zeros(embeddings=(10, 4)), id="haiku-embedding"),
    pytest.param(zeros(pos_embedding=(1, 9, 4)), id="position-embedding"),
    pytest.param(zeros(relative_position_bias_table=(49, 4)), id="bias-table"),
    pytest.param(zeros(weight=(4, 3), bias=(4, 3)), id="elementwise-weight"),
    pytest.param({"tok_embed": zeros(weight=(10, 4))}, id="equinox-embedding"),
    pytest.param({"norm1": zeros(weight=(3, 4))}, id="stacked-norm"),
    pytest.param({"kernel": np.zeros((3, 2), np.int32)}, id="integer"),
    pytest.param({"kernel": np.zeros((3, 2), bool)}, id="boolean"),
    pytest.param({"kernel": np.zeros((3, 2), jax.dtypes.float0)}, id="float0"),
    pytest.param({"kernel": 3.0}, id="python-scalar"),
    pytest.param({"kernel": "text"}, id="no-array"),
]


@pytest.mark.parametrize("params", LEFT_ALONE)
def test_what_has_no_fan_in_is_left_alone(params):
    assert set(axes_of(params).values()) == {None}


DOUBTFUL = [
    pytest.param(zeros(kernel=(3, 8, 16)), r"\(1,\) if .* \(0,\) if", id="rank-3"),
    pytest.param(zeros(kernel=(3, 4, 2, 16)), r"\(1, 2\) if", id="no-conv-window"),
    pytest.param(zeros(weight=(3, 8, 16)), r"\(2,\) if", id="stack-or-conv1d"),
    pytest.param(
        zeros(kernel=(8, 8, 8), bias=(8, 8)), r"also fits \(1,\)", id="bias-fits-twice"
    ),
    pytest.param(zeros(kernel=(5, 4), bias=(7,)), "fits none", id="bias-fits-nowhere"),
    pytest.param(
        {"query": zeros(kernel=(3, 16, 4, 2))}, "unless layers", id="stacked-attention"
    ),
]


@pytest.mark.parametrize(("params", "doubt"), DOUBTFUL)
def test_a_layout_that_nothing_settles_is_in_doubt(params, doubt):
    (said,) = doubts(params).values()
    assert re.search(doubt, said)


SURE = [case for case in BIAS_TELLS if case.id != "square-stacked-along-axis-1"]


@pytest.mark.parametrize(("kernel", "bias", "axes"), SURE)
def test_a_bias_that_fits_once_leaves_no_doubt(kernel, bias, axes):
    assert not doubts(zeros(kernel=kernel, bias=bias))


def test_policies_of_the_paper_know_no_names():
    params = zeros(bias=(2, 4), embedding=(10, 4), kernel=(1, 4), scale=(4,))
    assert axes_of(params, all_but_last) == {
        "bias": (0,),
        "embedding": (0,),
        "kernel": (0,),
        "scale": None,
    }
    assert axes_of(params, all_but_first)["embedding"] == (1,)


def test_a_fan_in_of_1_that_was_asked_for_is_in_doubt():
    (row,) = describe(zeros(kernel=(1, 4)), all_but_last).rows
    assert row.axes == (0,)
    assert "gradient 0" in row.doubt


MODEL = {
    "body": zeros(kernel=(5, 4), bias=(4,)),
    "head": zeros(kernel=(4, 3), bias=(3,)),
}


def test_patterns_override_the_default_policy():
    chosen = axes_of(MODEL, {"head/*": None, "*/kernel": -1})
    assert chosen["head/kernel"] is None
    assert chosen["body/kernel"] == (1,)


def test_the_first_pattern_that_matches_decides():
    assert axes_of(MODEL, {"*/kernel": 1, "head/kernel": 0})["head/kernel"] == (1,)


def test_a_pattern_may_hand_over_to_a_policy_that_sees_the_siblings():
    params = {"a": zeros(weight=(4, 3), bias=(3,)), "b": zeros(w=(4, 3))}
    chosen = axes_of(params, {"b/*": all_but_first})
    assert chosen == {"a/bias": None, "a/weight": (0,), "b/w": (1,)}


def test_a_leaf_that_no_pattern_matches_is_read_by_fan_in():
    params = zeros(embedding=(10, 4), w=(4, 3))
    assert axes_of(params, {"w": 1}) == {"embedding": None, "w": (1,)}


def test_a_star_replaces_the_default_policy():
    assert axes_of(MODEL, {"*": all_but_first})["body/kernel"] == (1,)


def test_a_policy_of_ones_own_gives_an_int_a_sequence_or_none():
    def mine(tree):
        return jax.tree.map(lambda x: {1: None, 2: 0, 3: [-1, 0]}[len(x.shape)], tree)

    params = zeros(a=(3,), b_=(3, 4), c=(3, 4, 5))
    assert axes_of(params, mine) == {"a": None, "b_": (0,), "c": (0, 2)}


def test_the_path_of_a_bare_array_is_empty_and_matches_a_star():
    assert axes_of(jnp.ones((3, 2))) == {"": (0,)}
    assert axes_of(jnp.ones((3, 2)), {"*": 1}) == {"": (1,)}


@pytest.mark.parametrize(
    ("axes", "error", "match"),
    [
        pytest.param(
            7,
            ValueError,
            r"must lie in \[-4, 4\), got 7 for 'Conv_0/kernel' of shape "
            r"\(3, 3, 3, 16\). Use None",
            id="too-large",
        ),
        pytest.param((0, -5), ValueError, r"got \(0, -5\) for 'Conv_0", id="too-small"),
        pytest.param((0, -4), ValueError, "each once, got .* 'Conv_0", id="repeated"),
        pytest.param((), ValueError, "at least one axis.*Use None", id="none-named"),
        pytest.param(1.5, TypeError, r"must be ints, got 1.5 for 'Conv_0", id="float"),
        pytest.param("01", TypeError, "must be ints, got '01'", id="string"),
        pytest.param((0, None), TypeError, "must be ints", id="none-inside"),
    ],
)
def test_bad_axes_name_the_leaf_and_the_remedy(axes, error, match):
    params = {"Conv_0": zeros(kernel=(3, 3, 3, 16))}
    with pytest.raises(error, match=match):
        describe(params, {"Conv_0/kernel": axes})


@pytest.mark.parametrize("axes", ["fan_in", (0, 1), 0, None])
def test_what_is_neither_policy_nor_mapping_is_refused_at_once(axes):
    with pytest.raises(TypeError, match=r"must be a policy \(fan_in, .* got"):
        centralize_gradients(axes)


def test_a_policy_that_returns_another_structure_is_refused():
    with pytest.raises(ValueError, match="policy must return a tree of the structure"):
        describe(MODEL, lambda tree: {"body": None})
