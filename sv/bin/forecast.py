"""Forecast a training's kWh, CO2 and hours from a metered stretch; record what came of it.

Usage: python3 -m sv.bin.forecast SIDECAR OUT.json
       python3 -m sv.bin.forecast --outcome EXP_DIR
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.energy.forecast import add_outcome, compute_forecast, format_forecast, read_forecast
from sv.energy.record import read_record
from sv.errors import UsageError
from sv.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Write OUT.json, or the outcome into EXP_DIR/forecast.json, and print it."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--outcome", type=Path, help="model folder whose training has ended")
    parser.add_argument("paths", nargs="*", type=Path, metavar="SIDECAR OUT.json")
    args = parser.parse_args(argv)
    if (args.outcome is None) != (len(args.paths) == 2):  # noqa: PLR2004
        raise UsageError("give SIDECAR and OUT.json, or --outcome EXP_DIR (see --help)")
    if args.outcome is not None:
        out = args.outcome / "forecast.json"
        training = read_record(args.outcome / "energy" / "05_train.json")
        forecast = add_outcome(read_forecast(out), training)
    else:
        sidecar, out = args.paths
        forecast = compute_forecast(read_record(sidecar), time.time())
    write_json(out, forecast)
    print(format_forecast(forecast))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("sv.bin.forecast", main))
