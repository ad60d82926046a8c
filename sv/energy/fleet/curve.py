"""Energy that grows over a machine's time, as one or several meters saw it."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sv.energy.events import read_curve


@dataclass(frozen=True)
class Curve:
    """A figure that only grows, at moments of one machine's clock (CLOCK_BOOTTIME).

    Attributes:
        t_s: Moments, rising.
        value: The figure so far at each (joules, or seconds); flat before the first and after the
            last.
        covered_s: Time in which somebody read it; a gap between two meters is flat, not covered.
    """

    t_s: array
    value: array
    covered_s: float

    def read(self, at_s: float) -> float:
        """Give the figure so far at a moment, evenly between two points."""
        return read_curve(self.value, self.t_s, at_s) or 0.0

    @property
    def last(self) -> float:
        """The whole figure."""
        return self.value[-1] if self.value else 0.0


def make_curve(t_s: Sequence[float], value: Sequence[float]) -> Curve:
    """Make a curve of one meter's points, beginning at 0."""
    first = value[0] if len(value) else 0.0
    covered_s = t_s[-1] - t_s[0] if len(t_s) else 0.0
    return Curve(array("d", t_s), array("d", (v - first for v in value)), covered_s)


def join_curves(curves: Sequence[Curve]) -> Curve:
    """Join what several meters read of the same counter; each moment counts once.

    In a time that several cover, the curve of the one that began first holds until its end. The
    values at the borders are interpolated.
    """
    t_s, value, covered_s = array("d"), array("d"), 0.0
    for curve in sorted((c for c in curves if c.t_s), key=lambda c: c.t_s[0]):
        begin_s = curve.t_s[0]
        if not t_s or begin_s > t_s[-1]:
            t_s.append(begin_s)
            value.append(value[-1] if value else 0.0)
        begin_s = t_s[-1]
        offset = value[-1] - curve.read(begin_s)
        first = bisect_right(curve.t_s, begin_s)
        t_s.extend(curve.t_s[first:])
        value.extend(v + offset for v in curve.value[first:])
        covered_s += t_s[-1] - begin_s
    return Curve(t_s, value, covered_s)
