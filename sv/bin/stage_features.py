"""Copy a training set's features to a disk of this machine, or check its copies; run a command."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, expanded_path, run
from sv.data.crops import load_crop_index
from sv.data.staging import stage_archives
from sv.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Make the copies below ROOT right; the command takes the place of this process."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    parser = Parser(__doc__)
    parser.add_argument("root", type=expanded_path, help="where copies are, e.g. '$SLURM_TMPDIR'")
    parser.add_argument("egs_dir", type=Path, help="training set, e.g. data/egs; then -- COMMAND")
    args = parser.parse_args(words[:at])
    command = words[at + 1 :]
    stage_archives(load_crop_index(args.egs_dir / "train.npz"), args.root)
    if not command:
        return 0
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise UsageError(f"{command[0]}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(run("sv.bin.stage_features", main))
