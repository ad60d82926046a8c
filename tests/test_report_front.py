"""The Pareto front and its knee against their definitions, on any points."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from study_exp import SYSTEMS

from sv.report.advice import MIN_KNEE_DEPTH, find_knee, pareto_front

# Few different values, so that ties occur.
COORDINATE = st.one_of(
    st.integers(1, 6).map(float), st.floats(1e-3, 1e4, allow_nan=False, allow_infinity=False)
)
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=12)
STUDY = [(kwh, sum(eers) / 5) for _, _, kwh, _, *eers in SYSTEMS.values()]
NAMES = list(SYSTEMS)


def beats(a, b):
    return a[0] <= b[0] and a[1] <= b[1] and a != b


@given(POINTS)
def test_the_front_is_all_that_nobody_beats(points):
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
        assert other.kwh == points[other.index][0] * factor


@given(POINTS)
def test_the_knee_is_on_the_front_and_the_deepest(points):
    knee = find_knee(points)
    front = pareto_front(points)
    assert knee is None or knee.index in front
    if knee is None:
        return
    assert (knee.kwh, knee.eer_percent) == points[knee.index]
    assert MIN_KNEE_DEPTH <= knee.depth < 1
    (x0, y0), (x1, y1) = points[front[0]], points[front[-1]]
    for index in front:
        kwh, eer = points[index]
        along = math.log(kwh / x0) / math.log(x1 / x0)
        assert 1 - along - (eer - y1) / (y0 - y1) <= knee.depth + 1e-6


def test_the_front_and_the_knee_of_the_published_table():
    front = [NAMES[i] for i in pareto_front(STUDY)]
    assert front == [
        "resnet50_w0.25", "resnet50_w0.5", "resnet50_d_2282", "resnet50_d_2822",
        "resnet50_d_2662", "resnet101_d", "resnet200_d", "resnet419_d",
    ]  # fmt: skip
    knee = find_knee(STUDY)
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
    assert (knee.index, knee.kwh) == (2, 10.0)
    assert knee.depth == pytest.approx(0.25)
    with pytest.raises(ValueError, match="above 0"):
        find_knee([(0.0, 1.0), (1.0, 0.5), (2.0, 0.1)])
