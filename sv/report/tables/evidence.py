"""How good an energy figure is: its cell, its marks, and the notes that explain them.

Cells, marks and notes come from the sidecar alone; a table cannot call a figure measured that its
sidecar does not.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sv.energy.record import Carbon, Channel
from sv.report.results import P_TARGET, Results, Stage, System, extract_name, find_score
from sv.report.tables.cells import (
    MARKS,
    UNKNOWN,
    Cell,
    Column,
    Note,
    format_duration,
    format_significant,
    unknown_cell,
)

# A stage with the label that its row has in the table.
Labelled = tuple[str, Stage]
ENERGY_COLUMNS = (
    Column("energy_kwh", "Energy (kWh)", marked=True),
    Column("co2_kg", "CO2 (kg)", marked=True),
)
# What a CSV row says about its energy beyond the printed columns.
PROVENANCE_COLUMNS = tuple(
    Column(key, key, csv_only=True)
    for key in (
        *("status", "measured_fraction", "energy_all_kwh", "attempts", "kinds", "boundary"),
        *("attribution", "energy_node_kwh", "uncertainty_kwh", "host", "started_utc", "pue"),
        *("g_per_kwh", "carbon_provider", "carbon_zone", "carbon_year", "carbon_vintage"),
        *("carbon_scope", "carbon_basis"),
    )
)
_WHOLE = 1e-6  # of an energy: less is rounding of a sum of channels
_MAX_LISTED = 10


# Cells.


def fact_cell(value: float | int | str | None) -> Cell:
    """Return a cell for the CSV file alone: unknown is empty there and needs no reason."""
    return Cell(UNKNOWN, None) if value in (None, "") else Cell(f"{value}", value)


def figure_cell(
    value: float | None, reason: str, *, path: Path, marks: tuple[str, ...] = ()
) -> Cell:
    """Return the cell of a figure of the sidecar ``path``, with its ``reason`` where unknown."""
    if value is None:
        return unknown_cell(reason, path)
    return Cell(format_significant(value), value, marks, sidecar=path)


def energy_cell(stage: Stage | None, absent: str) -> Cell:
    """Return the cell of the energy (kWh) of the run that made the result.

    Args:
        stage: None where there is no sidecar.
        absent: Why there is none.
    """
    if stage is None:
        return unknown_cell(absent)
    reason = _explain_no_energy(stage)
    return figure_cell(stage.energy_kwh, reason, path=stage.path, marks=energy_marks(stage))


def co2_cell(stage: Stage | None, absent: str) -> Cell:
    """Return the cell of the CO2 (kg); it is as good as the energy that it is computed from."""
    if stage is None:
        return unknown_cell(absent)
    reason = f"no CO2: {stage.sidecar.carbon.reason or 'no grid factor in the sidecar'}"
    if stage.energy_kwh is None:
        reason = _explain_no_energy(stage)
    co2_kg = kg_from_g(stage.sidecar.co2_g)
    return figure_cell(co2_kg, reason, path=stage.path, marks=energy_marks(stage))


def kg_from_g(grams: float | None) -> float | None:
    """Convert grams; unknown stays unknown."""
    return None if grams is None else grams / 1000


def duration_cell(stage: Stage | None, absent: str) -> Cell:
    """Return the cell of a stage's duration."""
    if stage is None:
        return unknown_cell(absent)
    return Cell(format_duration(stage.sidecar.duration_s), stage.sidecar.duration_s)


def provenance_cells(stage: Stage | None) -> dict[str, Cell]:
    """Return the cells of `PROVENANCE_COLUMNS`."""
    if stage is None:
        return {column.key: fact_cell(None) for column in PROVENANCE_COLUMNS}
    sidecar = stage.sidecar
    counted = [channel for channel in sidecar.channels if channel.in_total]
    several = [attempt.meters for attempt in sidecar.run if len(attempt.meters) > 1]
    hosts = [sidecar.host, *(meter.host for meters in several for meter in meters if meter.host)]
    carbon = sidecar.carbon
    facts = {
        "status": sidecar.status,
        "measured_fraction": sidecar.measured_fraction,
        "energy_all_kwh": sidecar.energy_all_kwh,
        "attempts": len(sidecar.attempts),
        "kinds": " ".join(dict.fromkeys(channel.kind for channel in counted)),
        "boundary": " ".join(sorted({channel.boundary for channel in counted})),
        "attribution": sidecar.attribution.rule,
        "energy_node_kwh": sidecar.energy_node_kwh,
        "uncertainty_kwh": sidecar.uncertainty_kwh,
        "host": " ".join(dict.fromkeys(hosts)).strip(),
        "started_utc": sidecar.started_utc,
        "pue": sidecar.pue.value,
        "g_per_kwh": carbon.g_per_kwh,
        "carbon_provider": carbon.provider,
        "carbon_zone": carbon.zone,
        "carbon_year": "" if carbon.year is None else str(carbon.year),
        "carbon_vintage": carbon.vintage,
        "carbon_scope": carbon.scope,
        "carbon_basis": carbon.basis,
    }
    return {key: fact_cell(value) for key, value in facts.items()}


