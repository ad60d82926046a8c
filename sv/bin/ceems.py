"""Import a Slurm job's energy from a CEEMS API server, next to our own of the same job.

Usage: python3 -m sv.bin.ceems --url URL --cluster ID --job ID --user NAME [SIDECAR...] OUT.json

CEEMS's stock rules multiply by the site's PUE, ours never does: ratio_meaning in OUT.json says how
ours / CEEMS is to be read, reasons why a figure is null.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.energy.ceems import PARTS, RATIO_MEANING, Job, import_job, validate_out
from sv.energy.units import format_figure
from sv.errors import UsageError
from sv.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Write OUT.json and print the three ratios."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--url", required=True, help="API server, without /api")
    parser.add_argument("--cluster", required=True, help="identifier of the cluster, e.g. slurm-0")
    parser.add_argument("--job", required=True, help="Slurm's job id")
    parser.add_argument("--user", required=True, help="user whose job it is")
    parser.add_argument("--user-header", default="X-Grafana-User", help="header with the user")
    parser.add_argument(
        "--auth-variable",
        default="CEEMS_BASIC_AUTH",
        help="environment variable with user:password of the server",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="[SIDECAR...] OUT.json",
        help="the file to write, last; before it our sidecars (none: all of its folder)",
    )
    parser.usage = (  # argparse's own would name the paths twice
        "python3 -m sv.bin.ceems --url URL --cluster ID --job ID --user NAME [options] "
        "[SIDECAR...] OUT.json"
    )
    args = parser.parse_args(argv)
    *sidecars, out = args.paths
    validate_out(out)
    for path in sidecars:
        if not path.is_file():
            raise UsageError(f"no such sidecar {path} (OUT.json is named last)")
    # Without any named, all of the folder that the file goes to: exp/<model>/energy.
    sidecars = sidecars or sorted(out.parent.glob("[0-9][0-9]_*.json"))
    auth = os.environ.get(args.auth_variable) or None
    job = Job(args.url, args.cluster, args.job, args.user, args.user_header, auth)
    result = import_job(job, sidecars, time.time())
    write_json(out, result)
    for part in PARTS:
        figures = (result["ours"][part], result["imported"][part], result["ratio"][part])
        ours, theirs, ratio = ("-" if f is None else format_figure(f) for f in figures)
        whys = (result["reasons"].get(f"{what}.{part}") for what in ("imported", "ratio"))
        why = "; ".join(dict.fromkeys(filter(None, whys)))
        print(f"{part}: ours {ours}, CEEMS {theirs}, ratio {ratio}" + (f" ({why})" if why else ""))
    print(f"ratio: {RATIO_MEANING}")
    for line in result["ours"]["left_out"]:
        print(f"sv.bin.ceems: left out: {line}", file=sys.stderr)
    if not result["imported"]["final"]:
        print("sv.bin.ceems: the job has not ended for 20 minutes: ask again", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("sv.bin.ceems", main))
