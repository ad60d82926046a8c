"""Stage 0: make the corpora if the recipe has a program for it, then see that all are there.

Found is set beside published: speakers, utterances, trials, and hours where audio is looked at.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from local.audit import audit_audio
from local.corpora import (
    CorporaConfig,
    Request,
    find_lists,
    find_root,
    load_program,
    read_corpora_config,
)
from local.counts import Count
from local.sources import count_sources
from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.data.recordings import list_audio
from sv.errors import SvError, UsageError
from sv.kaldi.data_dir import MAX_LISTED

LOOKS = ("none", "header", "decode")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of what was found; status 1 and a line each for what is missing."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--lists", default="", help="folder of trial lists and speaker tables")
    parser.add_argument("--nj", type=positive_int, default=1, help="parallel jobs")
    parser.add_argument("--audio", default="none", help="look at files: none, header, decode")
    parser.add_argument(
        "--allow-partial",
        type=true_or_false,
        default=False,
        help="go on without missing parts",
    )
    args = parser.parse_args(argv)
    if args.audio not in LOOKS:
        raise UsageError(f"--audio {args.audio}: must be one of {', '.join(LOOKS)}")
    config = read_corpora_config(args.config)
    root = find_root(config, args.corpora, args.config)
    if config.make:
        _make(config.make, args.config.with_name(f"{config.make}.toml"), args.nj, root)
    counts: list[Count] = []
    missing: list[str] = []
    for name, speech in config.speech.items():
        request = Request(
            corpus=root / speech.path,
            data=Path(),
            lists=find_lists(root, speech, args.lists),
            trials=config.trials,
        )
        try:
            counts += _count(name, request)
        except SvError as error:
            missing.append(f"speech {name}: {error}")
    counts += _count_sources(config, root, missing)
    for count in counts:
        _print_row(count)
        if not count.complete:
            missing.append(
                f"{count.part}: {count.found} {count.what}, {count.published} were published"
            )
    if args.audio != "none":
        missing += _look_at_audio(counts, decode=args.audio == "decode", nj=args.nj)
    for line in missing:
        print(f"local.check_corpora: {line}", file=sys.stderr)
    if missing and not args.allow_partial:
        raise SvError(
            f"{len(missing)} entries of {args.config} are missing or incomplete; see --corpora, "
            "or give --allow-partial true to go on with what is there"
        )
    return 0


def _count(name: str, request: Request) -> Iterable[Count]:
    program = load_program(name)
    if hasattr(program, "check"):
        return program.check(request)
    paths = tuple(list_audio(request.corpus))
    return [Count(f"speech {name}", "audio files", len(paths), None, paths)]


def _count_sources(config: CorporaConfig, root: Path, missing: list[str]) -> Iterable[Count]:
    for kind, entries in config.augment.items():
        try:
            yield from count_sources(root, kind, entries, published=not config.make)
        except SvError as error:
            missing.append(f"augment {kind}: {error}")


def _print_row(count: Count) -> None:
    published = "" if count.published is None else f"of {count.published}"
    print(f"  {count.part:16} {count.found:8} {published:12} {count.what}", file=sys.stderr)


def _look_at_audio(counts: list[Count], *, decode: bool, nj: int) -> list[str]:
    """Print hours; give a line for each file that cannot be used, the first ten of a part."""
    lines = []
    for count in counts:
        if not count.paths:
            continue
        audit = audit_audio(count.paths, decode=decode, nj=nj)
        hours = f"{audit.seconds / 3600:.1f} h, {len(audit.short)} files under 1 s"
        print(f"  {count.part:16} {hours}", file=sys.stderr)
        for line in audit.short[:MAX_LISTED]:
            print(f"    {line}", file=sys.stderr)
        lines += [f"{count.part}: {message}" for message in audit.bad[:MAX_LISTED]]
        if len(audit.bad) > MAX_LISTED:
            lines.append(f"{count.part}: {len(audit.bad)} files cannot be used in all")
    return lines


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
