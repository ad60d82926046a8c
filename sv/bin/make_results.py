"""Collect metrics and energy of all systems into tables and figures (stage 8)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run, true_or_false
from sv.errors import SvError
from sv.report.cells import missing_lines
from sv.report.collect import collect_results
from sv.report.formats import format_markdown
from sv.report.joined import write_model_results
from sv.report.records import Results
from sv.report.tables import build_tables, write_tables


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; see --help."""
    parser = Parser(__doc__)
    parser.add_argument("--models", default="", help="names in quotes; default: all under <exp>")
    parser.add_argument(
        "--allow-missing",
        type=true_or_false,
        default=True,
        help="false: status 1 where tables 1 and 2 lack a figure (they are written all the same)",
    )
    parser.add_argument("data", type=Path, help="the recipe's data folder (energy, test_trials)")
    parser.add_argument("exp", type=Path, help="the recipe's exp folder; writes <exp>/results")
    args = parser.parse_args(argv)

    results = collect_results(args.data, args.exp, args.models.split())
    directory = args.exp / "results"
    joined = write_model_results(results)
    tables = build_tables(results)
    paths = write_tables(tables, directory)
    print("\n".join(format_markdown(table) for table in tables[:2]), flush=True)
    paths += _write_figures(results, directory)
    sidecars = [stage.path for stage in results.shared]
    sidecars += [stage.path for system in results.systems for stage in system.stages]
    for title, group in (("Results", [*paths, *joined]), ("Energy", sidecars)):
        print(f"{title}:", *(f"  {path}" for path in group), sep="\n")
    missing = [line for table in tables[:2] for line in missing_lines(table)]
    if missing and not args.allow_missing:
        raise SvError(f"{len(missing)} reasons for missing figures, first: {missing[0]}")
    return 0


def _write_figures(results: Results, directory: Path) -> list[Path]:
    # Here, so that the tables are on disk and on the screen whatever happens to the figures.
    try:
        from sv.report.figures import write_figures  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SvError(f"the tables are in {directory}, but no figures: {error}") from error
    paths, left_out = write_figures(results, directory)
    for line in left_out:
        print(f"sv.bin.make_results: {line}", file=sys.stderr)
    return paths


if __name__ == "__main__":
    sys.exit(run("sv.bin.make_results", main))
