"""The study of networks that training limits: its data, arms, search and verdicts."""

import json
import pathlib
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_gc import centralize, centralize_gradients
from train.study.limits import (
    arms,
    comparisons,
    cost,
    curvature,
    data,
    known,
    networks,
    order,
    outcome,
    page,
    picture,
    predictions,
    problems,
    search,
    training,
)
from train.study.limits.data import Examples, Split
from train.study.limits.store import Store

RESULTS = pathlib.Path(__file__).parents[1] / "results"


@pytest.fixture(autouse=True)
def standard_promotion():
    """Adam's decay ** count promotes, and so does Flax's bias."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def toy(**changes):
    """A small problem whose runs take a moment."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(64, 6)).astype(np.float32)
    split = Split(Examples(x, x[:, :1] * x[:, 1:2]), Examples(x[:8], x[:8, :1]))
    model = networks.Perceptron((8, 8, 1))

    def loss(params, examples):
        return problems.squared_error(model, params, examples)

    fields = {"name": "toy", "title": "toy", "model": model, "split": split,
              "loss": loss, "judge": loss, "unit": "loss", "batch_size": 16,
              "steps": 20, "first_rates": {"adam": 0.01, "sgd": 0.1}}  # fmt: skip
    return problems.Problem(**{**fields, **changes})


@pytest.mark.parametrize("name", data.PICTURES)
def test_a_picture_is_square_and_half_of_its_pixels_are_held_out(name):
    picture = data.picture(name)
    assert picture.shape[:2] == (data.SIDE, data.SIDE)
    assert (picture.min(), picture.max()) == (0, 1)
    split = data.pixels(name)
    places = [tuple(place) for part in split for place in part.x.tolist()]
    assert len(split.train.x) == len(split.held_out.x) == data.SIDE**2 / 2
    assert len(set(places)) == data.SIDE**2
    np.testing.assert_array_equal(data.pixels(name).train.y, split.train.y)