def metric_cells(
    eer_percent: float | None,
    min_dcf: float | None,
    reason: str,
    *,
    decimals: int,
    suffix: str = "",
) -> dict[str, Cell]:
    """Return the cells of an EER (``decimals``) and a minDCF; ``reason`` is for what is None."""
    pairs = (("eer_percent", eer_percent, decimals), ("min_dcf", min_dcf, 3))
    return {
        f"{key}{suffix}": unknown_cell(reason)
        if value is None
        else Cell(f"{value:.{digits}f}", value)
        for key, value, digits in pairs
    }


def score_cells(
    view: System, trials: str, *, decimals: int, precision: str = "fp32", suffix: str = ""
) -> dict[str, Cell]:
    """Return the cells of EER and minDCF of a trial list, by the backend of ``view``."""
    score = find_score(view, trials, precision)
    if score is None:
        stem = extract_name(f"{trials}_{view.backend}", precision)
        reason = absent_file(view, f"scores/{stem}.json")
        return metric_cells(None, None, reason, decimals=decimals, suffix=suffix)
    reason = f"no minDCF at P {P_TARGET} in {score.path.name}"
    figures = (score.eer_percent, score.min_dcf.get(P_TARGET))
    return metric_cells(*figures, reason, decimals=decimals, suffix=suffix)


def backend_column(results: Results) -> Column:
    """Return the column of a row's backend, which is printed where there are several."""
    return Column("backend", "Backend", numeric=False, csv_only=len(results.backends) == 1)


def describe_scores(results: Results) -> str:
    """Say whose scores the measures are of."""
    only = f"{results.backends[0]} scores"
    return only if len(results.backends) == 1 else "the scores of each row's backend"


def absent_file(system: System, name: str) -> str:
    """Say why a file of a system is not there."""
    return f"no {name}" if system.directory.is_dir() else f"no folder {system.directory}"


def absent_stage(system: System, stem: str) -> str:
    """Say why there is no sidecar ``stem`` (``05_train``) of a system."""
    journal = system.directory / "energy" / f"{stem}.journal.jsonl"
    if journal.is_file():
        return f"energy/{journal.name} has no sidecar yet (steps/make_results.sh makes it)"
    return absent_file(system, f"energy/{stem}.json")


# Marks, and what explains them.


def energy_marks(stage: Stage) -> tuple[str, ...]:
    """Return the marks of a stage's energy (and so of its CO2)."""
    share = stage.sidecar.measured_fraction
    marks = {"incomplete"} if stage.sidecar.status != "complete" or stage.sidecar.reason else set()
    if share is None:
        marks.add("unknown_share")
    elif share < 1 - _WHOLE:
        marks.add("estimated" if share <= _WHOLE else "partly_estimated")
    return tuple(mark for mark in MARKS if mark in marks)


def energy_notes(stages: Iterable[Labelled], totals: Iterable[Labelled] = ()) -> list[Note]:
    """Explain the energy figures of a table: marks, boundary, PUE, carbon factor.

    Of ``totals`` (sums of the same stages) only the marks are explained.
    """
    known = [(label, stage) for label, stage in stages if stage.energy_kwh is not None]
    if not known:
        return []
    marked = [*known, *((label, total) for label, total in totals if total.energy_kwh is not None)]
    texts: dict[str, tuple[str, Callable[[Stage], str]]] = {
        "estimated": ("estimated from {methods}, not measured{rows}", _describe_methods),
        "partly_estimated": (
            "partly estimated from {methods}, the rest measured{rows}",
            lambda stage: (
                f"{_describe_methods(stage)}, "
                f"{_percent(1 - (stage.sidecar.measured_fraction or 0))}"
            ),
        ),
        "incomplete": ("incomplete: {methods}{rows}", _describe_incomplete),
        "unknown_share": (
            "the sidecar does not say which part was measured ({methods}){rows}",
            lambda stage: stage.path.name,
        ),
    }
    notes = [_explain(marked, mark, *how) for mark, how in texts.items()]
    found = [note for note in notes if note]
    found.append(
        _compare("Energy covers", "Energy covers different parts", known, describe_boundaries)
    )
    with_co2 = [(label, stage) for label, stage in known if stage.sidecar.co2_g is not None]
    if with_co2:
        found.append(_compare("CO2 factor:", "CO2 factors differ", with_co2, describe_factor))
    recorded = [s.recorded_carbon for _, s in with_co2 if s.recorded_carbon is not None]
    if recorded:
        factors = list_some([describe_carbon(carbon) for carbon in recorded])
        found.append(
            Note(f"CO2 is computed anew at that factor, instead of the recorded {factors}.")
        )
    found.append(_compare("PUE:", "PUEs differ", known, describe_pue))
    return found


