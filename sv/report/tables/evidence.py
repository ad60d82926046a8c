"""How good an energy figure is: its cell, its marks, and the notes that explain them.

Cells, marks and notes come from the sidecar alone; a table cannot call a figure measured that its
sidecar does not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from sv.energy.carbon import join_carbon, note_pues
from sv.energy.record import Carbon, Channel, Sidecar
from sv.energy.sidecar import explain_run
from sv.energy.units import j_from_kwh
from sv.report.results import Results, Stage
from sv.report.tables.cells import (
    MARKS,
    UNKNOWN,
    Cell,
    Column,
    Note,
    Row,
    choose_unit,
    fact_cell,
    figure_cell,
    format_duration,
    format_significant,
    unknown_cell,
)

MEASURES = {"eer_percent": "EER (%)", "min_dcf": "minDCF"}
ENERGY_COLUMNS = (
    Column("energy_kwh", "Energy (kWh)", marked=True, unit="kWh"),
    Column("co2_kg", "CO2 (kg)", marked=True, unit="kg"),
)
TRIED = ("energy_all_kwh", "co2_all_kg")  # columns of every attempt, not of the run alone
WHOLE = 1e-6  # of an energy: less is rounding of a sum of channels


def _list_hosts(sidecar: Sidecar) -> str:
    several = [attempt.meters for attempt in sidecar.run if len(attempt.meters) > 1]
    hosts = [sidecar.host, *(meter.host for meters in several for meter in meters if meter.host)]
    return " ".join(dict.fromkeys(hosts)).strip()


# What a CSV row says about its energy beyond the printed columns.
_PROVENANCE: dict[str, Callable[[Sidecar], Any]] = {
    "status": attrgetter("status"),
    "measured_fraction": attrgetter("measured_fraction"),
    "energy_all_kwh": attrgetter("energy_all_kwh"),
    "attempts": lambda s: len(s.attempts),
    "kinds": lambda s: " ".join(dict.fromkeys(c.kind for c in s.channels if c.in_total)),
    "boundary": lambda s: " ".join(sorted({c.boundary for c in s.channels if c.in_total})),
    "attribution": attrgetter("attribution.rule"),
    "energy_node_kwh": attrgetter("energy_node_kwh"),
    "uncertainty_kwh": attrgetter("uncertainty_kwh"),
    "host": _list_hosts,
    "started_utc": attrgetter("started_utc"),
    "pue": attrgetter("pue.value"),
    "g_per_kwh": attrgetter("carbon.g_per_kwh"),
    "carbon_provider": attrgetter("carbon.provider"),
    "carbon_zone": attrgetter("carbon.zone"),
    "carbon_year": lambda s: "" if s.carbon.year is None else str(s.carbon.year),
    "carbon_vintage": attrgetter("carbon.vintage"),
    "carbon_scope": attrgetter("carbon.scope"),
    "carbon_basis": attrgetter("carbon.basis"),
}
PROVENANCE_COLUMNS = tuple(Column(key, key, csv_only=True) for key in _PROVENANCE)


# Cells.


def stage_cells(stage: Stage | None, absent: str = "") -> dict[str, Cell]:
    """Return the cells of a stage's energy_kwh, co2_kg and duration_s, of the run that counts.

    The CO2 is at most as good as the energy that it is computed from, and has its marks too.

    Args:
        stage: None where there is no sidecar.
        absent: Why there is none.
    """
    if stage is None:
        return dict.fromkeys(("energy_kwh", "co2_kg", "duration_s"), unknown_cell(absent))
    sidecar = stage.sidecar
    no_co2 = f"no CO2: {sidecar.carbon.reason or 'no grid factor in the sidecar'}"
    reason = ""
    if stage.energy_kwh is None:
        reasons = [f"{c.id}: {c.reason}" for c in sidecar.channels if c.reason]
        reason = sidecar.reason or "; ".join(reasons) or "no channel could be read"
        reason = no_co2 = f"{stage.path.name} has no energy ({reason})"
    figures = {
        "energy_kwh": (stage.energy_kwh, reason, energy_marks(stage)),
        "co2_kg": (stage.co2_kg, no_co2, co2_marks(stage)),
    }
    return {
        key: figure_cell(value, format_significant, why, marks, stage.path)
        for key, (value, why, marks) in figures.items()
    } | {"duration_s": figure_cell(sidecar.duration_s, format_duration)}


def provenance_cells(stage: Stage | None) -> dict[str, Cell]:
    """Return the cells of `PROVENANCE_COLUMNS`."""
    return {key: fact_cell(stage and take(stage.sidecar)) for key, take in _PROVENANCE.items()}


def backend_column(results: Results) -> Column:
    """Return the column of a row's backend, which is printed where there are several."""
    return Column("backend", "Backend", numeric=False, csv_only=len(results.backends) == 1)