def test_a_product_of_patches_is_a_convolution_with_stride_two():
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = networks.patches(jnp.array(x)) @ kernel.reshape(-1, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_every_kernel_of_a_toy_is_centralized_over_its_inputs():
    problem = toy()
    params = problem.init(jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, params)
    tx = centralize_gradients(arms.axes_of(problem, params))
    updates, _ = tx.update(grads, tx.init(params))
    for layer in updates.values():
        np.testing.assert_array_equal(layer["kernel"], 0)
        np.testing.assert_array_equal(layer["bias"], 1)


def test_the_control_is_as_short_as_gc_leaves_it_and_keeps_its_direction():
    problem = toy()
    params = problem.init(jax.random.key(0))
    grads = jax.tree.map(lambda x: x + 0.3, params)
    tx = arms.shorten(arms.axes_of(problem, params))
    updates, _ = tx.update(grads, tx.init(params))
    for name, layer in updates.items():
        kernel, before = layer["kernel"], grads[name]["kernel"]
        left = jnp.linalg.norm(centralize(before, 0))
        np.testing.assert_allclose(jnp.linalg.norm(kernel), left, rtol=1e-5)
        cosine = jnp.sum(kernel * before) / jnp.linalg.norm(before) / left
        np.testing.assert_allclose(cosine, 1, rtol=1e-5)
        np.testing.assert_array_equal(layer["bias"], grads[name]["bias"])


def test_a_bias_is_as_fast_as_the_mean_of_its_kernel_s_inputs_would_make_it():
    problem = toy()
    params = problem.init(jax.random.key(0))
    factors = arms.bias_factors(problem, params)
    x = problem.split.train.x
    first = 1 + 6 * np.mean(x.mean(1) ** 2)
    np.testing.assert_allclose(factors["Dense_0"]["bias"], first, rtol=1e-5)
    kernel, bias = map(
        np.asarray, (params["Dense_0"]["kernel"], params["Dense_0"]["bias"])
    )
    hidden = np.maximum(x @ kernel + bias, 0)
    second = 1 + 8 * np.mean(hidden.mean(1) ** 2)
    np.testing.assert_allclose(factors["Dense_1"]["bias"], second, rtol=1e-5)
    assert {layer["kernel"] for layer in factors.values()} == {1.0}


def test_along_the_mean_of_its_inputs_a_kernel_moves_outputs_by_that_factor():
    """One step of descent by the kernel's mean gradient, over one of the bias."""
    x = np.array([[3.0, 1.0, 2.0]], np.float32)
    error = 0.7
    kernel_step = x.T * error
    mean_part = kernel_step.mean() * np.ones_like(kernel_step)
    moved = (x @ mean_part).item() / error
    np.testing.assert_allclose(moved, 3 * 2.0**2, rtol=1e-6)


def test_runs_side_by_side_are_those_that_run_alone_and_seeds_are_paired():
    problem = toy()
    both = training.train(problem, "adam", "none", [0.01, 0.02], [1, 2], 20)
    alone = training.train(problem, "adam", "none", [0.02], [2], 20)
    np.testing.assert_allclose(both.curve[1], alone.curve[0], rtol=1e-4)
    assert both.curve.shape == (2, 20)
    gc = training.train(problem, "adam", "gradient", [0.01], [1], 20)
    # The first step's rate is 0, so that both arms meet the same params and batch.
    np.testing.assert_allclose(gc.curve[0, :2], both.curve[0, :2], rtol=1e-4)
    assert abs(gc.curve[0, -1] - both.curve[0, -1]) > 1e-6


def test_gc_conserves_the_means_of_kernels_under_sgd_and_none_does_not():
    problem = toy()
    drifts = {}
    for arm in ("none", "gradient", "shorten"):
        out = training.train(problem, "sgd", arm, [0.1], [3], 20)
        key, _ = jax.random.split(jax.random.key(3))
        start = problem.init(key)["Dense_1"]["kernel"]
        drift = (out.params["Dense_1"]["kernel"][0] - start).mean(0)
        drifts[arm] = float(np.abs(drift).max())
    assert drifts["gradient"] < 1e-6
    assert min(drifts["none"], drifts["shorten"]) > 1e-4


@pytest.mark.parametrize(
    ("losses", "ahead"),
    [
        ({-1: 3, 0: 1, 1: 2}, []),
        ({-1: 3, 0: 2, 1: 1}, [2, 3, 4]),
        ({-1: 1, 0: 2, 1: 3}, [-4, -3, -2]),
        ({-1: 2, 0: 1, 1: float("inf")}, []),
    ],
)
def test_the_search_goes_on_until_the_best_rate_has_neighbours(losses, ahead):
    assert search.beyond(losses) == ahead


def test_the_search_does_not_go_on_for_ever():
    with pytest.raises(ValueError, match="no best rate within 12 factors of two"):
        search.beyond({12: 2.0, 13: 1.0})


def test_a_search_that_is_repeated_trains_nothing_and_finds_the_same(
    tmp_path, monkeypatch
):
    problem, path = toy(), tmp_path / "runs.jsonl"
    entry = search.Entry(problem, "adam", "none", problem.steps)
    first = order.run_entry(Store(path), entry)
    lines = path.read_text()
    rates = {json.loads(line)["rate"] for line in lines.splitlines()}
    assert len(rates) >= 3
    assert min(rates) < first["rate"] < max(rates)
    assert np.array(first["curves"]).shape == (10, 20)
    monkeypatch.setattr(training, "train", None)
    assert order.run_entry(Store(path), entry) == json.loads(json.dumps(first))
    assert path.read_text() == lines


def test_the_larger_budget_begins_where_the_smaller_one_ended(tmp_path):
    problem, store = toy(), Store(tmp_path / "runs.jsonl")
    entry = search.Entry(problem, "adam", "update", 4 * problem.steps)
    assert order.first_rate(store, entry) == 0.01
    line = {"seeds": [0], "train": [1.0], "judged": [1.0], "curves": [[1.0]]}
    for arm, rate in (("none", 0.5), ("muon", 2.0), ("update", 0.25)):
        small = search.Entry(problem, "adam", arm, problem.steps)
        expected = {"none": 0.01, "muon": 2.0, "update": 0.5}[arm]
        assert order.first_rate(store, small) == expected
        store.add(small.key("fresh", rate) | line)
    assert order.first_rate(store, entry) == 0.25


def test_of_each_budget_the_primary_arms_come_first_and_muon_last_in_one():
    plan = order.Plan([toy(), toy(name="other")])
    found = list(order.entries(plan))
    small, large = found[: 2 * (6 + 3)], found[2 * (6 + 3) :]
    assert [entry.steps for entry in small] == [20] * 18
    assert [entry.steps for entry in large] == [80] * 2 * (4 + 3)
    for half in (small, large):
        arms = [entry.arm for entry in half]
        assert arms[:8] == ["none", "gradient"] * 4
        assert set(arms[8:14]) == {"update", "shorten"}
    assert {entry.arm for entry in small[14:]} == {"muon", "muon-gradient"}


@pytest.fixture
def small_known(small_data_dir, monkeypatch):
    """A network of the first study that trains in a moment."""
    import small_horses

    from train import horses

    small_horses.install(monkeypatch.setattr)
    options = {"dataset": "pictures", "epochs": 2, "batch_size": 5}
    return known.Known(
        "toy", horses, "sgd", 0.01, 4, ("none", "gradient"), (0.0, 0.5, 1.0), options
    )


def test_what_is_followed_is_the_run_that_the_command_makes(
    small_known, small_data_dir
):
    import rich.console

    from train.engine import fit
    from train.engine.run import begin
    from train.faults import Stop
    from train.record.reporter import Reporter

    command = small_known.command
    options = command.Config(
        data_dir=small_data_dir, optimizer="sgd", learning_rate=0.01, gc=True,
        **small_known.options,
    )  # fmt: skip
    task = command.task(options, command.load_data(options))
    silent = Reporter(None, rich.console.Console(quiet=True))
    expected = fit.fit(options, task, silent, Stop())
    run, start = begin(options, task)
    (_, first), (_, last) = known.trained(run, start, [0, 6])
    jax.tree.map(np.testing.assert_array_equal, first.params, start.params)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        last.params, expected.params,
    )  # fmt: skip


