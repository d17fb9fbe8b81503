"""The benchmarks count and compare what they say; no time is asserted."""

import importlib
import typing
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from benchmarks import accelerator, epoch, overhead, tpu_aot
from benchmarks.cost import chips, hlo, sharded, trees, updates
from benchmarks.epochs import flop
from benchmarks.reading import verdicts
from benchmarks.reading.models import model as zoo_model

# Four chips, kernel sharded on its fan-in: a prefetch, a reduction, a fused update.
HLO = """\
HloModule jit_update

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

ENTRY %main (p: f32[64,256], g: f32[64,256], s: bf16[8]) -> (f32[64,256], bf16[8]) {
  %p = f32[64,256]{1,0:T(8,128)} parameter(0)
  %g = f32[64,256]{1,0:T(8,128)} parameter(1)
  %s = bf16[8]{0:T(256)} parameter(2)
  %zero = f32[]{:T(128)} constant(0)
  %copy-start = (f32[64,256]{1,0:T(8,128)S(1)}, f32[64,256]{1,0:T(8,128)}, \
u32[]{:S(2)}) copy-start(%g)
  %copy-done = f32[64,256]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[64,256]{1,0:T(8,128)}), f32[32,256]{1,0:T(8,128)S(1)}, \
s32[]{:S(2)}) slice-start(%p), slice={[0:32], [0:256]}
  %slice-done = f32[32,256]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  %reduce = f32[256]{0:T(256)S(1)} reduce(%copy-done, %zero), to_apply=%add
  %sum-start = f32[256]{0:T(256)S(1)} all-reduce-start(%reduce), to_apply=%add
  %sum-done = f32[256]{0:T(256)S(1)} all-reduce-done(%sum-start)
  %all-gather = bf16[32]{0:T(256)} all-gather(%s), dimensions={0}
  %fusion = (f32[64,256]{1,0:T(8,128)}, /*index=1*/f32[256]{0:T(256)S(1)}) \
fusion(%p, %copy-done, %sum-done), kind=kLoop, calls=%add
  %new = f32[64,256]{1,0:T(8,128)} get-tuple-element(%fusion), index=0
  ROOT %tuple = (f32[64,256]{1,0:T(8,128)}, bf16[8]{0:T(256)}) tuple(%new, %s)
}
"""


@pytest.fixture(scope="module")
def tiny() -> trees.Tree:
    return trees.many_leaves(4)


@pytest.fixture(scope="module")
def compiled(tiny):
    return updates.compile_updates(updates.OPTIMIZERS["rmsprop"], tiny)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        pytest.param(trees.cnn, 1_704_097, id="cnn"),
        pytest.param(trees.resnet50, 25_557_032, id="resnet50"),
        pytest.param(trees.gpt2, 124_439_808, id="gpt2"),
    ],
)
def test_tree_has_the_published_number_of_parameters(make, parameters):
    assert trees.count(make()) == parameters


def test_cnn_tree_is_that_of_the_experiments_network():
    from train.tasks.cnn import CNN

    images = jax.ShapeDtypeStruct((1, 300, 300, 3), jnp.float32)
    variables = jax.eval_shape(CNN().init, jax.random.key(0), images)
    assert variables["params"] == trees.cnn()


@pytest.mark.parametrize("leaves", [10, 100])
def test_many_leaves_are_as_many_as_asked_for(leaves):
    assert len(jax.tree.leaves(trees.many_leaves(leaves))) == leaves


def test_each_arm_is_timed_in_each_round(tiny, compiled):
    rmsprop = updates.OPTIMIZERS["rmsprop"]
    seconds = updates.time_updates(compiled, rmsprop, tiny, rounds=3)
    assert {name: len(times) for name, times in seconds.items()} == {
        "alone": 3,
        "optax_gc": 3,
        "optax.centralize": 3,
    }


def test_ratio_is_taken_round_by_round():
    seconds = {"alone": [1.0, 2.0, 4.0], "optax_gc": [1.0, 3.0, 8.0]}
    assert updates.ratio(seconds, "optax_gc") == "1.50 [1.25, 1.75]"


def test_ratio_of_epochs_is_taken_round_by_round():
    ours = epoch.Result([[1.0, 1.0], [2.0, 2.0], [3.0, 5.0]])
    theirs = epoch.Result([[2.0, 2.0], [2.0, 2.0], [5.0, 5.0]])
    assert epoch.ratio(ours, theirs) == 0.8


def test_each_layers_flop_is_counted_from_its_shapes():
    counted = flop.layer_flop(300)
    assert counted["Conv_1"] == 3 * 2 * 147**2 * 9 * 16 * 32
    assert counted["Dense_0"] == 3 * 2 * 3136 * 512
    kernels = [name for name, leaves in trees.cnn().items() if leaves]
    assert list(counted) == sorted(kernels)


