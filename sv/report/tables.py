"""The files of the tables: each table in each format, from one description."""

from pathlib import Path

from sv.files import write_text
from sv.report.cells import Table
from sv.report.formats import format_csv, format_latex, format_markdown
from sv.report.inference_table import build_inference_table
from sv.report.records import Results
from sv.report.stage_table import build_stage_table
from sv.report.training_table import build_training_table

FORMATS = {"md": format_markdown, "tex": format_latex, "csv": format_csv}


def build_tables(results: Results) -> list[Table]:
    """Build tables 1 (training), 2 (inference) and 3 (stages)."""
    return [
        build_training_table(results),
        build_inference_table(results),
        build_stage_table(results),
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
