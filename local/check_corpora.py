"""Stage 0: make the corpora if the recipe has a program for it, then see that all are there."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local.corpora import find_root, read_corpora_config
from sv.bin.cli import Parser, positive_int, run
from sv.data.cuts import list_audio
from sv.errors import SvError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of what was found; status 1 and a line each for what is missing."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--nj", type=positive_int, default=1, help="parallel jobs")
    args = parser.parse_args(argv)
    config = read_corpora_config(args.config)
    root = find_root(config, args.corpora, args.config)
    if config.make:
        _make(config.make, args.config.with_name(f"{config.make}.toml"), args.nj, root)
    folders = {f"speech {name}": [s.path] for name, s in config.speech.items()}
    folders |= {f"augment {kind}": paths for kind, paths in config.augment.items()}
    missing = [
        f"speech {name}: there is no local/prepare_{name}.py yet, see docs/adding-a-corpus.md"
        for name in config.speech
        if importlib.util.find_spec(f"local.prepare_{name}") is None
    ]
    for what, paths in folders.items():
        for path in paths:
            try:
                found = len(list_audio(root / path))
                print(f"  {what:16} {found:8} audio files  {root / path}", file=sys.stderr)
            except SvError as error:
                missing.append(f"{what}: {error}")
    for line in missing:
        print(f"local.check_corpora: {line}", file=sys.stderr)
    if missing:
        raise SvError(f"{len(missing)} entries of {args.config} cannot be used; see --corpora")
    return 0


def _make(name: str, config: Path, nj: int, root: Path) -> None:
    """Run local/make_<name>.py as a process of its own.

    It starts worker processes, each of which imports its main module: this one, with lhotse and
    torch behind it, would cost each of them more than its work.
    """
    program = [sys.executable, "-m", f"local.make_{name}", "--config", str(config)]
    done = subprocess.run([*program, "--nj", str(nj), str(root)], check=False)
    if done.returncode != 0:
        kind = UsageError if done.returncode == 2 else SvError
        raise kind(f"local.make_{name} ended with status {done.returncode}, see above")


if __name__ == "__main__":
    sys.exit(run("local.check_corpora", main))
