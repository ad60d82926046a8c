"""The page of a run, <exp>/results/index.html: one file that needs no network and no server.

Everything is in it: the tables, the provenance of each kWh, and the SVG of four figures in colours
that follow light and dark. The same results give the same bytes: no timestamp, no random ids.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sv.files import read_text, write_text
from sv.report.advice import Advice, Point, collect_points
from sv.report.page.provenance import TITLES, WORDS, Provenance, collect_provenance, link_to
from sv.report.results import RESULTS_STAGE, Results
from sv.report.tables.cells import MARKS, Cell, Column, Table, missing_lines
from sv.report.tables.evidence import describe_eer, describe_quality, format_kwh, list_some

if TYPE_CHECKING:
    from sv.report.figures.frame import Drawing

_MAX_LISTED = 3
_COMMIT = re.compile(r"(?<=^\w{10})\w+")  # the digits that do not tell it from others
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_DIGITS = re.compile(r"(?<=[a-z])(?=[0-9])")  # the end of a table's name
_TABLE_FORMATS = ("csv", "json", "md", "tex")
_ACCURACY = "energy_accuracy"
# Stem of the files and title of a figure that is shown.
_FIGURES = (
    (_ACCURACY, "Accuracy against training energy"),
    ("energy_gmac", "Training energy against computation"),
    ("learning_energy", "What each epoch bought"),
    ("energy_stages", "Where the energy went"),
)
_SIZE = re.compile(r' (width|height)="[\d.]+pt"')
_FILL = re.compile(r'fill="(#\w{6})"')  # an attribute has no variables, a style has
_GREY = re.compile(r"#([0-9a-f]{2})\1\1\b")


@dataclass(frozen=True)
class View:
    """One choice of a figure: its name in the selector, the picture, what it does not show."""

    label: str
    svg: str
    caption: str
    left_out: list[str]


@dataclass(frozen=True)
class Picture:
    """A figure with its views, the first of which is shown."""

    key: str
    title: str
    views: tuple[View, ...]


def write_page(
    results: Results,
    tables: Sequence[Table],
    advice: Advice,
    figures: "Sequence[Drawing]",
    directory: Path,
) -> Path:
    """Write ``directory``/index.html.

    Args:
        results: What stage 8 found.
        tables: All tables in order of display.
        advice: What the data say about choosing a system.
        figures: Those that were drawn. Four are shown, all are linked to.
        directory: Where the page and the other files of stage 8 lie.

    Returns:
        The path of the page.

    Raises:
        SvError: A figure cannot be read, or the page cannot be written.
    """
    provenance = collect_provenance(results, directory)
    items = list(provenance.values())
    pictures = _list_pictures(results, figures)
    front = next((table for table in tables if advice.table and table.name == "front"), None)
    svg = [view.svg for picture in pictures for view in picture.views]
    # Every text of the results is escaped, and an unknown name is an error.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("page.html").render(
        answer=_answer(results, advice),
        facts=_list_facts(results, items),
        advice=advice,
        pictures=pictures,
        greys=sorted({grey for text in svg for grey in re.findall(r"--grey-(\w\w)", text)}),
        files=[
            (drawn.stem, [(p.suffix[1:].upper(), link_to(p, directory)) for p in drawn.paths])
            for drawn in sorted(figures, key=lambda drawn: drawn.stem)
        ],
        tables=[table for table in tables if table is not front],
        front=front,
        formats=_TABLE_FORMATS,
        missing_lines=missing_lines,
        shorten=lambda table: _DIGITS.sub(" ", table.name.replace("_", " ")).capitalize(),
        find_sort_key=_find_sort_key,
        marks=MARKS,
        provenance=provenance,
        owners=[(owner, list(of)) for owner, of in groupby(items, lambda item: item.owner)],
        titles=TITLES,
        words=WORDS,
    )
    path = directory / "index.html"
    write_text(path, text)
    return path


def _list_pictures(results: Results, figures: "Sequence[Drawing]") -> list[Picture]:
    """Read the figures that are shown, accuracy with a view for each list."""
    drawn = {figure.stem: figure for figure in figures}
    pictures = []
    for stem, title in _FIGURES:
        choices = {stem: "Average" if len(results.scored) > 1 else "".join(results.scored)}
        if stem == _ACCURACY:
            choices |= {f"{stem}_{name}": name for name in results.scored}
        views = [
            View(label, _read_svg(drawn[choice]), drawn[choice].caption, drawn[choice].left_out)
            for choice, label in choices.items()
            if choice in drawn
        ]
        if views:
            pictures.append(Picture(stem, title, tuple(views)))
    return pictures


def _read_svg(drawn: "Drawing") -> str:
    """Read the SVG of a figure, as wide as there is room, its greys between ink and paper."""
    path = next(path for path in drawn.paths if path.suffix == ".svg")
    text = _FILL.sub(r'style="fill: \1"', _SIZE.sub("", read_text(path), count=2))
    return _GREY.sub(r"var(--grey-\1)", text)


def _find_sort_key(cell: Cell, column: Column) -> str | None:
    """Return what a cell is sorted by: empty: last; None: its text.

    It is a number where there is one: an interval is sorted by its lower end.
    """
    key = "" if cell.value is None else str(cell.value)
    if isinstance(cell.value, str) and column.numeric and (match := _NUMBER.match(key)):
        key = match.group()
    return None if key == cell.text else key


def _answer(results: Results, advice: Advice) -> tuple[str, ...]:
    """Return what the best accuracy cost, the knee, and the choice: on average, else on a list."""
    for lists in (results.scored, *((name,) for name in results.scored)):
        points, left_out = collect_points(results, lists)
        if not points:
            continue
        best = min(points, key=lambda point: point.eer_percent)
        average = "average " if len(lists) > 1 else ""
        where = f"over {len(lists)} trial lists" if average else f"on {lists[0]}"
        both = " with both figures" if left_out else ""
        what = f"an {average}EER"
        if len(points) > 1:
            what = f"the lowest {average}EER of {len(points)} systems{both}"
        knee = [p for p in points if p.label == advice.knee and p is not best]
        return (
            f"{best.label} has {what} {where}: {_describe_cost(best)}.",
            *(f"The knee of the front is {p.label}: {_describe_cost(p)}." for p in knee),
            *([advice.choice] if advice.choice else []),
        )
    return ("No system has both an EER and a training energy yet.",)


def _describe_cost(point: Point) -> str:
    eer = describe_eer(point.eer_percent, point.eer_interval).removeprefix("EER ")
    quality = f", {describe_quality(point.stage)}" if point.stage else ""
    # A number stays on the line of its unit.
    energy = format_kwh(point.energy_kwh).replace(" ", "\u00a0")
    return f"{eer} for {energy} of training{quality}".replace(" %", "\u00a0%")


def _list_facts(results: Results, provenance: list[Provenance]) -> str:
    """Return what was run when, from which code and on which machines; from the sidecars alone."""
    stages = [stage for _, stage in results.stages]
    times = sorted(s.sidecar.started_utc[:10] for s in stages if s.number != RESULTS_STAGE)
    devices = {found.device for system in results.systems for found in system.extractions}
    facts = [
        f"{_count(len(results.systems), 'system')} and "
        f"{_count(len(results.scored), 'scored trial list')}",
        (times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}") if times else "",
        _list_some("code", [_COMMIT.sub("", code) for item in provenance for code in item.commits]),
        _list_some("on", [host for item in provenance for host in item.hosts]),
        _list_some("with", [board for item in provenance for board in item.boards]),
        _list_some("embeddings on", sorted(filter(None, devices))),
        f"{_count(len(stages), 'sidecar')} of energy",
    ]
    return "; ".join(fact for fact in facts if fact) + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _list_some(word: str, items: list[str]) -> str:
    return f"{word} {list_some(items, _MAX_LISTED)}" if items else ""
