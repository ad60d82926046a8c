"""What stage 8 writes, part by part: the tables first, so that no later part can cost them.

A part that cannot be made (a package is missing, a file of it is broken) is reported at the end,
and the others are made all the same. Heavy packages are loaded by the part that needs them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sv.energy.config import NETWORK, EnergyConfig
from sv.energy.factors import compute_co2_g
from sv.errors import SvError
from sv.files import write_text
from sv.report.mixing import explain_arithmetic, find_differences, refuse_mixed
from sv.report.published import read_study
from sv.report.results import TRAIN_STAGE, Results, Stage, System, write_model_results
from sv.report.tables.cells import (
    JSON_START,
    Note,
    Table,
    format_csv,
    format_json,
    format_markdown,
)
from sv.report.tables.confidence import build_confidence_table
from sv.report.tables.latex import format_latex
from sv.report.tables.paper import format_paper_table
from sv.report.tables.stages import build_stage_table
from sv.report.tables.systems import build_inference_table, build_training_table, prefer_sets

if TYPE_CHECKING:
    from sv.report.advice import Advice
    from sv.report.figures.frame import Drawing

ALL_SETS = "all"
FORMATS = {"md": format_markdown, "tex": format_latex, "csv": format_csv, "json": format_json}


@dataclass
class Output:
    """What was written.

    Attributes:
        tables: In order of display.
        figures: Those that were drawn.
        paths: All files, the systems' results.json last.
        left_out: What a figure lacks.
        failures: Parts that were not made, with the reason.
    """

    tables: list[Table] = field(default_factory=list)
    figures: list["Drawing"] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def recompute_co2(results: Results, config: EnergyConfig, environ: Mapping[str, str]) -> Results:
    """Return the results with the CO2 of every stage at another provider's carbon factor.

    Args:
        results: What stage 8 found; no energy is changed.
        config: Names the provider, see `sv.energy.carbon_web.choose_carbon`.
        environ: Holds the token of Electricity Maps.

    Raises:
        SvError: A journal is missing whose times a varying factor needs, or the provider did not
            answer.
        UsageError: The provider cannot know the country or the year.
    """

    def recompute(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(_recompute(stage, config, environ) for stage in stages)

    def recompute_all(systems: tuple[System, ...]) -> tuple[System, ...]:
        return tuple(replace(system, stages=recompute(system.stages)) for system in systems)

    return replace(
        results, systems=recompute_all(results.systems),
        without_result=recompute_all(results.without_result), shared=recompute(results.shared),
    )  # fmt: skip


def _recompute(stage: Stage, config: EnergyConfig, environ: Mapping[str, str]) -> Stage:
    from sv.energy.carbon_web import recompute_carbon  # noqa: PLC0415 - an HTTP client

    old = stage.sidecar
    carbon = recompute_carbon(stage.path, old, config, environ)
    # A factor that varies is known over the run, not over the attempts that came to nothing.
    co2_all_g = carbon.co2_g if old.energy_all_kwh == old.energy_kwh else None
    if carbon.provider not in NETWORK:
        co2_all_g = compute_co2_g(old.energy_all_kwh, old.pue.value, carbon.g_per_kwh)
    sidecar = replace(old, carbon=carbon, co2_g=carbon.co2_g, co2_all_g=co2_all_g)
    return replace(stage, sidecar=sidecar, recorded_carbon=old.carbon)


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
    advice: Advice | None = None
    mixed = [Note(f"Mixed, and so not comparable: {d.describe()}.") for d in differences]
    unlike_arithmetic = explain_arithmetic(results)

    def note(table: Table) -> Table:
        has_training = any(row.stage and row.stage.number == TRAIN_STAGE for row in table.rows)
        costs = map(Note, unlike_arithmetic) if has_training else ()
        return replace(table, notes=(*mixed, *costs, *table.notes))

    def add_tables(tables: list[Table]) -> None:
        noted = list(map(note, tables))
        output.paths += write_tables(noted, directory)
        output.tables += noted

    tables = build_tables(results, _choose_sets(results, study, inference_sets))
    joined = write_model_results(results)
    add_tables(tables)
    output.paths.append(write_paper_table(tables[0], results, directory))
    show(output.tables)

    def compare() -> None:
        from sv.report.tables.against import build_comparison  # noqa: PLC0415

        add_tables(build_comparison(results, study))

    def advise() -> None:
        nonlocal advice
        from sv.report.advice import build_advice, format_advice  # noqa: PLC0415

        advice = build_advice(results, differences)
        output.paths.append(directory / "advice.md")
        write_text(output.paths[-1], format_advice(advice))
        if advice.table:
            add_tables([advice.table])

    def draw() -> None:
        from sv.report.figures.files import write_captions, write_figures  # noqa: PLC0415

        drawn, left_out, failures = write_figures(results, directory)
        output.figures += drawn
        output.paths += [path for figure in drawn for path in figure.paths]
        output.paths += [write_captions(drawn, directory)] if drawn else []
        output.left_out += left_out
        output.failures += failures

    def lay_out() -> None:
        from sv.report.page.page import write_page  # noqa: PLC0415

        if advice is None:
            raise SvError("there is no advice to show")
        output.paths.append(write_page(results, output.tables, advice, output.figures, directory))

    parts = {"comparison": compare, "advice": advise, "figures": draw, "page": lay_out}
    for name, make in parts.items():
        try:
            make()
        except (SvError, ModuleNotFoundError) as error:
            output.failures.append(f"no {name}: {error}")
    _remove_old_tables(output.tables, directory)
    return replace(output, paths=[*output.paths, *joined])


def build_tables(results: Results, sets: tuple[str, ...] | None = None) -> list[Table]:
    """Build tables 1 (training), 2 (inference), 3 (stages) and 4 (confidence).

    Args:
        results: What stage 8 found.
        sets: The test sets of Table 2; None: all.
    """
    return [
        build_training_table(results),
        build_inference_table(results, sets),
        build_stage_table(results),
        build_confidence_table(results),
    ]


def write_tables(tables: list[Table], directory: Path) -> list[Path]:
    """Write every table as ``<name>.md``, ``.tex``, ``.csv`` and ``.json``; return the paths."""
    paths = []
    for table in tables:
        for suffix, format_table in FORMATS.items():
            path = directory / f"{table.name}.{suffix}"
            write_text(path, format_table(table))
            paths.append(path)
    return paths


def write_paper_table(table: Table, results: Results, directory: Path) -> Path:
    """Write Table 1 as a paper prints it, ``table1_paper.tex``; return the path."""
    path = directory / f"{table.name}_paper.tex"
    write_text(path, format_paper_table(table, results))
    return path


def _choose_sets(
    results: Results, study: Path | None, inference_sets: str
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


def _remove_old_tables(tables: list[Table], directory: Path) -> None:
    """Remove tables of an earlier run that this one does not have; they are no longer true."""
    names = {table.name for table in tables}
    for path in directory.glob("*.json"):
        if path.stem not in names and path.read_bytes().startswith(JSON_START.encode()):
            for suffix in FORMATS:
                path.with_suffix(f".{suffix}").unlink(missing_ok=True)