def test_centralizing_accesses_more_bytes_than_the_floor(tiny, compiled):
    alone, ours = (
        updates.bytes_per_parameter(compiled[name], tiny)
        for name in ("alone", "optax_gc")
    )
    assert updates.FLOOR["rmsprop"] <= alone < ours


def test_the_models_to_choose_from_are_those_that_there_are():
    chosen = typing.get_type_hints(tpu_aot.main)["model"]
    assert typing.get_args(chosen) == tuple(updates.MODELS) == accelerator.MODELS


def test_quick_mode_prints_every_table(monkeypatch, capsys):
    monkeypatch.setattr(trees, "cnn", lambda: trees.many_leaves(4))
    with jax.numpy_dtype_promotion("standard"):  # Adam's decay ** count promotes
        overhead.main(quick=True, rounds=1)
    printed = capsys.readouterr().out
    for title in ("Update time", "Bytes per parameter", "Milliseconds per leaf"):
        assert title in printed


def test_collectives_are_counted_with_the_bytes_of_their_operands():
    assert hlo.collectives(HLO) == {
        "all-reduce": (1, 256 * 4),
        "all-gather": (1, 8 * 2),
    }


def test_prefetched_array_is_counted_once():
    kernel, zero, gathered = 64 * 256 * 4, 4, (8 + 32) * 2
    prefetched = kernel + kernel // 2  # the gradient, and half of the weights
    updated = 2 * kernel  # the weights, read and written
    assert hlo.hbm_bytes(HLO) == prefetched + zero + gathered + updated


@pytest.mark.parametrize(
    ("layout", "spec"),
    [
        pytest.param("replicated", (), id="replicated"),
        pytest.param("outputs", (None, ("x", "y")), id="outputs"),
        pytest.param("fan-in", (("x", "y"),), id="fan-in"),
    ],
)
def test_kernels_are_sharded_as_named_and_biases_never(layout, spec):
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("x", "y"))
    layer = sharded.shard(trees.many_leaves(2), layout, mesh)["Dense_0"]
    assert tuple(layer["kernel"].sharding.spec) == spec
    assert tuple(layer["bias"].sharding.spec) == ()


def test_missing_libtpu_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^libtpu is not installed: pip install .+$"):
        tpu_aot.main()


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("linen_models", "convolutions"),
        ("linen_models", "dense"),
        ("linen_models", "decoder, stacked and tied"),
        ("linen_models", "OptimizedLSTMCell"),
        ("haiku_models", "convolutions"),
        ("haiku_models", "Transformer, stacked"),
        ("haiku_models", "GRU"),
        ("equinox_models", "convolutions"),
        ("equinox_models", "MLPs, stacked"),
    ],
)
def test_axes_of_a_librarys_layers_are_those_of_their_definitions(library, name):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        module = importlib.import_module(f"benchmarks.reading.models.{library}")
        model = module.MODELS[name]()
        counts, faults = verdicts.judge(model, verdicts.READERS["traced_fan_in"](model))
    assert faults == []
    assert counts["leaves"] == len(model.truth) > 0


@pytest.mark.parametrize(
    ("axes", "doubt", "uses", "verdict"),
    [
        ((0,), "", {(0,)}, "right"),
        ((0, 2), "", {(0,)}, "right"),  # axis 2 has one number
        (None, "", {None}, "right"),
        ((0,), "or (1,)", {(0,)}, "right ?"),
        ((1,), "or (0,)", {(0,)}, "wrong ?"),
        ((1,), "", {(0,)}, "silently wrong"),
        ((2,), "", {None}, "silently wrong"),
        (None, "looked up, and (1,)", {None, (1,)}, "two ways"),
        (None, "", {None, (1,)}, "two ways unsaid"),
        ((1,), "or looked up", {None, (1,)}, "two ways unsaid"),
    ],
)
def test_verdict_on_a_leaf(axes, doubt, uses, verdict):
    row = SimpleNamespace(shape=(4, 8, 1), axes=axes, doubt=doubt)
    assert zoo_model.verdict(row, frozenset(uses)) == verdict


def test_contracted_axes_are_read_from_the_equation():
    assert zoo_model.einsum_axes("BTD,SNDH->SBTNH") == (-2,)
    assert zoo_model.einsum_axes("...ij, oij -> ...o") == (-2, -1)


def test_leaf_that_no_layer_speaks_of_is_named():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    with pytest.raises(LookupError, match=r"No layer says .*: kernel \(2, 2\)$"):
        zoo_model.make(params, lambda params: params, (), uses={})


def test_missing_library_is_left_out_in_one_line(capsys):
    verdicts.read_libraries({"gone": ("no_such_models", "gone")}, Console())
    printed = capsys.readouterr().out
    missing = "benchmarks.reading.models.no_such_models"
    assert printed == f"gone is left out: no module named '{missing}'.\n"