def test_a_known_network_is_measured_once_along_each_arm(
    small_known, small_data_dir, tmp_path, monkeypatch
):
    path = tmp_path / "runs.jsonl"
    found = known.measure(Store(path), small_known, small_data_dir)
    assert [(one["arm"], one["steps"]) for one in found] == [
        (arm, share) for arm in ("none", "gradient") for share in (0.0, 0.5, 1.0)
    ]
    assert found[0]["ratio"] == found[3]["ratio"] >= 1  # the same place
    assert found[2]["ratio"] != found[5]["ratio"]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    one_place = mock.Mock(wraps=known.optax_gc.sharpness)
    with mock.patch.object(known.optax_gc, "sharpness", one_place):
        last = known.measure(Store(path), small_known, small_data_dir)[-1]
    one_place.assert_called_once()
    assert last["ratio"] == pytest.approx(found[-1]["ratio"])
    monkeypatch.setattr(known, "followed", None)
    again = known.measure(Store(path), small_known, small_data_dir)
    assert again == json.loads(json.dumps(found))


def test_known_networks_have_the_rates_of_their_study():
    choices = json.loads((RESULTS / "choice.json").read_text())
    for one in known.KNOWN:
        assert choices[one.name]["rates"]["none"] == one.rate


def test_a_step_is_timed_in_turn_and_once(tmp_path, monkeypatch):
    problem, path = toy(steps=50), tmp_path / "runs.jsonl"
    cost.measure(Store(path), problem)
    store = Store(path)
    assert len(store.part("cost")) == len(cost.ARMS)
    assert cost.ratio(store, problem, "adam", "none") == 1
    assert cost.ratio(store, problem, "adam", "muon") > 0
    assert cost.ratio(store, problem, "sgd", "gradient") is None
    monkeypatch.setattr(cost, "run", None)
    cost.measure(store, problem)


