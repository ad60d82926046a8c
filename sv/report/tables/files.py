"""The files of the tables: each table in each format, from one description."""

from dataclasses import replace
from pathlib import Path

from sv.files import write_text
from sv.report.results import Results
from sv.report.tables.cells import Note, Table
from sv.report.tables.confidence import build_confidence_table
from sv.report.tables.formats import format_csv, format_json, format_markdown
from sv.report.tables.inference import build_inference_table
from sv.report.tables.latex import format_latex
from sv.report.tables.stages import build_stage_table
from sv.report.tables.training import build_training_table

FORMATS = {"md": format_markdown, "tex": format_latex, "csv": format_csv, "json": format_json}


def build_tables(results: Results, sets: tuple[str, ...] | None = None) -> list[Table]:
    """Build tables 1 (training), 2 (inference), 3 (stages) and 4 (confidence).

    Args:
        results: What stage 8 found.
        sets: The test sets of Table 2; None: all.
    """
    # Below every table that has scores: what its reader must know of the corpora.
    remarks = tuple(Note(f"{trials or 'All lists'}: {text}.") for trials, text in results.remarks)
    training, confidence = build_training_table(results), build_confidence_table(results)
    inference = build_inference_table(results, sets)
    return [
        replace(training, notes=(*training.notes, *remarks)),
        replace(inference, notes=(*inference.notes, *remarks)),
        build_stage_table(results),
        replace(confidence, notes=(*confidence.notes, *remarks)),
    ]


def write_tables(tables: list[Table], directory: Path) -> list[Path]:
    """Write every table as ``<name>.md``, ``.tex``, ``.csv`` and ``.json``; give the paths."""
    paths = []
    for table in tables:
        for suffix, format_table in FORMATS.items():
            path = directory / f"{table.name}.{suffix}"
            write_text(path, format_table(table))
            paths.append(path)
    return paths
