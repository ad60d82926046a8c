"""What a lower EER costs along the Pareto front, and how sure front and knee are."""

from dataclasses import dataclass

import numpy as np

from sv.report.advice.candidates import Candidate, draw_energies
from sv.report.advice.front import find_knee, pareto_front
from sv.report.noise import subtract

TENTH = 0.1  # points of EER that a price is of
_PERCENTILES = (2.5, 97.5)  # 95 %, as all intervals of the report


@dataclass(frozen=True)
class Price:
    """What one step along the front costs: from ``cheaper`` to ``dearer``.

    ``gain`` is how many points of EER it brings. ``kwh_per_tenth`` is the energy of 0.1 points and
    None where ``reason`` says why there is no price. Intervals are 95 %.
    """

    cheaper: str
    dearer: str
    more_kwh: float
    gain: float
    gain_interval: tuple[float, float]
    kwh_per_tenth: float | None
    interval: tuple[float, float] | None
    reason: str


@dataclass(frozen=True)
class Certainty:
    """Shares of the replicates: each system on the front, and each system the knee.

    ``none`` is the share in which the front has no knee.
    """

    on_front: dict[str, float]
    knee: dict[str, float]
    none: float


def compute_certainty(candidates: tuple[Candidate, ...]) -> Certainty:
    """Find front and knee anew in every replicate, with energies drawn from their uncertainties."""
    eers = np.array([candidate.eer.replicates for candidate in candidates])
    energies = draw_energies(candidates)
    defined = ~np.isnan(eers).any(axis=0)
    names = [candidate.name for candidate in candidates]
    on_front, knees = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for place in np.flatnonzero(defined):
        points = list(zip(energies[:, place].tolist(), eers[:, place].tolist(), strict=True))
        for index in pareto_front(points):
            on_front[names[index]] += 1
        knee = find_knee(points)
        if knee is not None:
            knees[names[knee.index]] += 1
    count = int(defined.sum())
    return Certainty(
        {name: number / count for name, number in on_front.items()},
        {name: number / count for name, number in knees.items()},
        1 - sum(knees.values()) / count,
    )


def compute_prices(candidates: tuple[Candidate, ...], start: str) -> list[Price]:
    """Price the steps along the front from ``start`` to ever more energy.

    Where a step's gain is within noise it has no price, and the next step is priced from the same
    cheaper system: several small steps may together be a sure one.

    Args:
        candidates: Systems of the same draws.
        start: A system on the front.
    """
    front = [candidates[i] for i in pareto_front([(c.kwh, c.eer.value) for c in candidates])]
    drawn = dict(zip([c.name for c in candidates], draw_energies(candidates), strict=True))
    names = [candidate.name for candidate in front]
    prices, base = [], front[names.index(start)]
    for candidate in front[names.index(start) + 1 :]:
        if (candidate.kwh, candidate.eer.value) == (base.kwh, base.eer.value):
            continue  # the same in both: no step
        more = drawn[candidate.name] - drawn[base.name]
        price = _price(base, candidate, more)
        prices.append(price)
        if price.kwh_per_tenth is not None:
            base = candidate
    return prices


def _price(base: Candidate, candidate: Candidate, more_kwh: np.ndarray) -> Price:
    difference = subtract(base.eer, candidate.eer)
    assert difference is not None  # candidates are of the same draws
    gains = difference.replicates
    defined = ~np.isnan(gains)
    low, high = (float(end) for end in np.percentile(gains[defined], _PERCENTILES))
    more = candidate.kwh - base.kwh
    least, most = (float(end) for end in np.percentile(more_kwh, _PERCENTILES))
    kwh_per_tenth, interval, reason = None, None, ""
    if low <= 0 <= high:
        reason = "the gain is within noise"
    elif least <= 0 <= most:
        reason = "the energies do not differ beyond their uncertainties"
    else:
        kwh_per_tenth = TENTH * more / difference.value
        # Percentiles of gain a kWh, then inverted: a gain of 0 has no finite price.
        rates = gains[defined] / more_kwh[defined]
        worst, best = (float(end) for end in np.percentile(rates, _PERCENTILES))
        if worst > 0:
            interval = (TENTH / best, TENTH / worst)
        else:
            reason = "no upper end: in some replicates nothing is gained"
    return Price(
        base.name,
        candidate.name,
        more,
        difference.value,
        (low, high),
        kwh_per_tenth,
        interval,
        reason,
    )
