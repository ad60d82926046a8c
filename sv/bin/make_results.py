"""Collect metrics and energy of all systems into tables, advice, figures and a page (stage 8)."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run, true_or_false
from sv.energy.carbon_web import choose_carbon
from sv.errors import SvError, UsageError
from sv.files import write_text
from sv.report.output import recompute_co2, write_output
from sv.report.results import collect_results
from sv.report.tables.cells import Table, format_markdown, missing_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; see --help."""
    parser = Parser(__doc__)
    parser.add_argument("--models", default="", help="names in quotes; default: all under <exp>")
    parser.add_argument(
        "--allow-missing", type=true_or_false, default=True,
        help="false: status 1 where tables 1 and 2 lack a figure (they are written all the same)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-mixed", type=true_or_false, default=False,
        help="true: systems trained or scored by different settings too, named below the tables",
    )  # fmt: skip
    parser.add_argument("--study", type=Path, help="folder of published figures to compare with")
    parser.add_argument(
        "--inference-sets", default="",
        help="test sets of Table 2 in quotes, or all; default: those of the study's Table 2 that "
        "some system has extracted, else all",
    )  # fmt: skip
    parser.add_argument(
        "--carbon",
        help="CO2 at the factor of owid, fixed, rte or electricity_maps, not at the recorded one",
    )  # fmt: skip
    parser.add_argument("--country", help="of that factor, ISO 3166 alpha-3: FRA")
    parser.add_argument("--year", type=int, help="of that factor; default: the latest (owid)")
    parser.add_argument("--g-per-kwh", type=float, help="that factor, for --carbon fixed")
    parser.add_argument("data", type=Path, help="the recipe's data folder (energy, test_trials)")
    parser.add_argument("exp", type=Path, help="the recipe's exp folder; writes <exp>/results")
    args = parser.parse_args(argv)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it reports that it lists the fonts

    chosen = {"country": args.country, "year": args.year, "g_per_kwh": args.g_per_kwh}
    if args.carbon is None and any(value is not None for value in chosen.values()):
        raise UsageError("--country, --year and --g-per-kwh are of --carbon, which is not given")
    config = choose_carbon(args.carbon, **chosen) if args.carbon else None
    results = collect_results(args.data, args.exp, args.models.split())
    if config is not None:
        results = recompute_co2(results, config, os.environ)
    output = write_output(
        results, args.exp / "results", study=args.study, inference_sets=args.inference_sets,
        allow_mixed=args.allow_mixed, show=_print_tables,
    )  # fmt: skip
    contents = args.exp / "results" / "contents.txt"
    sidecars = [stage.path for _, stage in results.stages]
    parts = {"Results": output.paths, "Energy": sidecars, "Not in the figures": output.left_out}
    lines = [line for title, part in parts.items() for line in (f"{title}:", *part) if part]
    write_text(contents, "".join(f"{line}\n" for line in lines))
    print(f"Results: {args.exp / 'results'} ({len(output.paths)} files, listed in {contents.name})")
    if failures := [*output.failures, *(f"not read: {line}" for line in results.broken)]:
        where = args.exp / "results"
        raise SvError(f"the tables are in {where}, but {'; '.join(failures)}")
    missing = [line for table in output.tables[:2] for line in missing_lines(table)]
    if missing and not args.allow_missing:
        raise SvError(f"{len(missing)} reasons for missing figures, first: {missing[0]}")
    return 0


def _print_tables(tables: list[Table]) -> None:
    print("\n".join(format_markdown(table) for table in tables[:2]), flush=True)


if __name__ == "__main__":
    sys.exit(run("sv.bin.make_results", main))
