"""What the data say about choosing a system, with uncertainty; and on what they say nothing.

The advice is the study's, drawn from the results at hand: the systems on the Pareto front of EER
and training energy, the knee, what the next 0.1 points cost, and the least energy that is as good
as the best within noise. What a lower precision saves is in Table 2.

A system takes part with an average EER that has replicates and the energy of a complete training.
All EERs are of the same draws of speakers and all energies of the same parts of the machines.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sv.report.noise import LEAST_SPEAKERS, find_measured, find_ties
from sv.report.results import TRAIN_STAGE, Results, Stage, System, compute_average, find_stage
from sv.report.tables.cells import format_significant
from sv.report.tables.evidence import energy_marks, explain_energies, explain_incomplete
from sv.score.bootstrap import PERCENTILES, Measured, subtract

_OFTEN = 0.05  # of the replicates: a system off the front is named from here
LEAST_SYSTEMS = 3
_K = 2  # of uncertainty_kwh, as the sidecars give it
_SEED = 0
_LEAST_SHARE = 0.01  # of an energy: what a draw of a wide uncertainty is never below
TENTH = 0.1  # points of EER that a price is of

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


# The systems that may be weighed against each other.


@dataclass(frozen=True)
class Candidate:
    """A system with both figures; ``eer`` is the average over all lists scored, with replicates."""

    name: str
    stage: Stage
    kwh: float
    eer: Measured


@dataclass(frozen=True)
class Candidates:
    """The systems to weigh; ``left_out`` are the others with the reason.

    ``blocked`` says why nothing may be said of any; then the systems must not be compared.
    """

    systems: tuple[Candidate, ...]
    left_out: tuple[str, ...]
    blocked: tuple[str, ...]


def find_candidates(results: Results) -> Candidates:
    """Choose the systems that advice may weigh."""
    found: list[Candidate] = []
    left_out = []
    for system in results.systems:
        candidate = _find_candidate(results, system)
        if isinstance(candidate, Candidate):
            found.append(candidate)
        else:
            left_out.append(f"{system.name} is not weighed: {candidate}")
    draws = Counter(candidate.eer.draws for candidate in found)
    if len(draws) > 1:
        most = draws.most_common(1)[0][0]
        others = [candidate for candidate in found if candidate.eer.draws != most]
        found = [candidate for candidate in found if candidate.eer.draws == most]
        for candidate in others:
            reason = f"not the same trials, seed or number of replicates as {found[0].name}"
            left_out.append(f"{candidate.name} is not weighed: {reason}")
    return Candidates(tuple(found), tuple(left_out), tuple(_find_obstacles(results, found)))


def draw_energies(candidates: tuple[Candidate, ...]) -> np.ndarray:
    """Draw energies from their uncertainties, (systems, replicates) kWh.

    Normal and independent of each other; an energy whose uncertainty is not known stays as it is.
    """
    random = np.random.default_rng(_SEED)
    count = len(candidates[0].eer.replicates)
    rows = []
    for candidate in candidates:
        deviation = (candidate.stage.sidecar.uncertainty_kwh or 0.0) / _K
        drawn = candidate.kwh + deviation * random.standard_normal(count)
        rows.append(np.maximum(drawn, _LEAST_SHARE * candidate.kwh))
    return np.array(rows)


def _find_candidate(results: Results, system: System) -> Candidate | str:
    """Return the candidate, or why there is none."""
    stage = find_stage(system, TRAIN_STAGE, "train")
    if stage is None:
        return "no energy of its training"
    if reason := explain_incomplete(stage):
        return reason
    average = compute_average(system, results.scored)
    if average.eer_percent is None:
        return average.reason
    eer = find_measured(system, results.scored, "eer_percent")
    if eer is None:
        return "no replicates of its EER on every list (stage 7 writes them)"
    assert stage.energy_kwh is not None  # or it was incomplete
    return Candidate(system.name, stage, stage.energy_kwh, eer)


def _find_obstacles(results: Results, found: list[Candidate]) -> list[str]:
    reasons = []
    if len(found) < LEAST_SYSTEMS:
        reasons.append(
            f"{len(found)} of {len(results.systems)} systems have an EER with replicates and the "
            f"energy of a complete training, {LEAST_SYSTEMS} are needed"
        )
    reasons += explain_energies([candidate.stage for candidate in found])
    speakers = min((candidate.eer.speakers for candidate in found), default=None)
    if speakers is not None and speakers < LEAST_SPEAKERS:
        reasons.append(
            f"{speakers} speakers in a test list are too few, {LEAST_SPEAKERS} are needed"
        )
    elif any(candidate.eer.interval is None for candidate in found):
        reasons.append("replicates lack a kind of trials: the speakers are too few")
    return reasons


# The Pareto front of accuracy against energy, and its knee; on numbers alone. A point is (kWh, EER
# in %); less is better in both.


@dataclass(frozen=True)
class Knee:
    """The knee: its place among the points, its figures, and its ``depth`` below the line."""

    index: int
    kwh: float
    eer_percent: float
    depth: float


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other beats: none is as good in both figures and better in one.

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


# What a lower EER costs along the front, and how sure front and knee are.


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
    low, high = (float(end) for end in np.percentile(gains[defined], PERCENTILES))
    more = candidate.kwh - base.kwh
    least, most = (float(end) for end in np.percentile(more_kwh, PERCENTILES))
    kwh_per_tenth, interval, reason = None, None, ""
    if low <= 0 <= high:
        reason = "the gain is within noise"
    elif least <= 0 <= most:
        reason = "the energies do not differ beyond their uncertainties"
    else:
        kwh_per_tenth = TENTH * more / difference.value
        # Percentiles of gain a kWh, then inverted: a gain of 0 has no finite price.
        rates = gains[defined] / more_kwh[defined]
        worst, best = (float(end) for end in np.percentile(rates, PERCENTILES))
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


# What is said of it.


@dataclass(frozen=True)
class Advice:
    """Sentences without markup; ``withheld`` says on what there is no advice, and why.

    ``front`` are the systems on the Pareto front by rising energy, ``knee`` is one of them;
    ``on_front`` is the share of replicates in which each system weighed is on the front.
    """

    lines: tuple[str, ...]
    withheld: tuple[str, ...]
    front: tuple[str, ...]
    knee: str | None
    prices: tuple[Price, ...] = ()
    on_front: tuple[tuple[str, float], ...] = ()


def build_advice(results: Results) -> Advice:
    """Draw advice from the results; what they cannot carry is withheld with the reason."""
    candidates = find_candidates(results)
    if candidates.blocked:
        reasons = [f"No advice on training: {reason}." for reason in candidates.blocked]
        reasons += [f"{reason}." for reason in candidates.left_out]
        return Advice((), tuple(reasons), (), None)
    systems = candidates.systems
    points = [(candidate.kwh, candidate.eer.value) for candidate in systems]
    front = tuple(systems[index] for index in pareto_front(points))
    found = find_knee(points)
    knee = None if found is None else systems[found.index]
    certainty = compute_certainty(systems)
    prices = compute_prices(systems, (knee or front[0]).name)
    lines = [
        _describe_basis(results, candidates),
        _describe_front(front, certainty),
        *([_describe_knee(knee, certainty)] if knee else []),
        *(_describe_price(price) for price in prices),
        _describe_choice(systems),
        "Intervals and shares tell of other speakers, not of another training of the same "
        "network, and are not corrected for choosing among many systems; every energy is of one "
        "run.",
    ]
    no_knee = [] if knee else [f"No advice on a knee: the front has none; {KNEE_METHOD}."]
    withheld = [
        *no_knee,
        *(f"{reason}." for reason in candidates.left_out),
    ]
    return Advice(
        lines=tuple(lines),
        withheld=tuple(withheld),
        front=tuple(candidate.name for candidate in front),
        knee=knee.name if knee else None,
        prices=tuple(prices),
        on_front=tuple((c.name, certainty.on_front[c.name]) for c in systems),
    )


def format_advice(advice: Advice) -> str:
    """Format as Markdown: the advice, then what is withheld."""
    parts = [["# Advice from these results"]]
    if advice.lines:
        parts.append([f"- {line}" for line in advice.lines])
    if advice.withheld:
        parts += [["## No advice"], [f"- {line}" for line in advice.withheld]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _describe_basis(results: Results, candidates: Candidates) -> str:
    lists = ", ".join(results.scored)
    what = f"EER is of {lists}" if len(results.scored) == 1 else f"EER is the average of {lists}"
    stages = [candidate.stage for candidate in candidates.systems]
    hosts = {stage.sidecar.host for stage in stages}
    other = f", on {len(hosts)} hosts that must be alike to compare" if len(hosts) > 1 else ""
    unknown = sum(stage.sidecar.uncertainty_kwh is None for stage in stages)
    spread = "their uncertainties are in all shares and prices"
    if unknown:
        spread = f"the uncertainty of {unknown} energies is not known and counts as none"
    return (
        f"{len(stages)} systems are weighed: {what}, energy that of training, {_quality(stages)}"
        f"{other}; {spread}."
    )


def _quality(stages: list[Stage]) -> str:
    """Say in a word whether energies were measured; an estimate is called one."""
    marks = {mark for stage in stages for mark in energy_marks(stage)}
    if not marks:
        return "measured"
    if "unknown_share" in marks:
        return "of which it is not known what was measured"
    return "estimated" if marks == {"estimated"} else "partly estimated"


def _describe_front(front: tuple[Candidate, ...], certainty: Certainty) -> str:
    names = {candidate.name for candidate in front}
    parts = [f"{_figures(c)}, {_percent(certainty.on_front[c.name])}" for c in front]
    text = "On the Pareto front, where no other system has less energy and a lower EER (energy, "
    text += "EER, share of replicates): " + "; ".join(_bracket(part) for part in parts)
    near = {n: s for n, s in certainty.on_front.items() if n not in names and s >= _OFTEN}
    if near:
        others = ", ".join(f"{name} ({_percent(share)})" for name, share in near.items())
        text += f". Off the front, but on it in some replicates: {others}"
    return f"{text}."


def _figures(candidate: Candidate) -> str:
    return f"{candidate.name} {format_significant(candidate.kwh)} kWh, {candidate.eer.value:.2f} %"


def _bracket(part: str) -> str:
    name, _, figures = part.partition(" ")
    return f"{name} ({figures})"


def _describe_knee(knee: Candidate, certainty: Certainty) -> str:
    others = {n: s for n, s in certainty.knee.items() if n != knee.name and s >= _OFTEN}
    text = f"The knee is {_bracket(_figures(knee))}, in {_percent(certainty.knee[knee.name])} of "
    text += "the replicates"
    if others:
        text += ", else " + ", ".join(f"{n} ({_percent(s)})" for n, s in others.items())
    return f"{text}; {KNEE_METHOD}."


def _describe_price(price: Price) -> str:
    low, high = price.gain_interval
    text = (
        f"From {price.cheaper} to {price.dearer}: {format_significant(price.more_kwh)} kWh more "
        f"for {price.gain:.3f} points of EER (95 %: {low:.3f} to {high:.3f})"
    )
    if price.kwh_per_tenth is None:
        return f"{text}; {price.reason}, so there is no price."
    cost = f"0.1 points cost {format_significant(price.kwh_per_tenth)} kWh"
    if price.interval is None:
        return f"{text}; {cost} ({price.reason})."
    ends = " to ".join(format_significant(end) for end in price.interval)
    return f"{text}; {cost} (95 %: {ends})."


def _describe_choice(systems: tuple[Candidate, ...]) -> str:
    """Name the least energy that is as good as the best, within noise."""
    best = min(systems, key=lambda candidate: (candidate.eer.value, candidate.kwh))
    ties = find_ties({candidate.name: candidate.eer for candidate in systems}, best.name)
    text = f"The lowest EER has {_bracket(_figures(best))}"
    as_good = [candidate for candidate in systems if candidate.name in ties]
    cheaper = [candidate for candidate in as_good if candidate.kwh < best.kwh]
    if not cheaper:
        return f"{text}; no system of less energy is within noise of it."
    least = min(cheaper, key=lambda candidate: candidate.kwh)
    names = ", ".join(candidate.name for candidate in as_good)
    ratio = format_significant(least.kwh / best.kwh, 2)
    return (
        f"{text}; within noise of it: {names}; the least energy of these has "
        f"{_bracket(_figures(least))}, {ratio} times that of the best, and is to be preferred."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
