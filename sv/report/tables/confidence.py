"""Table 4: how sure EER and minDCF are, and which systems the best one really beats."""

from dataclasses import replace

from sv.report.noise import LEAST_SPEAKERS, find_measured
from sv.report.results import Results, System, absent_file, compute_average, find_score
from sv.report.tables.cells import (
    BLANK,
    Cell,
    Column,
    Note,
    Row,
    Table,
    fact_cell,
    figure_cell,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import MEASURES, backend_column, remark_notes
from sv.score.bootstrap import Measured, subtract

_FORMS = {"eer_percent": ".2f", "min_dcf": ".3f"}
_AVERAGE = "Average"
Lowest = tuple[str, Measured] | None  # the best system and its measure


def build_confidence_table(results: Results) -> Table:
    """Build Table 4: a row for each trial list (and their average), backend and system scored."""
    columns = [
        Column("system", "System", numeric=False),
        backend_column(results),
        Column("trial_list", "", csv_only=True),
    ]
    for key, title in MEASURES.items():
        columns += [
            Column(key, "", title),
            Column(f"{key}_interval", "95 %", title),
            Column(f"{key}_above_best", "above best", title, marked=True),
            Column(f"{key}_above_best_interval", "above best, 95 %", title),
            Column(f"{key}_p", "p", title),
        ]
        bounds = ("low", "high", "above_best_low", "above_best_high")
        columns += [Column(f"{key}_{bound}", "", csv_only=True) for bound in bounds]
    columns += [Column(key, "", csv_only=True) for key in ("speakers", "replicates", "seed")]
    groups = {name: (name,) for name in results.scored}
    if len(results.scored) > 1:
        groups = {_AVERAGE: results.scored, **groups}
    rows = []
    for title, lists in groups.items():
        for backend in results.backends:
            views = [view for view in results.views if view.backend == backend]
            best = {key: _find_best(views, lists, key) for key in MEASURES}
            for view in views:
                if all(find_score(view, name) for name in lists):
                    cells = _build_cells(view, title, lists, best)
                    rows.append(Row(f"{view.label} {title}", cells, title))
    caption = "How sure the measures are: 95 % intervals, and differences from the best system"
    return Table(
        "table4", caption, tuple(columns), tuple(rows), (*_notes(results), *remark_notes(results))
    )


def _find_best(views: list[System], lists: tuple[str, ...], key: str) -> Lowest:
    """Return the system with the lowest measure; None where no system has replicates."""
    found = [(view.name, find_measured(view, lists, key)) for view in views]
    measured = [(name, item) for name, item in found if item is not None]
    return min(measured, key=lambda pair: pair[1].value, default=None)


def _build_cells(
    view: System, title: str, lists: tuple[str, ...], best: dict[str, Lowest]
) -> dict[str, Cell]:
    cells = {
        "system": text_cell(view.name),
        "backend": text_cell(view.backend),
        "trial_list": text_cell(title),
        **dict.fromkeys(("speakers", "replicates", "seed"), fact_cell(None)),
    }
    average = compute_average(view, lists)
    for key in MEASURES:
        above, form = f"{key}_above_best", _FORMS[key]
        measured = find_measured(view, lists, key)
        if measured is None:
            reason = _explain_unknown(view, lists)
            cells |= _list_cells(key, getattr(average, key), None, form, reason)
            cells |= _list_cells(above, None, None, form, reason)
            cells[f"{key}_p"] = unknown_cell(reason)
            continue
        cells["speakers"] = fact_cell(measured.speakers)
        cells["replicates"] = fact_cell(len(measured.replicates))
        cells["seed"] = fact_cell(measured.draws[0][1])
        few = f"the {measured.speakers} speakers are too few: replicates lack a kind of trials"
        cells |= _list_cells(key, measured.value, measured.interval, form, few)
        name, lowest = best[key] or (view.name, measured)
        if name == view.name:
            cells |= {above: Cell("best", 0.0), f"{above}_interval": BLANK, f"{key}_p": BLANK}
            cells |= {f"{above}_{end}": fact_cell(None) for end in ("low", "high")}
            continue
        difference = subtract(measured, lowest)
        interval, p_value = None, None
        if difference is None:
            few = f"not the same trials, seed or number of replicates as {name}"
        elif interval := difference.interval:
            p_value = difference.p_value
        value = difference and difference.value
        cells |= _list_cells(above, value, interval, form, few)
        cells[f"{key}_p"] = figure_cell(p_value, ".3f", few)
        if difference and difference.within_noise:
            cells[above] = replace(cells[above], marks=("within_noise",))
    return cells


def _list_cells(
    name: str, value: float | None, interval: tuple[float, float] | None, form: str, reason: str
) -> dict[str, Cell]:
    """Return the cells of a value, its interval as text, and its bounds for the CSV file."""
    low, high = (fact_cell(None),) * 2
    text = unknown_cell(reason)
    if interval is not None:
        low, high = (figure_cell(bound, form) for bound in interval)
        text = text_cell(f"{low.text} to {high.text}")
    return {
        name: figure_cell(value, form, reason),
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_interval": text,
    }


def _explain_unknown(system: System, lists: tuple[str, ...]) -> str:
    for name in lists:
        score = find_score(system, name)
        if score and score.bootstrap is None:
            file = f"scores/{score.path.stem}.boot.json"
            if (system.directory / file).is_file():
                return f"{file} is of other scores: score again"
            return absent_file(system, file)
    return "the lists differ in the number of replicates"


def _notes(results: Results) -> list[Note]:
    found = [
        score.bootstrap
        for view in results.views
        for name in results.scored
        if (score := find_score(view, name)) and score.bootstrap
    ]
    if not found:
        return []
    counts = sorted({len(boot.eer_percent) for boot in found})
    speakers = sorted({boot.speakers for boot in found})
    of_backend = "" if len(results.backends) == 1 else "from the best of the same backend, and "
    few = Note(f"{speakers[0]} speakers are few: the true intervals are wider.")
    return [
        Note(
            f"Intervals: percentiles of {_range(counts)} bootstrap replicates that resample the "
            f"speakers ({_range(speakers)} in a list), both sides of a trial at once."
        ),
        Note(
            f"Differences are {of_backend}paired: each replicate draws the same speakers for "
            "every system. "
            "p: twice the share of replicates on the rarer side of 0, not corrected for "
            "choosing the best of several systems."
        ),
        Note("the interval of the difference from the best contains 0", "within_noise"),
        *([few] if speakers[0] < LEAST_SPEAKERS else []),
        Note("Nothing here says how much another training of the same network would differ."),
    ]


def _range(counts: list[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
