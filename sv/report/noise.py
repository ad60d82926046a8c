"""Which differences between systems mean anything: paired over the replicates of stage 7.

A replicate is the same draw of speakers for every system and list, so that a difference and a
mean over lists are taken replicate by replicate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sv.report.results import P_TARGET, System, find_score
from sv.score.record import ScoredList

_PERCENTILES = (2.5, 97.5)  # 95 %, as stage 7
_MAX_UNDEFINED = 0.01  # of the replicates, as stage 7
MEASURES = ("eer_percent", "min_dcf")
K = TypeVar("K")


@dataclass(frozen=True)
class Measured:
    """A measure of one system with its replicates, NaN where there is none.

    Those of two systems are paired where ``draws`` are the same. ``speakers`` is how many the
    list has; of several lists, the fewest.
    """

    value: float
    draws: tuple[tuple[str, int, int], ...]
    speakers: int
    replicates: np.ndarray

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None if too many replicates are undefined."""
        defined = self.replicates[~np.isnan(self.replicates)]
        if len(defined) < (1 - _MAX_UNDEFINED) * len(self.replicates) or not len(defined):
            return None
        low, high = np.percentile(defined, _PERCENTILES)
        return float(low), float(high)


def find_measured(
    system: System, lists: tuple[str, ...], measure: str, precision: str = "fp32"
) -> Measured | None:
    """Give a measure (of `MEASURES`) of a system, the mean over ``lists``; None if one lacks it."""
    found = [_measured(find_score(system, name, precision), measure) for name in lists]
    known = [item for item in found if item is not None]
    if not known or len(known) < len(found) or len({len(m.replicates) for m in known}) > 1:
        return None
    return Measured(
        value=float(np.mean([item.value for item in known])),
        draws=tuple(draw for item in known for draw in item.draws),
        speakers=min(item.speakers for item in known),
        replicates=np.mean([item.replicates for item in known], axis=0),
    )


def _measured(score: ScoredList | None, measure: str) -> Measured | None:
    if score is None or score.bootstrap is None:
        return None
    boot = score.bootstrap
    value, values = score.eer_percent, boot.eer_percent
    if measure == "min_dcf":
        cost, values = score.min_dcf.get(P_TARGET), boot.min_dcf.get(P_TARGET, ())
        if cost is None or not values:
            return None
        value = cost
    return Measured(value, (boot.draws,), boot.speakers, np.array(values, dtype=float))


def subtract(a: Measured, b: Measured) -> Measured | None:
    """Give how much higher A's measure is than B's; None if they are not of the same draws."""
    if a.draws != b.draws:
        return None
    return Measured(a.value - b.value, a.draws, a.speakers, a.replicates - b.replicates)


def compute_p_value(difference: Measured) -> float:
    """Give twice the share of replicates on the rarer side of 0, at least one of all and this."""
    defined = difference.replicates[~np.isnan(difference.replicates)]
    rarer = min(np.mean(defined <= 0), np.mean(defined >= 0))
    return float(min(1.0, 2 * max(rarer, 1 / (len(defined) + 1))))


def find_best(measured: Mapping[str, Measured]) -> str | None:
    """Give the system with the lowest measure, None without any."""
    return min(measured, key=lambda name: measured[name].value, default=None)


def find_ties(measured: Mapping[K, Measured], best: K) -> set[K]:
    """Give those that are not ``best``, but within noise of it; none without its replicates."""
    if best not in measured:
        return set()
    found = measured.items()
    return {key for key, item in found if key != best and _tied(item, measured[best])}


def _tied(item: Measured, best: Measured) -> bool:
    difference = subtract(item, best)
    interval = difference.interval if difference else None
    return interval is not None and interval[0] <= 0 <= interval[1]