def describe_scores(results: Results) -> str:
    """Say whose scores the measures are of."""
    only = f"{results.backends[0]} scores"
    return only if len(results.backends) == 1 else "the scores of each row's backend"


def remark_notes(results: Results) -> list[Note]:
    """Return what stands below every table that has scores: what is to be known of the corpora."""
    return [Note(f"{trials or 'All lists'}: {text}.") for trials, text in results.remarks]


# Everything that was tried.


def show_tried(stage: Stage) -> Stage:
    """Return a stage with the energy and CO2 of every attempt, and how good these are.

    Attempts that came to nothing are no part of the run whose quality the sidecar states.
    """
    sidecar = stage.sidecar
    known = [attempt for attempt in sidecar.attempts if attempt.energy_kwh]
    shares = [attempt.measured_fraction for attempt in known]
    share = None
    if known and None not in shares:
        measured = sum(a.energy_kwh * part for a, part in zip(known, shares, strict=True))
        share = measured / sum(attempt.energy_kwh for attempt in known)
    energy_kwh = sidecar.energy_all_kwh
    if stage.recorded_carbon:  # the attempts have their grams at another factor
        carbon = note_pues(sidecar.carbon, (attempt.pue.value for attempt in known))
        if sidecar.co2_all_g is None:
            carbon = replace(carbon, reason="that factor is not known of every attempt")
    else:
        energy_j = None if energy_kwh is None else j_from_kwh(energy_kwh)
        carbon = join_carbon([attempt.carbon for attempt in sidecar.attempts], energy_j)
    others = [a for a in sidecar.attempts if a.attempt not in sidecar.run_attempts]
    tried = replace(
        sidecar,
        status="complete",  # what failed was tried all the same
        energy_kwh=energy_kwh,
        measured_fraction=share,
        reason=explain_run(sidecar.attempts),
        co2_g=sidecar.co2_all_g,
        carbon=carbon,
        channels=(*sidecar.channels, *(channel for a in others for channel in a.channels)),
    )
    return replace(stage, sidecar=tried)


# How good a figure is, in words.


def rate_share(share: float | None) -> str:
    """Return what the measured share of an energy makes it: its mark, or ``measured``."""
    if share is None:
        return "unknown_share"
    if share > 1 - WHOLE:
        return "measured"
    return "estimated" if share < WHOLE else "partly_estimated"


def describe_share(share: float | None) -> str:
    """Return what the measured share of an energy means in words."""
    rate = rate_share(share)
    if rate == "partly_estimated":
        return f"partly estimated ({format_significant(100 * (1 - (share or 0)), 2)} %)"
    return "not known whether measured" if rate == "unknown_share" else rate


def describe_quality(stage: Stage) -> str:
    """Return in words whether an energy was measured or estimated, and what holds it back."""
    if stage.energy_kwh is None:
        return "not known"
    words = describe_share(stage.sidecar.measured_fraction)
    return f"{words}, incomplete or disputed" if "incomplete" in energy_marks(stage) else words


def describe_energy(stage: Stage) -> str:
    """Return the energy of a stage with uncertainty and quality: an estimate is called one."""
    text = format_kwh(stage.energy_kwh)
    uncertainty_kwh = stage.sidecar.uncertainty_kwh
    if stage.energy_kwh is not None and uncertainty_kwh is not None:
        text += f" ± {format_kwh(uncertainty_kwh)} (k = 2)"
    return f"{text}, {describe_quality(stage)}"


def format_kwh(value: float | None) -> str:
    """Format kWh, in Wh or mWh where these are few; a negative energy keeps its sign."""
    if value is None:
        return UNKNOWN
    unit, factor = choose_unit([value], "kWh")
    return f"{'-' if value < 0 else ''}{format_significant(factor * abs(value))} {unit}"


def describe_eer(eer_percent: float, interval: tuple[float, float] | None) -> str:
    """Return an EER with its 95 % interval, where there is one."""
    text = f"EER {eer_percent:.2f} %"
    return text if interval is None else f"{text} (95 %: {interval[0]:.2f} to {interval[1]:.2f})"


# Marks, and what explains them.


def energy_marks(stage: Stage) -> tuple[str, ...]:
    """Return the marks of a stage's energy."""
    marks = {rate_share(stage.sidecar.measured_fraction)}
    if stage.sidecar.status != "complete" or stage.sidecar.reason:
        marks.add("incomplete")
    return tuple(mark for mark in MARKS if mark in marks)


def co2_marks(stage: Stage) -> tuple[str, ...]:
    """Return the marks of a stage's CO2: those of its energy, and of what its factors lack."""
    marks = {*energy_marks(stage)}
    if _doubt_co2(stage):
        marks.add("incomplete")
    return tuple(mark for mark in MARKS if mark in marks)