def _explain(
    known: list[Labelled], mark: str, text: str, describe: Callable[[Stage], str]
) -> Note | None:
    """Explain one mark: once if it is the same for all marked rows, else for each kind of row."""
    groups = _group([item for item in known if mark in energy_marks(item[1])], describe)
    if not groups:
        return None
    if len(groups) == 1:
        return Note(text.format(methods=next(iter(groups)), rows=""), mark)
    kinds = "; ".join(f"{methods}: {list_some(labels)}" for methods, labels in groups.items())
    several = "several reasons" if mark == "incomplete" else "several sources"
    return Note(text.format(methods=several, rows=f": {kinds}"), mark)


def _compare(
    same: str, differ: str, known: list[Labelled], describe: Callable[[Stage], str]
) -> Note:
    """State a fact about all rows, or say that it differs between them and for which."""
    groups = _group(known, describe)
    if len(groups) == 1:
        return Note(f"{same} {next(iter(groups))}.")
    kinds = "; ".join(f"{fact} ({list_some(labels)})" for fact, labels in groups.items())
    return Note(f"{differ} between rows, which must not be compared: {kinds}.")


def _group(known: list[Labelled], describe: Callable[[Stage], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label, stage in known:
        groups.setdefault(describe(stage), []).append(label)
    return groups


def list_some(labels: Sequence[str]) -> str:
    """List labels, each once, the first ten and how many more."""
    unique = list(dict.fromkeys(labels))
    more = f" and {len(unique) - _MAX_LISTED} more" if len(unique) > _MAX_LISTED else ""
    return ", ".join(unique[:_MAX_LISTED]) + more


def _explain_no_energy(stage: Stage) -> str:
    reasons = [f"{c.id}: {c.reason}" for c in stage.sidecar.channels if c.reason]
    reason = stage.sidecar.reason or "; ".join(reasons) or "no channel could be read"
    return f"{stage.path.name} has no energy ({reason})"


def _describe_incomplete(stage: Stage) -> str:
    status = stage.sidecar.status
    text = "" if status == "complete" else f"the stage is {status}"
    return ", ".join(filter(None, (text, stage.sidecar.reason)))


def _list_counted(stage: Stage) -> list[Channel]:
    return [c for c in stage.sidecar.channels if c.in_total and c.energy_j is not None]


def _describe_methods(stage: Stage) -> str:
    """Say from what the estimated channels of the total were estimated."""
    estimated = [c for c in _list_counted(stage) if c.kind == "estimated"]
    words = [f"{_describe_method(c)} ({c.boundary})" for c in estimated]
    return " and ".join(dict.fromkeys(words)) or "a source that the sidecar does not name"


def _describe_method(channel: Channel) -> str:
    words = (channel.method or "an unnamed method").replace("_", " ").replace("cpu", "CPU")
    return f"{words}, {channel.source}" if channel.source else words


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


def explain_energies(stages: Sequence[Stage]) -> list[str]:
    """Say why energies may not be compared; nothing if they may."""
    return [
        f"the energies {why}: {'; '.join(sorted(texts))}"
        for describe, why in (
            (describe_boundaries, "cover different parts of the machines"),
            (describe_kinds, "are measured in some runs and estimated in others"),
        )
        if len(texts := {describe(stage) for stage in stages}) > 1
    ]


def explain_incomplete(stage: Stage) -> str:
    """Say why the energy of a stage is not of all its work; empty if it is."""
    reason = stage.sidecar.reason
    if stage.sidecar.status != "complete":
        return f"{stage.path.name} is {stage.sidecar.status}"
    if not stage.energy_kwh:
        return f"no energy in {stage.path.name}" + (f" ({reason})" if reason else "")
    return f"{stage.path.name} is not of all its work ({reason})" if reason else ""


def _percent(fraction: float) -> str:
    return f"{format_significant(100 * fraction, 2)} %"
