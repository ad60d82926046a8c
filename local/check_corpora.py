"""Stage 0: make the corpora if the recipe has a program for it, then check that all are there.

Speakers, utterances and trials are counted and compared with the published numbers; --audio opens
each file too, and reports hours, short files and files that cannot be used.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.corpora import (
    CorporaConfig,
    Count,
    Request,
    find_root,
    plan_preparation,
    read_corpora_config,
)
from local.sources import count_sources
from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.data.audio import decode_audio, list_audio, read_duration_s
from sv.data.parallel import map_chunks
from sv.errors import SvError, UsageError
from sv.kaldi.data_dir import MAX_LISTED

LOOKS = ("none", "header", "decode")
SHORT_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of what was found; status 1 and a line for each part that is missing."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--lists", default="", help="folder of trial lists and speaker tables")
    parser.add_argument("--nj", type=positive_int, default=1, help="parallel jobs")
    parser.add_argument("--audio", default="none", help="check of files: none, header, decode")
    parser.add_argument(
        "--allow-partial",
        type=true_or_false,
        default=False,
        help="continue without missing parts",
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
    plan = plan_preparation(config, args.config, root, args.lists, data=Path())
    missing += [f"{what}: {why}" for what, why in plan.missing.items()]
    for name, (program, request) in plan.requests.items():
        try:
            counts += _count(name, program, request)
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
        missing += _audit(counts, decode=args.audio == "decode", nj=args.nj)
    for line in missing:
        print(f"local.check_corpora: {line}", file=sys.stderr)
    if missing and not args.allow_partial:
        raise SvError(
            f"{len(missing)} entries of {args.config} are missing or incomplete; see --corpora, "
            "or give --allow-partial true to continue with what is there"
        )
    return 0


def _count(name: str, program: Any, request: Request) -> Iterable[Count]:
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


@dataclass
class _Audit:
    """Sums over audio files; ``short`` and ``bad`` have a line for each such file."""

    seconds: float = 0.0
    short: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def _audit(counts: list[Count], *, decode: bool, nj: int) -> list[str]:
    """Print hours and short files; return a line for each file that cannot be used.

    Of each part, the first ten of both are listed. With ``decode`` a file is decoded to its end
    and must not be silent; else only its header is read.
    """
    lines = []
    for count in counts:
        if not count.paths:
            continue
        audit = _Audit()
        for part in map_chunks(_audit_chunk, count.paths, decode, nj=nj):
            audit.seconds += part.seconds
            audit.short += part.short
            audit.bad += part.bad
        hours = f"{audit.seconds / 3600:.1f} h, {len(audit.short)} files under {SHORT_S:g} s"
        print(f"  {count.part:16} {hours}", file=sys.stderr)
        for line in audit.short[:MAX_LISTED]:
            print(f"    {line}", file=sys.stderr)
        lines += [f"{count.part}: {message}" for message in audit.bad[:MAX_LISTED]]
        if len(audit.bad) > MAX_LISTED:
            lines.append(f"{count.part}: {len(audit.bad)} files cannot be used in all")
    return lines


def _audit_chunk(paths: list[Path], decode: bool) -> _Audit:
    audit = _Audit()
    for path in paths:
        try:
            seconds = _decode(path) if decode else read_duration_s(path)
        except SvError as error:
            audit.bad.append(str(error))
            continue
        audit.seconds += seconds
        if seconds < SHORT_S:
            audit.short.append(f"{path}: {seconds:.2f} s")
    return audit


def _decode(path: Path) -> float:
    samples, rate_hz = decode_audio(path)
    if not float(abs(samples).sum(dtype="f8")) > 0:  # NaN is not above 0 either
        raise SvError(f"{path}: silent, or NaN in it")
    return len(samples) / rate_hz


def _make(name: str, config: Path, nj: int, root: Path) -> None:
    """Run local/make_<name>.py as a process of its own.

    It starts worker processes, each of which imports its main module: this one, which imports
    lhotse and torch, would cost each of them more than its work.
    """
    program = [sys.executable, "-m", f"local.make_{name}", "--config", str(config)]
    done = subprocess.run([*program, "--nj", str(nj), str(root)], check=False)
    if done.returncode != 0:
        kind = UsageError if done.returncode == 2 else SvError
        raise kind(f"local.make_{name} ended with status {done.returncode}, see above")


if __name__ == "__main__":
    sys.exit(run("local.check_corpora", main))
