"""Readings of one counter by several meters: each moment counts once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv.energy.samples import join_curves, make_curve

SPAN = st.tuples(st.integers(0, 50), st.integers(1, 30)).map(lambda s: (s[0], s[0] + s[1]))


@settings(max_examples=200, deadline=None)
@given(st.lists(SPAN, min_size=1, max_size=8), st.integers(0, 99))
def test_the_union_of_spans_is_that_of_brute_force(spans, seed):
    chance = random.Random(seed)
    steps = [chance.uniform(0, 9) for _ in range(81)]
    so_far = [sum(steps[:t]) for t in range(82)]
    curves = [make_curve(range(a, b + 1), so_far[a : b + 1]) for a, b in spans]
    joined = join_curves(curves)
    covered = [t for t in range(81) if any(a <= t < b for a, b in spans)]
    assert joined.last == pytest.approx(sum(steps[t] for t in covered))
    assert joined.covered_s == len(covered)
    middle = chance.randrange(82)
    until = pytest.approx(sum(steps[t] for t in covered if t < middle))
    assert joined.read(middle) == until
    assert list(joined.t_s) == sorted(set(joined.t_s))
