"""The Pareto front of accuracy against energy, and its knee; on numbers alone.

A point is (kWh, EER in %); less is better in both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Under the chord, in units of the front's extent: a knee of less is no clear bend. The largest
# distance possible is 1; a quarter circle has 0.41.
MIN_KNEE_DEPTH = 0.1
_LEAST_POINTS = 3  # two points have no bend between them
_EQUAL = 1e-9  # depths apart by less are rounding

KNEE_METHOD = (
    "the knee is the point of the front furthest below the straight line between its ends, with "
    "log10(kWh) and EER both scaled to 0..1 over the front (Kneedle: Satopaa et al., 2011); no "
    f"knee under a depth of {MIN_KNEE_DEPTH} or with fewer than {_LEAST_POINTS} points on the front"
)


@dataclass(frozen=True)
class Knee:
    """The knee: its place among the points, its figures, and its ``depth`` below the line."""

    index: int
    kwh: float
    eer_percent: float
    depth: float


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Give the points that no other beats: none is as good in both figures and better in one.

    Returns:
        Indices by rising kWh. Equal points do not beat each other: all of them are on the front.
    """
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    front: list[int] = []
    for index in order:
        # Sorted, so that only points before this one can beat it.
        last = points[front[-1]] if front else (0.0, float("inf"))
        if points[index][1] < last[1] or tuple(points[index]) == tuple(last):
            front.append(index)
    return front


def find_knee(points: Sequence[tuple[float, float]]) -> Knee | None:
    """Find the knee of the front of ``points``, by `KNEE_METHOD`.

    Logarithm and scaling make it independent of the units of both axes. Of equally deep points it
    is the one of least energy.

    Returns:
        None with fewer than three different points on the front, or where it is nowhere
        `MIN_KNEE_DEPTH` below the line.

    Raises:
        ValueError: An energy is not above 0: it has no logarithm.
    Source: Satopaa et al., "Finding a 'Kneedle' in a haystack", ICDCS workshops 2011.
    """
    if any(kwh <= 0 for kwh, _ in points):
        raise ValueError("an energy must be above 0 kWh")
    front = pareto_front(points)
    if len({tuple(points[index]) for index in front}) < _LEAST_POINTS:
        return None
    (first_kwh, most), (last_kwh, least) = points[front[0]], points[front[-1]]
    width = math.log10(last_kwh) - math.log10(first_kwh)
    if width == 0:  # apart by less than a logarithm tells
        return None
    best: Knee | None = None
    for index in front:
        kwh, eer_percent = points[index]
        x = (math.log10(kwh) - math.log10(first_kwh)) / width
        y = (eer_percent - least) / (most - least)
        depth = 1 - x - y  # the line falls from (0, 1) to (1, 0)
        if best is None or depth > best.depth + _EQUAL:
            best = Knee(index, kwh, eer_percent, depth)
    return best if best is not None and best.depth >= MIN_KNEE_DEPTH else None
