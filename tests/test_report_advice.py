"""Advice: what is said where the data carry it, and nothing where they do not; front and knee."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from report_tree import (
    ESTIMATED,
    GPU,
    MEASURED,
    write,
    write_model,
    write_scores,
    write_sidecar,
)
from study_exp import SYSTEMS, build_study

from sv.report.advice import MIN_KNEE_DEPTH, build_advice, find_knee, format_advice, pareto_front
from sv.report.results import collect_results

COUNT = 1000
RAMP = np.linspace(-1, 1, COUNT)  # replicates whose percentiles are known: +-0.95 at 95 %
# Name: kWh, EER. All four on the front, 34 the knee.
FOUR = {
    "resnet18_d": (10.0, 5.0), "resnet34_d": (20.0, 3.0), "resnet50_d": (60.0, 2.6),
    "resnet101_d": (200.0, 2.4),
}  # fmt: skip


def add_scores(exp, name, eer, noise, *, trials="list", speakers=40, seed=0, precision="fp32"):
    """Write an EER whose replicates are ``eer + noise``."""
    suffix = "" if precision == "fp32" else f"_{precision}"
    write_scores(
        exp, name, trials, "set", eer, det=False, suffix=suffix, precision=precision,
    )  # fmt: skip
    replicates = (eer + np.broadcast_to(noise, COUNT)).tolist()
    record = {
        "trials_digest": trials, "speakers": speakers, "seed": seed, "replicates": COUNT,
        "of_eer_percent": eer, "eer_percent": replicates, "min_dcf": {}, "det": {},
    }  # fmt: skip
    write(exp / name / "scores" / f"{trials}_cosine{suffix}.boot.json", record)


def add_system(exp, name, kwh, eer, noise=0.0, *, speakers=40, seed=0, **sidecar):
    write_model(exp, name, 1_000_000)
    write_sidecar(exp / name / "energy" / "05_train.json", kwh, MEASURED, GPU, **sidecar)
    add_scores(exp, name, eer, noise, speakers=speakers, seed=seed)


def build(root, systems=FOUR, noise=(), **more):
    """Write a tree; ``noise`` has the replicates of some systems about their EER."""
    data, exp = root / "data", root / "exp"
    write(data / "test_trials", "list set\n")
    for name, (kwh, eer) in systems.items():
        add_system(exp, name, kwh, eer, dict(noise).get(name, 0.0), **more)
    return data, exp


def advise(tree):
    return build_advice(collect_results(*tree))


def edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def one(lines, *words):
    """Return the one line that has all the words."""
    found = [line for line in lines if all(word in line for word in words)]
    assert len(found) == 1, (words, lines)
    return found[0]


def test_advice_of_the_whole_study(tmp_path):
    advice = advise(build_study(tmp_path))
    assert advice.front == (
        "resnet50_w0.25", "resnet50_w0.5", "resnet50_d_2282", "resnet50_d_2822",
        "resnet50_d_2662", "resnet101_d", "resnet200_d", "resnet419_d",
    )  # fmt: skip
    assert advice.knee == "resnet50_d_2822"
    shares = dict(advice.on_front)
    assert len(shares) == 15
    assert all(0 <= share <= 1 for share in shares.values())
    assert shares["resnet50_w0.25"] == 1  # the least energy of all
    assert all(price.dearer in advice.front for price in advice.prices)
    assert [row.label for row in advice.table.rows] == list(advice.front)
    text = format_advice(advice)
    assert text.startswith(f"# Advice from these results\n\n- {advice.choice}\n- 15 systems")
    assert "## No advice" not in text and "\n## The Pareto front" in text
    assert text.count("\n- ") == 1 + len(advice.lines) + len(advice.table.notes)


def test_front_knee_and_prices(tmp_path):
    advice = advise(build(tmp_path, noise={"resnet50_d": 0.1 * RAMP}))
    assert (advice.front, advice.knee) == (tuple(FOUR), "resnet34_d")
    _, first, second = advice.prices  # the first is of the step to the knee
    assert (first.cheaper, first.dearer) == ("resnet34_d", "resnet50_d")
    assert (first.more_kwh, first.gain) == (pytest.approx(40), pytest.approx(0.4))
    assert first.gain_interval == pytest.approx((0.4 - 0.095, 0.4 + 0.095))
    assert first.kwh_per_tenth == pytest.approx(0.1 * 40 / 0.4)
    assert first.interval == pytest.approx((0.1 * 40 / 0.495, 0.1 * 40 / 0.305))
    assert (second.cheaper, second.dearer) == ("resnet50_d", "resnet101_d")
    shown = {key: cell.text for key, cell in advice.table.rows[2].cells.items()}
    assert (shown["system"], shown["from"], shown["more_kwh"]) == (
        "resnet50_d",
        "resnet34_d",
        "40.00",
    )
    assert (shown["gain"], shown["gain_interval"]) == ("0.400", "0.305 to 0.495")
    assert (shown["tenth_kwh"], shown["tenth_interval"]) == ("10.00", "8.081 to 13.11")


def test_a_gain_within_noise_has_no_price_and_small_steps_add_up(tmp_path):
    # 34 to 50: 0.4 +- 0.57; 34 to 101: 0.6 without noise.
    advice = advise(build(tmp_path, noise={"resnet50_d": 0.6 * RAMP}))
    _, first, second = advice.prices
    assert (first.kwh_per_tenth, first.interval) == (None, None)
    assert first.reason == "the gain is within noise"
    assert (second.cheaper, second.dearer) == ("resnet34_d", "resnet101_d")
    assert second.kwh_per_tenth == pytest.approx(0.1 * 180 / 0.6)
    cell = advice.table.rows[2].cells["tenth_kwh"]
    assert (cell.text, cell.reason) == ("-", "the gain is within noise")


def test_uncertain_energies_widen_the_price(tmp_path):
    data, exp = build(tmp_path)
    sharp = advise((data, exp)).prices[1]
    assert sharp.interval == pytest.approx((sharp.kwh_per_tenth, sharp.kwh_per_tenth))
    for name, (kwh, _) in FOUR.items():
        edit(exp / name / "energy" / "05_train.json", uncertainty_kwh=0.1 * kwh)
    advice = advise((data, exp))
    low, high = advice.prices[1].interval
    # 40 kWh +- hypot(2, 6) at k = 2, for a gain of 0.4.
    assert low == pytest.approx(0.1 * (40 - 6.3 * 0.98) / 0.4, rel=0.05)
    assert high == pytest.approx(0.1 * (40 + 6.3 * 0.98) / 0.4, rel=0.05)
    assert "their uncertainties are in all shares and prices" in advice.lines[0]
    edit(exp / "resnet50_d" / "energy" / "05_train.json", uncertainty_kwh=60.0)
    advice = advise((data, exp))
    assert advice.prices[1].kwh_per_tenth is None
    assert "do not differ beyond their uncertainties" in advice.prices[1].reason


def test_share_of_the_replicates_on_the_front(tmp_path):
    # Dearer than 34 and as good on average: better in half of the replicates.
    systems = {**FOUR, "resnet34_w0.5": (25.0, 3.0005)}
    advice = advise(build(tmp_path, systems, noise={"resnet34_w0.5": 0.5 * RAMP}))
    assert "resnet34_w0.5" not in advice.front
    assert dict(advice.on_front)["resnet34_w0.5"] == pytest.approx(0.5, abs=0.01)
    # 50 is beaten by it where it goes below 2.6: in a tenth.
    assert dict(advice.on_front)["resnet50_d"] == pytest.approx(0.9, abs=0.01)
    assert "Off the front, but on it in some replicates: resnet34_w0.5 (50 %)." in advice.lines
    shares = {row.label: row.cells["on_front"].text for row in advice.table.rows}
    assert shares == {
        "resnet18_d": "100",
        "resnet34_d": "100",
        "resnet50_d": "90",
        "resnet101_d": "100",
    }


def test_the_least_energy_within_noise_of_the_best(tmp_path):
    advice = advise(build(tmp_path, noise={"resnet50_d": 0.3 * RAMP}))
    assert advice.choice == (
        "resnet50_d (2.60 %, 60.00 kWh) is within noise of resnet101_d (2.40 %, 200.0 kWh), the "
        "lowest EER, for 0.30 times the energy."
    )
    sharp = advise(build(tmp_path / "sharp"))
    assert sharp.choice.startswith("No system of less energy is within noise of resnet101_d")


def test_more_energy_is_never_preferred(tmp_path):
    systems = {"resnet18_d": (10.0, 5.0), "resnet34_d": (20.0, 2.39), "resnet101_d": (200.0, 2.4)}
    advice = advise(build(tmp_path, systems, noise={"resnet101_d": 0.3 * RAMP}))
    assert advice.choice.startswith("No system of less energy is within noise of resnet34_d (")


def test_no_knee_is_said_and_prices_start_at_the_least_energy(tmp_path):
    straight = {"resnet18_d": (10.0, 5.0), "resnet34_d": (100.0, 4.0), "resnet50_d": (1000.0, 3.0)}
    advice = advise(build(tmp_path, straight))
    assert advice.knee is None
    one(advice.withheld, "No advice on a knee", "log10(kWh)")
    assert [price.cheaper for price in advice.prices] == ["resnet18_d", "resnet34_d"]


# What cannot carry advice


def assert_nothing_on_training(advice):
    assert (advice.front, advice.knee, advice.prices) == ((), None, ())
    assert (advice.lines, advice.choice, advice.table) == ((), "", None)


def test_two_systems_are_too_few(tmp_path):
    systems = {name: FOUR[name] for name in ("resnet18_d", "resnet34_d")}
    advice = advise(build(tmp_path, systems))
    assert_nothing_on_training(advice)
    one(advice.withheld, "2 of 2 systems have an EER with replicates", "3 are needed")
    text = format_advice(advice)
    assert "\n\n## No advice\n\n- No advice on training" in text
    assert text.count("\n- ") == len(advice.withheld)


def test_few_speakers(tmp_path):
    assert_nothing_on_training(few := advise(build(tmp_path, speakers=24)))
    one(few.withheld, "24 speakers in a test list are too few")
    assert advise(build(tmp_path / "enough", speakers=25)).knee


def test_energies_of_different_parts(tmp_path):
    data, exp = build(tmp_path)
    write_sidecar(exp / "resnet50_d" / "energy" / "05_train.json", 60.0, MEASURED)
    advice = advise((data, exp))
    assert_nothing_on_training(advice)
    line = one(advice.withheld, "cover different parts of the machines")
    assert "cpu_package + gpu_board" in line


def test_a_mix_of_measured_and_estimated(tmp_path):
    data, exp = build(tmp_path)
    path = exp / "resnet50_d" / "energy" / "05_train.json"
    write_sidecar(path, 60.0, ESTIMATED, GPU, fraction=0.5)
    advice = advise((data, exp))
    assert_nothing_on_training(advice)
    one(advice.withheld, "measured in some runs and estimated in others")


def test_estimates_alike_are_weighed_and_called_so(tmp_path):
    data, exp = build(tmp_path)
    for name, (kwh, _) in FOUR.items():
        path = exp / name / "energy" / "05_train.json"
        write_sidecar(path, kwh, ESTIMATED, fraction=0.0)
    advice = advise((data, exp))
    assert advice.knee == "resnet34_d"
    assert "energy that of training, estimated" in advice.lines[0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: edit(d / "energy" / "05_train.json", status="interrupted"), "is interrupted"),
        (lambda d: edit(d / "energy" / "05_train.json", energy_kwh=None), "no energy in 05_train"),
        (lambda d: edit(d / "energy" / "05_train.json", reason="a gap"), "(a gap)"),
        (lambda d: (d / "energy" / "05_train.json").unlink(), "no energy of its training"),
        (lambda d: (d / "scores" / "list_cosine.boot.json").unlink(), "no replicates"),
        (lambda d: (d / "scores" / "list_cosine.json").unlink(), "no scores/list_cosine.json"),
        (lambda d: edit(d / "scores" / "list_cosine.boot.json", seed=7), "not the same trials"),
    ],
)
def test_a_system_that_cannot_be_weighed_is_named_and_the_rest_weighed(tmp_path, spoil, reason):
    data, exp = build(tmp_path)
    spoil(exp / "resnet101_d")
    advice = advise((data, exp))
    assert advice.front == ("resnet18_d", "resnet34_d", "resnet50_d")
    assert reason in one(advice.withheld, "resnet101_d is not weighed")
    assert "3 systems are weighed" in advice.lines[0]


# Few different values, so that ties occur.
COORDINATE = st.one_of(
    st.integers(1, 6).map(float), st.floats(1e-3, 1e4, allow_nan=False, allow_infinity=False)
)
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=12)
POINTS_OF_STUDY = [(kwh, sum(eers) / 5) for _, _, kwh, _, *eers in SYSTEMS.values()]
NAMES = list(SYSTEMS)


def beats(a, b):
    return a[0] <= b[0] and a[1] <= b[1] and a != b


@given(POINTS)
def test_the_front_is_all_that_is_not_beaten(points):
    front = pareto_front(points)
    expected = {i for i, p in enumerate(points) if not any(beats(q, p) for q in points)}
    assert len(front) == len(set(front)) and set(front) == expected
    energies = [points[i][0] for i in front]
    assert energies == sorted(energies)


@given(POINTS, st.randoms())
def test_the_order_of_the_points_does_not_matter(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = pareto_front([points[i] for i in order])
    assert {order[i] for i in shuffled} == set(pareto_front(points))


@given(POINTS, st.sampled_from([1e-3, 0.25, 3.6e6, 1000.0]))
@settings(deadline=None)
def test_units_do_not_matter(points, factor):
    scaled = [(kwh * factor, eer) for kwh, eer in points]
    assume(len({kwh for kwh, _ in scaled}) == len({kwh for kwh, _ in points}))  # no rounding ties
    assert pareto_front(scaled) == pareto_front(points)
    knee, other = find_knee(points), find_knee(scaled)
    assume(knee is None or abs(knee.depth - MIN_KNEE_DEPTH) > 1e-6)
    assume(other is None or abs(other.depth - MIN_KNEE_DEPTH) > 1e-6)
    assert (knee is None) == (other is None)
    if knee and other:
        assert other.depth == pytest.approx(knee.depth, abs=1e-6)


@given(POINTS)
def test_the_knee_is_on_the_front_and_the_deepest(points):
    knee = find_knee(points)
    front = pareto_front(points)
    assert knee is None or knee.index in front
    if knee is None:
        return
    assert MIN_KNEE_DEPTH <= knee.depth < 1
    (x0, y0), (x1, y1) = points[front[0]], points[front[-1]]
    for index in front:
        kwh, eer = points[index]
        along = math.log(kwh / x0) / math.log(x1 / x0)
        assert 1 - along - (eer - y1) / (y0 - y1) <= knee.depth + 1e-6


def test_the_front_and_the_knee_of_the_published_table():
    front = [NAMES[i] for i in pareto_front(POINTS_OF_STUDY)]
    assert front == [
        "resnet50_w0.25", "resnet50_w0.5", "resnet50_d_2282", "resnet50_d_2822",
        "resnet50_d_2662", "resnet101_d", "resnet200_d", "resnet419_d",
    ]  # fmt: skip
    knee = find_knee(POINTS_OF_STUDY)
    assert NAMES[knee.index] == "resnet50_d_2822"
    # By hand: kWh 34.35 .. 895.67, EER 4.582 .. 3.35.
    x = math.log10(52.06 / 34.35) / math.log10(895.67 / 34.35)
    assert knee.depth == pytest.approx(1 - x - (3.652 - 3.35) / (4.582 - 3.35))


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1.0, 5.0)],
        [(1.0, 5.0), (2.0, 4.0)],
        [(1.0, 5.0), (2.0, 4.0), (2.0, 4.0), (3.0, 6.0)],  # two different ones on the front
        [(1.0, 3.0), (10.0, 2.0), (100.0, 1.0)],  # straight on these axes
        [(1.0, 3.0), (10.0, 2.9), (100.0, 1.0)],  # bent the other way
        [(1.0, 3.0), (10.0, 1.9), (100.0, 1.0)],  # a depth of 0.05
    ],
)
def test_no_knee_where_there_is_no_clear_bend(points):
    assert find_knee(points) is None


def test_a_clear_bend_is_found_and_ties_go_to_less_energy():
    assert find_knee([(1.0, 3.0), (10.0, 1.5), (100.0, 1.0)]).index == 1
    # Two points a quarter below the line: the one of less energy, whatever the order.
    knee = find_knee([(10000.0, 0.0), (100.0, 1.0), (10.0, 2.0), (1.0, 4.0)])
    assert knee.index == 2
    assert knee.depth == pytest.approx(0.25)
    with pytest.raises(ValueError, match="above 0"):
        find_knee([(0.0, 1.0), (1.0, 0.5), (2.0, 0.1)])
