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
from dataclasses import dataclass, replace

import numpy as np

from sv.report.mixing import Difference, explain_arithmetic
from sv.report.noise import LEAST_SPEAKERS, find_measured, find_ties
from sv.report.published import Study
from sv.report.results import Results, Stage, System, compute_average, family_of
from sv.report.tables.cells import (
    BLANK,
    MARKS,
    Column,
    Note,
    Row,
    Table,
    choose_unit,
    choose_units,
    escape_markdown,
    figure_cell,
    format_markdown,
    format_significant,
    text_cell,
)
from sv.report.tables.evidence import (
    energy_marks,
    energy_notes,
    explain_energies,
    explain_incomplete,
    format_kwh,
)
from sv.score.bootstrap import Measured, compute_interval, subtract

_OFTEN = 0.05  # of the replicates: a system off the front is named from here
LEAST_SYSTEMS = 3
_LEAST_ON_FRONT = 2  # of a figure
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
    "the point of the front furthest below the straight line between its ends, by log10(kWh) and "
    "EER scaled to 0..1 (Kneedle: Satopaa et al., 2011)"
)


# The systems that may be weighed against each other.


@dataclass(frozen=True)
class Candidate:
    """A system with both figures, each with its replicates.

    ``eer`` is the average over all lists scored; the replicates of ``energy`` (kWh) are drawn from
    its uncertainty, with those of the EER.
    """

    name: str
    stage: Stage
    energy: Measured
    eer: Measured

    @property
    def point(self) -> tuple[float, float]:
        """The kWh and the EER."""
        return self.energy.value, self.eer.value


def find_candidates(results: Results) -> tuple[list[Candidate], list[str]]:
    """Choose the systems to weigh; return them, and the others with the reason."""
    found: list[Candidate] = []
    left_out = []
    for system in results.systems:
        candidate = _find_candidate(results, system)
        if isinstance(candidate, Candidate):
            found.append(candidate)
        else:
            left_out.append(f"{system.name} is not weighed: {candidate}.")
    draws = Counter(candidate.eer.draws for candidate in found)
    most = draws.most_common(1)[0][0] if draws else None
    alike = [candidate for candidate in found if candidate.eer.draws == most]
    left_out += [
        f"{candidate.name} is not weighed: not the same trials, seed or number of replicates as "
        f"{alike[0].name}."
        for candidate in found
        if candidate.eer.draws != most
    ]
    random = np.random.default_rng(_SEED)
    return [replace(c, energy=_draw_energy(c, random)) for c in alike], left_out


def _draw_energy(candidate: Candidate, random: np.random.Generator) -> Measured:
    """Draw replicates of an energy: normal, independent of the others.

    An energy whose uncertainty is not known stays as it is.
    """
    kwh = candidate.energy.value
    deviation = (candidate.stage.sidecar.uncertainty_kwh or 0.0) / _K
    drawn = kwh + deviation * random.standard_normal(len(candidate.eer.replicates))
    return replace(candidate.energy, replicates=np.maximum(drawn, _LEAST_SHARE * kwh))


def _find_candidate(results: Results, system: System) -> Candidate | str:
    """Return the candidate, or why there is none."""
    stage = system.training
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
    energy = replace(eer, value=stage.energy_kwh)  # of the same draws; `find_candidates` draws them
    return Candidate(system.name, stage, energy, eer)


def _find_obstacles(results: Results, found: list[Candidate]) -> list[str]:
    """Say why nothing may be advised: then the systems must not be compared."""
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
    """The knee: its place among the points, and its ``depth`` below the line."""

    index: int
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
    depths = {}
    for index in front:
        kwh, eer_percent = points[index]
        x = (math.log10(kwh) - math.log10(first_kwh)) / width
        y = (eer_percent - least) / (most - least)
        depths[index] = 1 - x - y  # the line falls from (0, 1) to (1, 0)
    deepest = max(depths.values())
    best = next(index for index in front if depths[index] >= deepest - _EQUAL)
    return Knee(best, depths[best]) if depths[best] >= MIN_KNEE_DEPTH else None


# The systems of a figure: whatever has an EER and a training energy, with replicates or without.


