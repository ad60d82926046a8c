"""Which differences between systems mean anything: paired over the replicates of stage 7.

A replicate is the same draw of speakers for every system and list, so that a difference and a
mean over lists are taken replicate by replicate.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from sv.report.results import P_TARGET, System, find_score
from sv.score.bootstrap import Measured, subtract
from sv.score.record import ScoredList

MEASURES = ("eer_percent", "min_dcf")
K = TypeVar("K")


def find_measured(
    system: System, lists: tuple[str, ...], measure: str, precision: str = "fp32"
) -> Measured | None:
    """Return a measure (of `MEASURES`), the mean over ``lists``; None if one list lacks it."""
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


def find_best(measured: Mapping[str, Measured]) -> str | None:
    """Return the system with the lowest measure, None without any."""
    return min(measured, key=lambda name: measured[name].value, default=None)


def find_ties(measured: Mapping[K, Measured], best: K) -> set[K]:
    """Return those that are not ``best``, but within noise of it; none without its replicates."""
    if best not in measured:
        return set()
    found = measured.items()
    return {key for key, item in found if key != best and _tied(item, measured[best])}


def _tied(item: Measured, best: Measured) -> bool:
    difference = subtract(item, best)
    return difference is not None and difference.within_noise