def _doubt_co2(stage: Stage) -> str:
    """Say what a known CO2 lacks, or adds that is not alike; empty: nothing."""
    carbon = stage.sidecar.carbon
    return f"CO2: {carbon.reason}" if stage.co2_kg is not None and carbon.reason else ""


def energy_notes(rows: Iterable[Row], *, sources: bool = False) -> list[Note]:
    """Explain the energy figures of a table: marks, boundary, PUE, carbon factor.

    Of rows that sum others only the marks are explained. ``sources``: say too what each estimate
    was computed from. That is long: one table says it for all.
    """
    shown = [row for row in rows if row.stage and row.stage.energy_kwh is not None]
    known = [(row.label, row.stage) for row in shown if not (row.is_total or row.folds)]
    if not known:
        return []
    shown.sort(key=lambda row: row.is_total or row.folds)  # sums are named last
    notes = []
    for mark, (text, several, describe) in _MARK_TEXTS.items():
        groups = _group(_list_marked(shown, mark, describe), describe)
        if len(groups) > 1:
            rows = [f"{what}: {list_some(labels)}" for what, labels in groups.items()]
            notes.append(Note(f"{text.format(several)}: {'; '.join(rows)}", mark))
        elif groups:
            notes.append(Note(text.format(*groups), mark))
    found = filter(None, _group(known, _describe_sources)) if sources else ()
    notes += [Note(f"Estimates of {text}.") for text in found]
    notes.append(
        _compare("Energy covers", "Energy covers different parts", known, describe_boundaries)
    )
    with_co2 = [(label, stage) for label, stage in known if stage.sidecar.co2_g is not None]
    if with_co2:
        notes.append(_compare("CO2 factor:", "CO2 factors differ", with_co2, describe_factor))
    recorded = [describe_carbon(s.recorded_carbon) for _, s in with_co2 if s.recorded_carbon]
    if recorded:
        text = (
            f"CO2 is computed anew at that factor, instead of the recorded {list_some(recorded)}."
        )
        notes.append(Note(text))
    return [*notes, _compare("PUE:", "PUEs differ", known, describe_pue)]


def _list_marked(
    rows: Iterable[Row], mark: str, describe: Callable[[Stage], str]
) -> list[tuple[str, Stage]]:
    """List the stages of the rows that show a mark, and what was tried, where it differs."""
    marked = []
    for row in rows:
        of_run = any(mark in cell.marks for key, cell in row.cells.items() if key not in TRIED)
        if of_run:
            marked.append((row.label, row.stage))
        of_all = row.tried is not None and any(mark in row.cells[key].marks for key in TRIED)
        if of_all and not (of_run and describe(row.tried) == describe(row.stage)):
            marked.append((f"all tried of {row.label}", row.tried))
    return marked


def _compare(
    same: str, differ: str, known: list[tuple[str, Stage]], describe: Callable[[Stage], str]
) -> Note:
    """State a fact about all rows, or say that it differs between them and for which."""
    groups = _group(known, describe)
    if len(groups) == 1:
        return Note(f"{same} {next(iter(groups))}.")
    kinds = "; ".join(f"{fact} ({list_some(labels)})" for fact, labels in groups.items())
    return Note(f"{differ} between rows, which must not be compared: {kinds}.")