def test_a_curve_arrives_with_the_first_mean_of_five_points_at_the_goal():
    fast = np.r_[np.ones(50), np.zeros(50)]
    never = np.ones(100)
    arrived = outcome.arrival(np.stack([fast, never]), 0.0)
    assert arrived.tolist() == [55, 101]


def test_a_run_that_diverged_counts_at_its_first_loss():
    curves = [[2.0] + [1.0] * 99, [3.0] * 50 + [float("nan")] * 50]
    assert outcome.finals({"curves": curves}).tolist() == [1.0, 3.0]


def test_an_outcome_is_in_logarithms_and_of_psnr_in_db_with_less_as_better():
    none = {"curves": [[2.0] * 100] * 3, "judged": [20.0, 21.0, 22.0]}
    ours = {"curves": [[1.0] * 100] * 3, "judged": [21.0, 22.0, 23.5]}
    assert outcome.train_loss(ours, none).values == pytest.approx([-np.log(2)] * 3)
    found = outcome.held_out(ours, none, "PSNR, dB")
    assert found.values.tolist() == [-1, -1, -1.5]
    assert found.margin == 0.2
    assert outcome.held_out(ours, none, "loss").values[0] == pytest.approx(
        np.log(21 / 20)
    )
    assert found.answer(0.01) == "better"


def test_gc_in_front_of_muon_is_compared_with_muon_alone(tmp_path):
    problem, store = toy(), Store(tmp_path / "runs.jsonl")
    plan = order.Plan([problem], budgets=(1,))
    for arm, ends in (("muon", (1.8, 2.0, 2.2)), ("muon-gradient", (1.0, 1.0, 1.0))):
        entry = search.Entry(problem, "adam", arm, problem.steps)
        curves = [[4.0] * 50 + [end] * 50 for end in ends]
        rest = {"seeds": [0, 1, 2], "judged": [20.0, 21.0, 22.0 + ends[0]]}
        assert list(comparisons.beside_muon(store, plan)) == []
        store.add(entry.key("fresh", 0.1) | rest | {"curves": curves})
    (found,) = comparisons.beside_muon(store, plan)
    assert (found.arm, found.rates) == ("muon-gradient", (0.1, 0.1))
    assert np.exp(found.train.mean) == pytest.approx((1.8 * 2.0 * 2.2) ** (-1 / 3))
    assert comparisons.times(found.train) in list(page.muon_text([found]))[-1]


def test_a_rank_correlation_of_one_order_is_one():
    x = np.arange(15.0)
    found, (low, high) = outcome.rank_correlation(x, np.exp(x), draws=200)
    assert found == pytest.approx(1)
    assert (low, high) == pytest.approx((1, 1))


def test_a_page_is_made_of_whatever_is_run(tmp_path):
    problem, store = toy(), Store(tmp_path / "runs.jsonl")
    plan = order.Plan([problem], budgets=(1,), references=False)
    rng = np.random.default_rng(0)
    for entry in order.entries(plan):
        curves = (rng.uniform(1, 2, (10, 1)) * np.linspace(2, 1, 100)).tolist()
        ends = {"seeds": [*range(10)], "judged": rng.uniform(1, 2, 10).tolist()}
        store.add(entry.key("fresh", 0.1) | ends | {"curves": curves})
        for part in (curvature.EARLY, curvature.START):
            if entry.arm == "none":
                figures = {"ratio": [2.0, 8.0], "products": [[7, 7], [9, 8]]}
                store.add(entry.key(part, 0.1) | figures)
    found = list(comparisons.comparisons(store, plan))
    assert [(one.optimizer, one.arm) for one in found] == [
        ("adam", "gradient"), ("adam", "update"), ("adam", "shorten"),
        ("sgd", "gradient"), ("sgd", "shorten"),
    ]  # fmt: skip
    text = page.page(store, plan, tmp_path)
    assert "by Holm for the 4 that were planned," in text
    assert comparisons.times(found[0].train) in text
    assert [point.early for point in comparisons.prediction_points(store, found)] == [
        4,
        4,
    ]
    picture.draw(store, plan, tmp_path)
    assert (tmp_path / "gain-dark.png").read_bytes().startswith(b"\x89PNG")