@dataclass(frozen=True)
class Training:
    """A system in a figure: its training, of known energy; without a ``stage`` a published one."""

    label: str
    family: str
    energy_kwh: float
    stage: Stage | None

    @property
    def is_whole(self) -> bool:
        """Whether the energy is of all of the training and undisputed, as far as is known."""
        return not (self.stage and explain_incomplete(self.stage))


@dataclass(frozen=True)
class Point(Training):
    """A system in the figure of accuracy; ``measured`` has the replicates of its EER, if any."""

    eer_percent: float
    measured: Measured | None

    @property
    def eer_interval(self) -> tuple[float, float] | None:
        """The 95 % interval over speakers, None where it is not known."""
        return self.measured.interval if self.measured else None


def collect_points(results: Results, lists: tuple[str, ...]) -> tuple[list[Point], list[str]]:
    """Return the systems to show, and a line for each of the others."""
    points, left_out = [], []
    for system in results.systems:
        average = compute_average(system, lists)
        training = find_training(system)
        if average.eer_percent is None or training is None:
            lacks = "no training energy" if average.eer_percent is not None else average.reason
            left_out.append(f"{system.name} is not shown: {lacks}")
            continue
        measured = find_measured(system, lists, "eer_percent")
        points.append(Point(*training, average.eer_percent, measured))
    return points, left_out


def find_training(system: System) -> tuple[str, str, float, Stage] | None:
    """Return the first fields of a `Training`; None without a known energy."""
    stage = system.training
    if stage is None or not stage.energy_kwh:
        return None
    mark = MARKS["incomplete"] if explain_incomplete(stage) else ""
    return system.name + mark, family_of(system.name), stage.energy_kwh, stage


def collect_published(study: Study) -> list[Point]:
    """Return the systems of a study's Table 1, by its averages."""
    points = []
    for row in study.trainings:
        eer, kwh = row.figures["eer_percent"], row.figures["energy_kwh"]
        if eer and kwh:
            points.append(Point(row.model, family_of(row.model), kwh.value, None, eer.value, None))
    return points


def choose_front(points: Sequence[Point]) -> tuple[list[int], int | None, str]:
    """Return the front and the knee, as indices of ``points``, and why there is no front.

    Only whole trainings can be on it, and only where their energies may be compared.
    """
    whole = [i for i, point in enumerate(points) if point.is_whole]
    obstacles = explain_energies([s for i in whole if (s := points[i].stage)])
    if obstacles:
        return [], None, f"no Pareto front: {'; '.join(obstacles)}"
    if len(whole) < _LEAST_ON_FRONT:
        return [], None, ""
    places = [(points[i].energy_kwh, points[i].eer_percent) for i in whole]
    knee = find_knee(places)
    return [whole[i] for i in pareto_front(places)], None if knee is None else whole[knee.index], ""


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


def compute_certainty(candidates: Sequence[Candidate]) -> tuple[dict[str, float], dict[str, float]]:
    """Find front and knee anew in every replicate.

    Returns:
        The share of replicates in which each system is on the front, and is the knee.
    """
    eers = np.array([candidate.eer.replicates for candidate in candidates])
    energies = np.array([candidate.energy.replicates for candidate in candidates])
    defined = np.flatnonzero(~np.isnan(eers).any(axis=0))
    on_front: Counter[int] = Counter()
    knees: Counter[int] = Counter()
    for place in defined:
        points = list(zip(energies[:, place].tolist(), eers[:, place].tolist(), strict=True))
        on_front.update(pareto_front(points))
        if knee := find_knee(points):
            knees[knee.index] += 1
    front_shares, knee_shares = (
        {candidate.name: counts[i] / len(defined) for i, candidate in enumerate(candidates)}
        for counts in (on_front, knees)
    )
    return front_shares, knee_shares


def compute_prices(front: Sequence[Candidate], start: Candidate) -> list[Price]:
    """Price the steps along the front from ``start``, which is on it, to ever more energy.

    Where a step's gain is within noise it has no price, and the next step is priced from the same
    cheaper system: several small steps may together be a sure one.
    """
    prices, base = [], start
    for candidate in front[front.index(start) + 1 :]:
        if candidate.point == base.point:
            continue  # the same in both: no step
        prices.append(_price(base, candidate))
        if prices[-1].kwh_per_tenth is not None:
            base = candidate
    return prices


