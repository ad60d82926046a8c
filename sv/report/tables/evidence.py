"""How good an energy figure is: its marks, and the footnotes that explain them.

Marks and footnotes come from the sidecars' channels and factors only; a table cannot call a
figure measured that its sidecar does not.
"""

from collections.abc import Callable, Iterable

from sv.report.stage_energy import Channel, StageEnergy
from sv.report.tables.cells import MARKS, Cell, Note, format_significant, unknown_cell

# A stage with the label that its row has in the table.
Labelled = tuple[str, StageEnergy]
# Rounding of a sum of channels, not a share of energy.
_WHOLE = 1e-6
_MAX_LISTED = 10


def energy_marks(stage: StageEnergy) -> tuple[str, ...]:
    """Give the marks of a stage's energy (and so of its CO2)."""
    marks = []
    if stage.measured_fraction is None:
        marks.append("unknown_share")
    elif stage.measured_fraction <= _WHOLE:
        marks.append("estimated")
    elif stage.measured_fraction < 1 - _WHOLE:
        marks.append("partly_estimated")
    if stage.status != "complete" or stage.reason:
        marks.append("incomplete")
    return tuple(mark for mark in MARKS if mark in marks)


def energy_cell(stage: StageEnergy | None, absent: str) -> Cell:
    """Give the cell of the energy (kWh) of the run that made the result."""
    if stage is None:
        return unknown_cell(absent)
    if stage.energy_kwh is None:
        return unknown_cell(_no_energy(stage))
    return Cell(format_significant(stage.energy_kwh), stage.energy_kwh, energy_marks(stage))


def co2_cell(stage: StageEnergy | None, absent: str) -> Cell:
    """Give the cell of the CO2 (kg); it is as good as the energy that it is computed from."""
    if stage is None:
        return unknown_cell(absent)
    if stage.co2_g is None:
        return unknown_cell(
            _no_energy(stage)
            if stage.energy_kwh is None
            else f"no CO2: {stage.carbon.reason or 'no grid factor in the sidecar'}"
        )
    co2_kg = stage.co2_g / 1000
    return Cell(format_significant(co2_kg), co2_kg, energy_marks(stage))


def energy_notes(stages: Iterable[Labelled], totals: Iterable[Labelled] = ()) -> list[Note]:
    """Explain the energy figures of a table: marks, boundary, PUE, carbon factor.

    Of ``totals`` (sums of the same stages) only the marks are explained.
    """
    known = [(label, stage) for label, stage in stages if stage.energy_kwh is not None]
    if not known:
        return []
    marked = [*known, *((label, total) for label, total in totals if total.energy_kwh is not None)]
    notes = [
        _explain(marked, "estimated", "estimated from {methods}, not measured{rows}", _methods),
        _explain(
            marked,
            "partly_estimated",
            "partly estimated from {methods}, the rest measured{rows}",
            lambda stage: f"{_methods(stage)}, {_percent(1 - (stage.measured_fraction or 0))}",
        ),
        _explain(
            marked,
            "incomplete",
            "incomplete: {methods}{rows}",
            _incomplete,
        ),
        _explain(
            marked,
            "unknown_share",
            "the sidecar does not say which part was measured ({methods}){rows}",
            lambda stage: stage.path.name,
        ),
    ]
    found = [note for note in notes if note]
    found.append(
        _compare("Energy covers", "Energy covers different parts", known, describe_boundaries)
    )
    with_co2 = [(label, stage) for label, stage in known if stage.co2_g is not None]
    if with_co2:
        found.append(_compare("CO2 factor:", "CO2 factors differ", with_co2, describe_factor))
    found.append(_compare("PUE:", "PUEs differ", known, describe_pue))
    return found


def _no_energy(stage: StageEnergy) -> str:
    reasons = [f"{c.id}: {c.reason}" for c in stage.channels if c.reason]
    reason = stage.reason or "; ".join(reasons) or "no channel could be read"
    return f"{stage.path.name} has no energy ({reason})"


def _incomplete(stage: StageEnergy) -> str:
    status = "" if stage.status == "complete" else f"the stage is {stage.status}"
    return ", ".join(filter(None, (status, stage.reason)))


def _explain(
    known: list[Labelled], mark: str, text: str, describe: Callable[[StageEnergy], str]
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
    same: str, differ: str, known: list[Labelled], describe: Callable[[StageEnergy], str]
) -> Note:
    """State a fact about all rows, or say that it differs between them and for which."""
    groups = _group(known, describe)
    if len(groups) == 1:
        return Note(f"{same} {next(iter(groups))}.")
    kinds = "; ".join(f"{fact} ({list_some(labels)})" for fact, labels in groups.items())
    return Note(f"{differ} between rows, which must not be compared: {kinds}.")


