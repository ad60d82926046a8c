"""Table ``implied``: what published figures and ours imply, and which do not agree."""

from collections.abc import Callable
from dataclasses import replace

from sv.energy.units import hours_from_s, j_from_kwh
from sv.report.records import Results, family_of
from sv.report.study.against_cells import our_energy_notes
from sv.report.study.disagreements import (
    RULES,
    Disagreement,
    explain_stated_factor,
    find_energy_against_gmac,
    find_other_savings,
    find_outliers,
    find_slow_precisions,
    find_two_prints,
    find_wrong_averages,
)
from sv.report.study.implied_rows import G_PER_KG, STUDY, Known, list_known
from sv.report.study.published import Study
from sv.report.tables.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_significant,
    text_cell,
    unknown_cell,
)

_NOTHING = Cell("", "")  # the figure has no meaning for such a row


def build_implied_table(results: Results, study: Study) -> Table:
    """Build the table: the study's trainings, ours, then extractions of the study's test sets."""
    known = list_known(results, study)
    rows = {(item.section, item.key): _build_row(item) for item in known}
    notes = _general_notes(study, rows)
    notes += our_energy_notes([(item.key, item.stage) for item in known if item.stage])
    marked: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, (place, found) in enumerate(_find_all(study, known, rows), 1):
        marked.setdefault(place, []).append((number, found.text))
        notes.append(
            Note(f"({number}) {place[0]}, {rows[place].cells['system'].text}: {found.text}.")
        )
    for place, row in rows.items():
        numbers = marked.get(place, [])
        row.cells["see"] = text_cell(", ".join(f"({number})" for number, _ in numbers))
        row.cells["disagreements"] = text_cell("; ".join(text for _, text in numbers))
    columns = (
        Column("system", "System", numeric=False),
        Column("energy_kwh", "Energy (kWh)", marked=True),
        Column("g_per_kwh", "gCO2/kWh"),
        Column("j_per_crop", "J per crop", marked=True),
        Column("kwh_per_gmac", "kWh per GMAC", marked=True),
        Column("power_w", "W", marked=True),
        Column("see", "Does not agree", numeric=False),
        Column("disagreements", "", csv_only=True),
    )
    caption = "What the figures of the study, and ours, imply; rows that do not agree are numbered"
    return Table("implied", caption, columns, tuple(rows.values()), tuple(notes))


def _build_row(known: Known) -> Row:
    energy = known.energy
    grams = None if known.co2_kg is None else G_PER_KG * known.co2_kg
    hours = None if not known.duration_s else hours_from_s(known.duration_s)
    cells = {
        "system": text_cell(known.system),
        "energy_kwh": energy,
        # Without marks: both figures are of the same energy, estimated or not.
        "g_per_kwh": replace(
            _quotient(energy, grams, known.why["co2"], lambda kwh, g: g / kwh), marks=()
        ),
        "j_per_crop": _quotient(
            energy, known.crops, known.why.get("crops", ""), lambda kwh, n: j_from_kwh(kwh) / n
        )
        if known.trained
        else _NOTHING,
        "kwh_per_gmac": _quotient(energy, known.gmac, known.why["gmac"], lambda kwh, g: kwh / g),
        "power_w": _quotient(
            energy, hours, known.why["duration"], lambda kwh, h: G_PER_KG * kwh / h
        ),
    }
    return Row(known.key, cells, known.section)


def _quotient(
    energy: Cell, other: float | None, why: str, divide: Callable[[float, float], float]
) -> Cell:
    if not energy.value:
        return unknown_cell(energy.reason or "the energy is 0")
    if not other:
        return unknown_cell(why)
    value = divide(float(energy.value), other)
    return Cell(format_significant(value), value, energy.marks)


def _find_all(
    study: Study, known: list[Known], rows: dict[tuple[str, str], Row]
) -> list[tuple[tuple[str, str], Disagreement]]:
    """Apply every rule; give each remark with the place of its row, in the order of the rows."""
    found: list[tuple[tuple[str, str], Disagreement]] = []
    for section in dict.fromkeys(item.section for item in known):
        items = [item for item in known if item.section == section]
        for key, what in (("g_per_kwh", "gCO2/kWh"), ("power_w", "W")):
            values = {item.key: rows[section, item.key].cells[key].value for item in items}
            # Our systems may differ in power by right: W is compared in published rows only.
            if key == "g_per_kwh" or section.startswith(STUDY):
                numbers = {name: float(value) for name, value in values.items() if value}
                found += [((section, item.row), item) for item in find_outliers(numbers, what)]
        if items[0].trained:
            works = [
                (item.key, family_of(item.key), float(item.energy.value), item.gmac)
                for item in items
                if item.energy.value and item.gmac
            ]
            found += [((section, item.row), item) for item in find_energy_against_gmac(works)]
    places = {item.key: item.section for item in known if item.section.startswith(STUDY)}
    published = [*find_wrong_averages(study.trainings), *find_two_prints(study)]
    published += [*find_slow_precisions(study), *find_other_savings(study)]
    found += [((places[item.row], item.row), item) for item in published if item.row in places]
    order = list(rows)
    return sorted(found, key=lambda item: order.index(item[0]))


def _general_notes(study: Study, rows: dict[tuple[str, str], Row]) -> list[Note]:
    assumed, stated = study.about.assumed, study.about.stated
    crops = stated.epochs * assumed.utterances * assumed.crops_per_utterance
    theirs = [row for (section, _), row in rows.items() if section.startswith(STUDY)]
    notes = [
        Note(f"Study: {study.about.title}. Nothing of it is corrected here."),
        Note(
            f"J per crop of the study: {stated.epochs} epochs (stated) of {assumed.utterances:,} "
            f"utterances and {assumed.crops_per_utterance} crop each (assumed), {crops:,} crops "
            f"in batches of {stated.batch_size}. Of ours: the crops trained on."
        ),
        Note(
            f"GMAC is of one crop of {assumed.gmac_frames} frames and was not published; of ours "
            "of a crop as trained. W: energy / duration, of all machines and GPUs together."
        ),
        Note(f"Rules of 'does not agree': {'; '.join(RULES)}."),
    ]
    factors, powers = (
        [float(row.cells[key].value) for row in theirs if row.cells[key].value]
        for key in ("g_per_kwh", "power_w")
    )
    stated_note = explain_stated_factor(factors, stated.g_per_kwh)
    if stated_note:
        notes.append(Note(f"Of the study {stated_note}."))
    if powers and min(powers) > assumed.gpu_limit_w:
        notes.append(
            Note(
                f"Of the study every W ({min(powers):.0f} to {max(powers):.0f}) is above the limit "
                f"of one {stated.gpu} ({assumed.gpu_limit_w:g} W): energy and duration are of "
                "several GPUs or nodes, whose number it does not give, or not of the same work."
            )
        )
    return notes