def _price(base: Candidate, candidate: Candidate) -> Price:
    gain, more = subtract(base.eer, candidate.eer), subtract(candidate.energy, base.energy)
    assert gain and more and gain.interval  # candidates are of the same draws, and defined
    kwh_per_tenth, interval, reason = None, None, ""
    if gain.within_noise:
        reason = "the gain is within noise"
    elif more.within_noise:
        reason = "the energies do not differ beyond their uncertainties"
    else:
        kwh_per_tenth = TENTH * more.value / gain.value
        # Percentiles of gain a kWh, then inverted: a gain of 0 has no finite price.
        rates = compute_interval(gain.replicates / more.replicates)
        if rates and rates[0] > 0:
            interval = (TENTH / rates[1], TENTH / rates[0])
        else:
            reason = "no upper end: in some replicates nothing is gained"
    steps = (base.name, candidate.name, more.value, gain.value, gain.interval)
    return Price(*steps, kwh_per_tenth, interval, reason)


# What is said of it.


@dataclass(frozen=True)
class Advice:
    """Sentences without markup; ``withheld`` says on what there is no advice, and why.

    ``choice`` is the one about the least energy that is as good as the best, and not in ``lines``.
    ``table`` has the systems on the Pareto front by rising energy, with what each step costs.
    ``front`` are their names, ``knee`` is one of them; ``on_front`` is the share of replicates in
    which each system weighed is on the front.
    """

    lines: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    choice: str = ""
    table: Table | None = None
    front: tuple[str, ...] = ()
    knee: str | None = None
    prices: tuple[Price, ...] = ()
    on_front: tuple[tuple[str, float], ...] = ()


def build_advice(results: Results, differences: Sequence[Difference] = ()) -> Advice:
    """Draw advice from the results; what they cannot carry is withheld with the reason.

    With ``differences``, see `sv.report.mixing.find_differences`, they carry none.
    """
    if differences:
        unlike = [
            f"No advice on systems of different settings: {d.describe()}" for d in differences
        ]
        return Advice(withheld=tuple(f"{line}." for line in unlike))
    systems, left_out = find_candidates(results)
    if obstacles := _find_obstacles(results, systems):
        reasons = [f"No advice on training: {reason}." for reason in obstacles]
        return Advice(withheld=(*reasons, *left_out))
    points = [system.point for system in systems]
    front = [systems[index] for index in pareto_front(points)]
    found = find_knee(points)
    knee = None if found is None else systems[found.index]
    on_front, knees = compute_certainty(systems)
    prices = compute_prices(front, front[0])
    table = _build_front_table(front, on_front, prices)
    near = _list_often(on_front, {candidate.name for candidate in front})
    lines = [
        _describe_basis(results, systems),
        *([_describe_knee(knee, knees)] if knee else []),
        *([f"Off the front, but on it in some replicates: {near}."] if near else []),
        "Intervals and shares tell of other speakers, not of another training of the same "
        "network, and are not corrected for choosing among many systems; every energy is of one "
        "run.",
        *explain_arithmetic(results),
    ]
    no_knee = f"No advice on a knee: the front has none, {KNEE_METHOD}"
    no_knee += f", which takes {_LEAST_POINTS} points and a depth of {MIN_KNEE_DEPTH}."
    return Advice(
        lines=tuple(lines),
        withheld=tuple(left_out) if knee else (no_knee, *left_out),
        choice=_describe_choice(systems),
        table=table,
        front=tuple(candidate.name for candidate in front),
        knee=knee.name if knee else None,
        prices=tuple(prices),
        on_front=tuple(on_front.items()),
    )


