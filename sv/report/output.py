"""What stage 8 writes, part by part: the tables first, so that no later part can cost them.

A part that cannot be made (a package is missing, a file of it is broken) is reported at the end,
and the others are made all the same. Heavy packages are loaded by the part that needs them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sv.errors import SvError
from sv.files import write_text
from sv.report.mixing import Difference, find_differences, mixing_notes, refuse_mixed
from sv.report.results import Results, write_model_results
from sv.report.study.published import read_study
from sv.report.tables.cells import Table
from sv.report.tables.files import FORMATS, build_tables, write_tables
from sv.report.tables.formats import JSON_START
from sv.report.tables.inference_rows import prefer_sets

if TYPE_CHECKING:
    from sv.report.advice.advice import Advice

ALL_SETS = "all"


@dataclass
class Output:
    """What was written: ``tables`` in order of display and the ``paths`` of all files.

    ``joined`` are the systems' results.json; ``left_out`` says what a figure lacks, ``failures``
    which parts were not made.
    """

    tables: list[Table] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    joined: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def write_output(
    results: Results,
    directory: Path,
    *,
    study: Path | None = None,
    inference_sets: str = "",
    allow_mixed: bool = False,
    show: Callable[[list[Table]], None] = lambda _: None,
) -> Output:
    """Write tables, comparison, advice, figures and page.

    Args:
        results: What stage 8 found.
        directory: Of all files; the systems' results.json stay with the systems.
        study: Folder of published figures to compare with; None: no comparison.
        inference_sets: Test sets of Table 2 by name, or `ALL_SETS`; empty: those of the study's
            Table 2 that some system has extracted, without any all.
        allow_mixed: Put systems of different settings into one table, and say so below it.
        show: Called with the tables as soon as they are on disk.

    Raises:
        SvError: Settings differ and ``allow_mixed`` is false, or a table cannot be written.
        UsageError: ``inference_sets`` names a set that the recipe does not have.
    """
    differences = find_differences(results)
    if not allow_mixed:
        refuse_mixed(differences)
    output = Output()
    made: dict[str, Advice] = {}
    figures: list[Path] = []
    sets = _choose_sets(results, study, inference_sets, output)
    tables = _note_mixing(build_tables(results, sets), differences)
    output.joined = write_model_results(results)
    _add_tables(output, tables, directory)
    show(output.tables)

    def compare() -> None:
        from sv.report.study.against import build_comparison  # noqa: PLC0415

        tables = build_comparison(results, study)
        _add_tables(output, _note_mixing(tables, differences), directory)

    def advise() -> None:
        from sv.report.advice.advice import build_advice, format_advice  # noqa: PLC0415

        made["advice"] = _withhold_mixed(build_advice(results), differences)
        output.paths.append(directory / "advice.md")
        write_text(output.paths[-1], format_advice(made["advice"]))

    def draw() -> None:
        from sv.report.figures.files import write_figures  # noqa: PLC0415

        paths, left_out = write_figures(results, directory)
        figures.extend(paths)
        output.paths += paths
        output.left_out += left_out

    def lay_out() -> None:
        from sv.report.page.page import write_page  # noqa: PLC0415

        if "advice" not in made:
            raise SvError("there is no advice to show")
        page = write_page(results, output.tables, made["advice"], figures, directory)
        output.paths.append(page)

    parts = {"comparison": compare, "advice": advise, "figures": draw, "page": lay_out}
    for name, make in parts.items():
        try:
            make()
        except (SvError, ModuleNotFoundError) as error:
            output.failures.append(f"no {name}: {error}")
    _remove_old_tables(output.tables, directory)
    return output


def _choose_sets(
    results: Results, study: Path | None, inference_sets: str, output: Output
) -> tuple[str, ...] | None:
    if inference_sets == ALL_SETS:
        return None
    if inference_sets or study is None:
        return tuple(inference_sets.split()) or None
    try:
        lists = dict.fromkeys(row.trials for row in read_study(study).inferences)
    except SvError:  # the comparison reads it again, and says so
        return None
    return prefer_sets(results, [results.trial_sets.get(name, "") for name in lists])


def _note_mixing(tables: list[Table], differences: list[Difference]) -> list[Table]:
    notes = mixing_notes(differences)
    return [replace(table, notes=(*notes, *table.notes)) for table in tables]


def _withhold_mixed(advice: "Advice", differences: list[Difference]) -> "Advice":
    """Withhold advice from systems that were not trained and scored alike."""
    if not differences:
        return advice
    reasons = (f"No advice on systems of different settings: {d.describe()}." for d in differences)
    return replace(
        advice, lines=(), withheld=tuple(reasons), front=(), knee=None, prices=(), on_front=()
    )


def _add_tables(output: Output, tables: list[Table], directory: Path) -> None:
    output.paths += write_tables(tables, directory)
    output.tables += tables


def _remove_old_tables(tables: list[Table], directory: Path) -> None:
    """Remove tables of an earlier run that this one does not have; they are no longer true."""
    names = {table.name for table in tables}
    for path in directory.glob("*.json"):
        if path.stem not in names and path.read_bytes().startswith(JSON_START.encode()):
            for suffix in FORMATS:
                path.with_suffix(f".{suffix}").unlink(missing_ok=True)
