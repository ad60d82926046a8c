"""Compute the emissions of sidecars anew, at another carbon factor; the energy stays.

Usage: python3 -m sv.bin.recost --provider owid|fixed|rte|electricity_maps [options] SIDECAR...
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.config import build_config
from sv.energy.carbon.recost import format_table, recost
from sv.energy.config import PROVIDERS, EnergyConfig
from sv.files import read_toml


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``recost/`` beside each sidecar and print old and new grams."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--provider", required=True, choices=PROVIDERS)
    parser.add_argument("--country", default="", help="ISO3 code, instead of the config's")
    parser.add_argument(
        "--year", type=cli.positive_int, help="of the table (owid); default: newest"
    )
    parser.add_argument("--g-per-kwh", type=float, help="the fixed factor")
    parser.add_argument("--source", help="where the fixed factor is from")
    parser.add_argument("--config", default="", help="energy.toml; empty: built-in values")
    parser.add_argument("sidecars", nargs="+", type=Path, metavar="SIDECAR")
    args = parser.parse_args(argv)
    values = read_toml(Path(args.config)) if args.config else {}
    values["carbon"] = [args.provider]
    if args.country:
        values["country"] = args.country
    if args.year is not None:
        values["carbon_year"] = args.year
    if args.provider != "fixed":
        values.pop("g_per_kwh", None)
    if args.g_per_kwh is not None:
        values |= {"g_per_kwh": args.g_per_kwh, "g_per_kwh_source": args.source or ""}
    config = build_config(values, EnergyConfig, where=args.config or "sv.bin.recost's options")
    results = [recost(path, config, os.environ) for path in args.sidecars]
    print(format_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("sv.bin.recost", main))