def format_advice(advice: Advice) -> str:
    """Format as Markdown: the advice, then what is withheld."""
    parts = [["# Advice from these results"]]
    if advice.lines:
        lines = (advice.choice, *advice.lines)
        parts.append([f"- {escape_markdown(line)}" for line in lines])
    if advice.table:
        parts.append(["#" + format_markdown(advice.table).rstrip()[2:]])
    if advice.withheld:
        parts += [["## No advice"], [f"- {escape_markdown(line)}" for line in advice.withheld]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _describe_basis(results: Results, candidates: Sequence[Candidate]) -> str:
    lists = ", ".join(results.scored)
    what = f"EER is of {lists}" if len(results.scored) == 1 else f"EER is the average of {lists}"
    stages = [candidate.stage for candidate in candidates]
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


def _describe(candidate: Candidate) -> str:
    kwh, eer_percent = candidate.point
    return f"{candidate.name} ({eer_percent:.2f} %, {format_kwh(kwh)})"


def _list_often(shares: dict[str, float], names: set[str]) -> str:
    """List the systems that are not of ``names`` and have a share to speak of."""
    others = {name: share for name, share in shares.items() if name not in names}
    return ", ".join(f"{n} ({_percent(s)})" for n, s in others.items() if s >= _OFTEN)


def _build_front_table(
    front: Sequence[Candidate], on_front: dict[str, float], prices: Sequence[Price]
) -> Table:
    """Build the table of the front: each system, and the price of the step to it."""
    step = "Step to it"
    columns = (
        Column("system", "System", numeric=False),
        Column("energy_kwh", "Energy (kWh)", marked=True, unit="kWh"),
        Column("eer_percent", "EER (%)"),
        Column("on_front", "On the front (% of replicates)"),
        Column("from", "from", step, numeric=False),
        Column("more_kwh", "more energy (kWh)", step, unit="kWh"),
        Column("gain", "less EER (points)", step),
        Column("gain_interval", "95 %", step),
        Column("tenth_kwh", "0.1 points cost (kWh)", step, unit="kWh"),
        Column("tenth_interval", "95 %", step),
    )
    by_system = {price.dearer: price for price in prices}
    priced = [p.kwh_per_tenth for p in prices if p.kwh_per_tenth is not None]
    unit, factor = choose_unit([candidate.energy.value for candidate in front] + priced, "kWh")
    rows = []
    for candidate in front:
        kwh, eer_percent = candidate.point
        cells = {
            "system": text_cell(candidate.name),
            "energy_kwh": figure_cell(kwh, format_significant, marks=energy_marks(candidate.stage)),
            "eer_percent": figure_cell(eer_percent, ".2f"),
            "on_front": figure_cell(100 * on_front[candidate.name], ".0f"),
            **dict.fromkeys((column.key for column in columns[4:]), BLANK),
        }
        if price := by_system.get(candidate.name):
            gain = " to ".join(f"{end:.3f}" for end in price.gain_interval)
            tenth = "-"
            if price.interval:
                tenth = " to ".join(format_significant(factor * end) for end in price.interval)
            cells |= {
                "from": text_cell(price.cheaper),
                "more_kwh": figure_cell(price.more_kwh, format_significant),
                "gain": figure_cell(price.gain, ".3f"),
                "gain_interval": text_cell(gain),
                "tenth_kwh": figure_cell(price.kwh_per_tenth, format_significant, price.reason),
                "tenth_interval": text_cell(tenth),
            }
        rows.append(Row(candidate.name, cells, stage=candidate.stage))
    notes = (
        Note("On the Pareto front no other system has less energy and a lower EER."),
        Note("A step within noise has no price; the next is priced from the same system."),
        *(note for note in energy_notes(rows) if note.mark),
    )
    columns = choose_units(columns, rows)
    return Table("front", "The Pareto front, and what each step along it costs", columns,
                 tuple(rows), notes)  # fmt: skip


def _describe_knee(knee: Candidate, shares: dict[str, float]) -> str:
    text = f"The knee is {_describe(knee)}, in {_percent(shares[knee.name])} of the replicates"
    if others := _list_often(shares, {knee.name}):
        text += f", else {others}"
    return f"{text}."


def _describe_choice(systems: Sequence[Candidate]) -> str:
    """Name the least energy that is as good as the best, within noise."""
    best = min(systems, key=lambda candidate: (candidate.eer.value, candidate.energy.value))
    ties = find_ties({candidate.name: candidate.eer for candidate in systems}, best.name)
    as_good = [candidate for candidate in systems if candidate.name in ties]
    least = min([best, *as_good], key=lambda candidate: candidate.energy.value)
    if least is best:
        return f"No system of less energy is within noise of {_describe(best)}, the lowest EER."
    ratio = format_significant(least.energy.value / best.energy.value, 2)
    others = [candidate.name for candidate in as_good if candidate is not least]
    text = (
        f"{_describe(least)} is within noise of {_describe(best)}, the lowest EER, for {ratio} "
        "times the energy"
    )
    return f"{text}; so are {', '.join(others)}." if others else f"{text}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