def _group(
    known: list[tuple[str, Stage]], describe: Callable[[Stage], str]
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label, stage in known:
        groups.setdefault(describe(stage), []).append(label)
    return groups


def list_some(labels: Iterable[str], most: int = 10) -> str:
    """List labels, each once, ``most`` of them and how many more."""
    unique = list(dict.fromkeys(labels))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return ", ".join(unique[:most]) + more


def describe_status(stage: Stage) -> str:
    """Return what has become of a stage, to follow its name."""
    status = stage.sidecar.status
    return "stopped at the budget" if status == "stopped" else f"is {status}"


def _describe_incomplete(stage: Stage) -> str:
    text = "" if stage.sidecar.status == "complete" else f"the stage {describe_status(stage)}"
    return ", ".join(filter(None, (text, stage.sidecar.reason, _doubt_co2(stage))))


def _list_counted(stage: Stage) -> list[Channel]:
    return [c for c in stage.sidecar.channels if c.in_total and c.energy_j is not None]


def _describe_methods(stage: Stage) -> str:
    """Say from what the estimated channels of the total were estimated."""
    estimated = [c for c in _list_counted(stage) if c.kind == "estimated"]
    methods = {c: (c.method or "an unnamed method").replace("_", " ") for c in estimated}
    words = [f"{text.replace('cpu', 'CPU')} ({c.boundary})" for c, text in methods.items()]
    return " and ".join(dict.fromkeys(words)) or "a source that the sidecar does not name"


def _describe_sources(stage: Stage) -> str:
    """Say where the numbers are from that the estimated channels of the total were made with."""
    estimated = [c for c in _list_counted(stage) if c.kind == "estimated"]
    return "; ".join(dict.fromkeys(f"{c.boundary}: {c.source}" for c in estimated if c.source))


# Mark: its note, what stands in it for several reasons, and the reason of one stage.
_MARK_TEXTS: dict[str, tuple[str, str, Callable[[Stage], str]]] = {
    "estimated": (
        "estimated from {}, not measured (with which numbers: Table 3)",
        "several sources",
        _describe_methods,
    ),
    "partly_estimated": (
        "partly estimated from {}, the rest measured",
        "several sources",
        lambda stage: (
            f"{_describe_methods(stage)}, "
            f"{format_significant(100 * (1 - (stage.sidecar.measured_fraction or 0)), 2)} %"
        ),
    ),
    "incomplete": ("incomplete or disputed: {}", "several reasons", _describe_incomplete),
    "unknown_share": (
        "the sidecar does not say which part was measured ({})",
        "several sources",
        lambda stage: stage.path.name,
    ),
}


def describe_kinds(stage: Stage) -> str:
    """Say of each part that the energy covers whether it was measured or estimated."""
    kinds = {
        f"{c.boundary} {'estimated' if c.kind == 'estimated' else 'measured'}"
        for c in _list_counted(stage)
    }
    return ", ".join(sorted(kinds))


def describe_covered(stage: Stage) -> str:
    """Say which parts of the machines the energy covers, and whose energy it is."""
    inside = sorted({c.boundary for c in _list_counted(stage)})
    text = " + ".join(inside) or "parts that the sidecar does not name"
    rule = stage.sidecar.attribution.rule
    return text if rule == "exclusive" else f"{text}, of which the job's part by the rule {rule}"


def describe_boundaries(stage: Stage) -> str:
    """Say which parts of the machines the energy covers, and which had no figure."""
    inside = {c.boundary for c in _list_counted(stage)}
    unread = [c.boundary for c in stage.sidecar.channels if c.kind == "unavailable"]
    outside = [] if "node" in inside else [b for b in dict.fromkeys(unread) if b not in inside]
    text = describe_covered(stage)
    return f"{text} (no figure for {', '.join(outside)})" if outside else text


def describe_factor(stage: Stage) -> str:
    """Say which grams of CO2 a kWh stands for, and where the factor is from."""
    return describe_carbon(stage.sidecar.carbon)


def describe_carbon(carbon: Carbon) -> str:
    """Say a carbon factor and where it is from."""
    number = "varying in time"
    if carbon.g_per_kwh is not None:
        number = f"{format_significant(carbon.g_per_kwh)} g/kWh"
    facts = [
        number,
        carbon.provider or "no provider given",
        carbon.zone and f"zone {carbon.zone}",
        carbon.year and str(carbon.year),
        carbon.vintage and f"vintage {carbon.vintage}",
        f"{carbon.scope} scope" if carbon.scope else "scope not given",
        carbon.basis,
    ]
    text = ", ".join(fact for fact in facts if fact)
    return f"{text} ({carbon.source})" if carbon.source else text


def describe_pue(stage: Stage) -> str:
    """Say the power usage effectiveness in the CO2."""
    pue = stage.sidecar.pue
    source = f" ({pue.source})" if pue.source else ""
    return f"{pue.value:g}{source}, in CO2 and not in energy"


# What must be the same in figures that are compared, and how it is said where it is not.
_LIKE_ENERGY: dict[Callable[[Stage], str], str] = {
    describe_boundaries: "cover different parts of the machines",
    describe_kinds: "are measured in some runs and estimated in others",
}
LIKE = {
    "energy_kwh": _LIKE_ENERGY,
    "co2_kg": {
        **_LIKE_ENERGY,
        describe_factor: "have different CO2 factors",
        describe_pue: "have different PUEs",
    },
}


def explain_energies(stages: Sequence[Stage]) -> list[str]:
    """Say why energies may not be compared; nothing if they may."""
    return [
        f"the energies {why}: {'; '.join(sorted(texts))}"
        for describe, why in _LIKE_ENERGY.items()
        if len(texts := {describe(stage) for stage in stages}) > 1
    ]


def explain_incomplete(stage: Stage) -> str:
    """Say why the energy of a stage is incomplete or disputed; empty if it is neither."""
    reason = stage.sidecar.reason
    if stage.sidecar.status != "complete":
        return f"{stage.path.name} {describe_status(stage)}"
    if not stage.energy_kwh:
        return f"no energy in {stage.path.name}" + (f" ({reason})" if reason else "")
    return f"{stage.path.name} is incomplete or disputed ({reason})" if reason else ""