LOW, HIGH = np.log([0.5, 0.9, 0.6]), np.log([0.98, 0.99, 1.0])


def compared(name, arm="gradient", steps=LOW, train=LOW, optimizer="adam"):
    """A comparison at budget 1 with the given values of three seeds."""
    problem = toy(name=name)
    outcomes = [outcome.Outcome(np.array(values)) for values in (train, steps, steps)]
    return comparisons.Comparison(
        problem, optimizer, 1, arm, (0.1, 0.1), *outcomes, (1.0, 1.0)
    )


def said(found, points=()):
    return [(one.name, one.verdict) for one in predictions.verdicts(found, points)]


@pytest.mark.parametrize(
    ("early", "steps", "verdict"),
    [
        (1.05, [0.0, 0.01, 0.02], ("S2", "holds")),
        (1.05, np.log([0.5, 0.55, 0.6]), ("S2", "fails")),
        (1.05, np.log([0.7, 1.0, 1.2]), ("S2", "open")),
        (1.5, [0.0, 0.01, 0.02], ("S2", "-")),
        (2.0, np.log([0.5, 0.55, 0.6]), ("S3", "holds")),
        (2.0, [0.0, 0.01, 0.02], ("S3", "fails")),
        (1.9, np.log([0.5, 0.55, 0.6]), ("S3", "-")),
    ],
)
def test_a_ratio_predicts_a_gain_or_none(early, steps, verdict):
    point = comparisons.Point(compared("toy", steps=steps), early, early, None)
    assert verdict in said([], [point])


def test_the_ratio_and_the_gain_may_rise_together_or_not():
    ratios = np.linspace(1, 3, predictions.FEWEST)
    for sign, verdict in ((-1, "holds"), (1, "fails")):
        points = [
            comparisons.Point(
                compared("toy", steps=[sign * r, sign * r + 0.01, sign * r - 0.02]),
                r,
                r,
                None,
            )
            for r in ratios
        ]
        assert ("S1", verdict) in said([], points)
        assert ("S1", "-") in said([], points[1:])


def test_a_shortened_step_that_gains_fails_its_prediction():
    nothing = compared("a", "shorten", train=[0.0, 0.01, 0.02])
    assert ("S5", "holds") in said([nothing])
    gain = compared("b", "shorten", train=np.log([0.7, 0.75, 0.8]))
    assert ("S5", "fails") in said([nothing, gain])
    wide = compared("c", "shorten", train=np.log([0.7, 1.0, 1.2]))
    assert ("S5", "open") in said([nothing, wide])


def test_a_normalized_network_is_compared_with_the_plain_one():
    plain = compared("cnn", steps=np.log([0.5, 0.51, 0.52]))
    normed = compared("cnn-batchnorm", steps=np.log([0.9, 0.92, 0.91]))
    assert ("S4", "holds") in said([plain, normed])
    other = compared("cnn-batchnorm", steps=np.log([0.9, 0.92, 0.91]), optimizer="sgd")
    assert "S4" not in dict(said([plain, other]))


