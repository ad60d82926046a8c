"""The files of the tables: each table in each format, from one description."""

from dataclasses import replace
from pathlib import Path

from sv.files import write_text
from sv.report.cells import Note, Table
from sv.report.confidence_table import build_confidence_table
from sv.report.formats import format_csv, format_latex, format_markdown
from sv.report.inference_table import build_inference_table
from sv.report.records import Results
from sv.report.stage_table import build_stage_table
from sv.report.training_table import build_training_table

FORMATS = {"md": format_markdown, "tex": format_latex, "csv": format_csv}


def build_tables(results: Results) -> list[Table]:
    """Build tables 1 (training), 2 (inference), 3 (stages) and 4 (confidence)."""
    # Below every table that has scores: what its reader must know of the corpora.
    remarks = tuple(Note(f"{trials or 'All lists'}: {text}.") for trials, text in results.remarks)
    scored = (build_training_table, build_inference_table, build_confidence_table)
    training, inference, confidence = (build(results) for build in scored)
    return [
        replace(training, notes=(*training.notes, *remarks)),
        replace(inference, notes=(*inference.notes, *remarks)),
        build_stage_table(results),
        replace(confidence, notes=(*confidence.notes, *remarks)),
    ]


def write_tables(tables: list[Table], directory: Path) -> list[Path]:
    """Write every table as ``<name>.md``, ``.tex`` and ``.csv``; give the paths."""
    paths = []
    for table in tables:
        for suffix, format_table in FORMATS.items():
            path = directory / f"{table.name}.{suffix}"
            write_text(path, format_table(table))
            paths.append(path)
    return paths