def _group(known: list[Labelled], describe: Callable[[StageEnergy], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label, stage in known:
        groups.setdefault(describe(stage), []).append(label)
    return groups


def list_some(labels: list[str]) -> str:
    """List labels, each once, the first ten and how many more."""
    unique = list(dict.fromkeys(labels))
    more = f" and {len(unique) - _MAX_LISTED} more" if len(unique) > _MAX_LISTED else ""
    return ", ".join(unique[:_MAX_LISTED]) + more


def _counted(stage: StageEnergy) -> list[Channel]:
    return [c for c in stage.channels if c.in_total and c.energy_j is not None]


def _methods(stage: StageEnergy) -> str:
    """Say from what the estimated channels of the total were estimated."""
    estimated = [c for c in _counted(stage) if c.kind == "estimated"]
    words = [f"{_method_words(c)} ({c.boundary})" for c in estimated]
    return " and ".join(dict.fromkeys(words)) or "a source that the sidecar does not name"


def _method_words(channel: Channel) -> str:
    words = channel.method.replace("_", " ").strip() or "an unnamed method"
    words = words.replace("cpu", "CPU").replace("gpu", "GPU").replace("tdp", "TDP")
    return f"{words}, {channel.source}" if channel.source else words


def describe_kinds(stage: StageEnergy) -> str:
    """Say of each part that the energy covers whether it was measured or estimated."""
    kinds = {
        f"{c.boundary} {'estimated' if c.kind == 'estimated' else 'measured'}"
        for c in _counted(stage)
    }
    return ", ".join(sorted(kinds))


def describe_covered(stage: StageEnergy) -> str:
    """Say which parts of the machines the energy covers, and whose energy it is."""
    inside = sorted({c.boundary for c in _counted(stage)})
    text = " + ".join(inside) or "parts that the sidecar does not name"
    if stage.attribution != "exclusive":
        text += f", of which the job's part by the rule {stage.attribution}"
    return text


def describe_boundaries(stage: StageEnergy) -> str:
    """Say which parts of the machines the energy covers, and which had no figure."""
    inside = {c.boundary for c in _counted(stage)}
    unread = [c.boundary for c in stage.channels if c.kind == "unavailable" and c.boundary]
    outside = [] if "node" in inside else [b for b in dict.fromkeys(unread) if b not in inside]
    text = describe_covered(stage)
    return f"{text} (no figure for {', '.join(outside)})" if outside else text


def explain_energies(stages: list[StageEnergy]) -> list[str]:
    """Say why energies may not be compared; nothing if they may."""
    return [
        f"the energies {why}: {'; '.join(sorted(texts))}"
        for describe, why in (
            (describe_boundaries, "cover different parts of the machines"),
            (describe_kinds, "are measured in some runs and estimated in others"),
        )
        if len(texts := {describe(stage) for stage in stages}) > 1
    ]


def explain_incomplete(stage: StageEnergy) -> str:
    """Say why the energy of a stage is not of all its work; empty if it is."""
    if stage.status != "complete":
        return f"{stage.path.name} is {stage.status}"
    if not stage.energy_kwh:
        return f"no energy in {stage.path.name}" + (f" ({stage.reason})" if stage.reason else "")
    return f"{stage.path.name} is not of all its work ({stage.reason})" if stage.reason else ""


def describe_factor(stage: StageEnergy) -> str:
    """Say which grams of CO2 a kWh stands for, and where the factor is from."""
    carbon = stage.carbon
    if carbon.g_per_kwh is None:
        number = "varying in time"
    else:
        number = f"{format_significant(carbon.g_per_kwh)} g/kWh"
    vintage = f"vintage {carbon.vintage}" if carbon.vintage else ""
    zone = f"zone {carbon.zone}" if carbon.zone else ""
    scope = f"{carbon.scope} scope" if carbon.scope else "scope not given"
    facts = [carbon.provider or "no provider given", zone, carbon.year, vintage, scope]
    text = ", ".join([number, *(fact for fact in [*facts, carbon.basis] if fact)])
    return f"{text} ({carbon.source})" if carbon.source else text


def describe_pue(stage: StageEnergy) -> str:
    """Say the power usage effectiveness in the CO2."""
    if stage.pue_value is None:
        return "not known"
    source = f" ({stage.pue_source})" if stage.pue_source else ""
    return f"{stage.pue_value:g}{source}, in CO2 and not in energy"


def _percent(fraction: float) -> str:
    return f"{format_significant(100 * fraction, 2)} %"