@pytest.mark.parametrize(("left", "verdict"), [(0.97, "holds"), (0.6, "fails")])
def test_fast_biases_take_half_of_the_gain_or_do_not(left, verdict):
    gain = np.log([0.7, 0.74, 0.72])
    arms_of = {
        "gradient": gain, "bias": np.array([0.1, 0.11, 0.12]),
        "bias-gradient": np.array([0.1, 0.12, 0.11]) + np.log(left),
    }  # fmt: skip
    found = [
        compared("mlp", arm, train=values, optimizer="sgd")
        for arm, values in arms_of.items()
    ]
    assert ("bias", verdict) in said(found)


@pytest.fixture(scope="module")
def published():
    """The records of the study, its plan and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        images = Examples(np.zeros((2, 28, 28, 1), np.float32), np.zeros(2, np.int32))
        patch.setattr(data, "fashion", lambda data_dir: Split(images, images))
        plan = order.Plan(problems.problems(pathlib.Path("none")))
    out = RESULTS / "limits"
    return Store(out / "runs.jsonl"), plan, out


@pytest.fixture(scope="module")
def made(published):
    """The page that the records make."""
    return page.page(*published)


def test_the_committed_page_is_the_one_that_the_records_make(published, made):
    *_, out = published
    assert (out / "README.md").read_text() == made


FIGURE = r"[+-]?\d[\d.]* \[[^\]]*\d\](?: dB)?"


@pytest.mark.parametrize("file", ["docs/evidence.md", "FINDING.md"])
def test_every_figure_of_the_finding_is_on_the_page(published, made, file):
    *_, out = published
    finding = (out / "FINDING.md").read_text()
    made = made.replace(finding.strip(), "")
    first = (RESULTS / "README.md").read_text()
    path = out / file if file == "FINDING.md" else RESULTS.parent / file
    text = " ".join(path.read_text().replace("*", "").split())
    figures = re.findall(FIGURE, text)
    assert [one for one in figures if one not in made and one not in first] == []
    assert len(figures) >= 3


COUNTS = {
    1: "fewer steps in ten, and in none was it settled as worse",
    4: "With four times the steps it was ten again",
}
FASTER = {
    1: "Eight pairs needed {low} to {high} of the steps",
    4: "with four times the steps eight, {low} to {high}.",
}


@pytest.mark.parametrize("budget", [1, 4])
def test_the_readme_counts_what_the_page_settles(published, budget):
    store, plan, _ = published
    found = list(comparisons.comparisons(store, plan))
    settled = [
        (found[i], found[i].train.answer(p), found[i].steps.answer(q))
        for i, (p, q) in comparisons.primary_p(found, comparisons.family(plan)).items()
        if found[i].budget == budget
    ]
    better = [one for one, *said in settled if "better" in said]
    faster = [np.exp(one.steps.mean) for one, _, steps in settled if "better" in steps]
    assert not any("worse" in answer for _, *said in settled for answer in said)
    readme = " ".join((RESULTS.parent / "README.md").read_text().split())
    assert (len(settled), len(better), len(faster)) == (15, 10, 8)
    assert "In fifteen pairs" in readme
    assert COUNTS[budget] in readme
    low, high = (f"{end:.2f}" for end in (min(faster), max(faster)))
    assert FASTER[budget].format(low=low, high=high) in readme


def test_the_readme_says_what_training_less_loss_cost_held_out(published):
    store, plan, _ = published
    found = {
        (one.problem.name, one.optimizer, one.budget): one
        for one in comparisons.comparisons(store, plan)
        if one.arm == "gradient"
    }
    readme = " ".join((RESULTS.parent / "README.md").read_text().split())
    mri = found["brain", "adam", 1].held_out.mean
    assert f"{mri:.0f} dB worse on unseen pixels" in readme
    classifiers = [
        100 * (np.exp(one.held_out.mean) - 1)
        for (name, _, budget), one in found.items()
        if name.startswith(("mlp", "cnn")) and budget == 4
    ]
    low, high = min(classifiers), max(classifiers)
    assert len(classifiers) == 8
    assert f"rose in all eight classifiers, by {low:.0f} to {high:.0f} %" in readme
