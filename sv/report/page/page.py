"""The page of a run, <exp>/results/index.html: one file that needs no network and no server.

Everything is in it: tables, figures, the provenance of each kWh, and plotly's script (4.8 MB). The
same results give the same bytes: no clock, no random ids.
"""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from sv.files import write_text
from sv.report.advice import Advice
from sv.report.figures.points import Point, collect_points
from sv.report.page.facts import describe_quality, format_kwh
from sv.report.page.figures import build_plots
from sv.report.page.plot import describe_eer
from sv.report.page.provenance import (
    ATTEMPT_TITLES,
    CHANNEL_TITLES,
    NODE_TITLES,
    WORDS,
    Provenance,
    collect_provenance,
    link_to,
)
from sv.report.page.tables import build_sheet
from sv.report.results import RESULTS_STAGE, Results
from sv.report.tables.cells import Table

_MAX_LISTED = 3
_SCRIPTS = ("tables.js", "figures.js", "provenance.js")


@dataclass(frozen=True)
class Owner:
    """The sidecars of one system, or the shared ones."""

    name: str
    sidecars: tuple[Provenance, ...]


def write_page(
    results: Results, tables: list[Table], advice: Advice, figures: list[Path], directory: Path
) -> Path:
    """Write ``directory``/index.html.

    Args:
        results: What stage 8 found.
        tables: All tables in order of display.
        advice: What the data say about choosing a system.
        figures: The printed figures; those in PDF and PNG are linked to, not embedded.
        directory: Where the page and the other files of stage 8 lie.

    Returns:
        The path of the page.

    Raises:
        SvError: A sidecar is not as agreed, or the page cannot be written.
    """
    provenance = collect_provenance(results, directory)
    plots = build_plots(results)
    text = (
        _environment()
        .get_template("page.html")
        .render(
            answer=_answer(results, advice),
            facts=_facts(results, list(provenance.values())),
            advice=advice,
            plots=plots,
            figure_data={plot.key: [view.figure for view in plot.views] for plot in plots},
            printed=_printed(figures, directory),
            sheets=[build_sheet(table, provenance, directory) for table in tables],
            owners=_owners(list(provenance.values())),
            titles={"channels": CHANNEL_TITLES, "attempts": ATTEMPT_TITLES, "nodes": NODE_TITLES},
            words=WORDS,
            style=_read("page.css"),
            scripts=[get_plotlyjs(), *map(_read, _SCRIPTS)],
        )
    )
    path = directory / "index.html"
    write_text(path, text)
    return path


def _environment() -> Environment:
    """Give the templates; every text of the results is escaped, an unknown name is an error."""
    return Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _read(name: str) -> str:
    return (importlib.resources.files("sv.report.page") / name).read_text("utf-8")


def _answer(results: Results, advice: Advice) -> tuple[str, ...]:
    """Say what the best accuracy cost, and the knee: on average, else on the first list."""
    for lists in (results.scored, *((name,) for name in results.scored)):
        points, left_out = collect_points(results, lists)
        if points:
            best = min(points, key=lambda point: point.eer_percent)
            knee = [p for p in points if p.label == advice.knee and p is not best]
            average = "average " if len(lists) > 1 else ""
            where = f"over {len(lists)} trial lists" if average else f"on {lists[0]}"
            both = " with both figures" if left_out else ""
            rank = f"the lowest {average}EER of {len(points)} systems{both}"
            what = rank if len(points) > 1 else f"an {average}EER"
            sentences = [f"{best.label} has {what} {where}: {_cost(best)}."]
            sentences += [
                f"The knee of the front is {point.label}: {_cost(point)}." for point in knee
            ]
            return tuple(sentences)
    return ("No system has both an EER and a training energy yet.",)


def _cost(point: Point) -> str:
    eer = describe_eer(point.eer_percent, point.eer_interval).removeprefix("EER ")
    energy = f"{format_kwh(point.energy_kwh)} of training, {describe_quality(point.stage)}"
    # A number stays on the line of its unit.
    return f"{eer} for {energy}".replace(" %", "\u00a0%").replace(" kWh", "\u00a0kWh")


def _facts(results: Results, provenance: list[Provenance]) -> str:
    """Say what was run when, from which code and on which machines; from the sidecars alone."""
    owned = [stage for _, stage in results.stages]
    times = sorted(s.sidecar.started_utc[:10] for s in owned if s.number != RESULTS_STAGE)
    devices = {found.device for system in results.systems for found in system.extractions}
    facts = [
        f"{_count(len(results.systems), 'system')} and "
        f"{_count(len(results.scored), 'scored trial list')}",
        (times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}") if times else "",
        _some("code", [_shorten(code) for item in provenance for code in item.commits]),
        _some("on", [host for item in provenance for host in item.hosts]),
        _some("with", [board for item in provenance for board in item.boards]),
        _some("embeddings on", sorted(filter(None, devices))),
        f"{_count(len(owned), 'sidecar')} of energy",
    ]
    return "; ".join(fact for fact in facts if fact) + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(word: str, items: list[str]) -> str:
    unique = list(dict.fromkeys(items))
    if not unique:
        return ""
    more = len(unique) - _MAX_LISTED
    text = ", ".join(unique[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"{word} {text}"


def _shorten(code: str) -> str:
    """Cut a commit to the digits that tell it from others; what follows it stays."""
    commit, space, more = code.partition(" ")
    return commit[:10] + space + more


def _printed(figures: list[Path], directory: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Group the files of the printed figures by stem: links to its formats."""
    stems: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(figures):
        kind = path.suffix.removeprefix(".").upper()
        stems.setdefault(path.stem, []).append((kind, link_to(path, directory)))
    return list(stems.items())


def _owners(provenance: list[Provenance]) -> list[Owner]:
    names = dict.fromkeys(item.owner for item in provenance)
    return [Owner(n, tuple(item for item in provenance if item.owner == n)) for n in names]
