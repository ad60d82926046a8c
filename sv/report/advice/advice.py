"""What the data say about choosing a system, with uncertainty; and on what they say nothing.

The advice is the study's, drawn from the results at hand: the systems on the Pareto front of EER
and training energy, the knee, what the next 0.1 points cost, the least energy that is as good as
the best within noise. What a lower precision saves is in Table 2.
"""

from dataclasses import dataclass

from sv.report.advice.candidates import Candidate, Candidates, find_candidates
from sv.report.advice.front import KNEE_METHOD, find_knee, pareto_front
from sv.report.advice.prices import Certainty, Price, compute_certainty, compute_prices
from sv.report.noise import find_ties
from sv.report.results import Results, Stage
from sv.report.tables.cells import format_significant
from sv.report.tables.evidence import energy_marks

_OFTEN = 0.05  # of the replicates: a system off the front is named from here


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
