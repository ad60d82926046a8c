"""Kaldi data directories: sorted two-column text tables, one utterance (or speaker) a line.

The tables are ``wav.scp utt2spk spk2utt utt2dur utt2num_frames feats.scp``; each line is a key,
a space and the rest. Lines are in C order of their keys (``LC_ALL=C sort``), and utterance ids
start with their speaker's id, so that sorting by utterance sorts by speaker too.
"""

import itertools
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from sv.errors import SvError
from sv.files import read_text, replacing

# Tables with one line for each utterance, other than utt2spk.
UTTERANCE_TABLES = (
    "wav.scp", "text", "vad.scp", "utt2dur", "utt2num_frames", "feats.scp", "utt2lang", "utt2uniq",
)  # fmt: skip
SPEAKER_TABLES = ("spk2gender", "cmvn.scp")
# What a value must be, in Kaldi's own check (egs/wsj/s5/utils/validate_data_dir.sh, 2025-07).
VALUES = {
    "utt2spk": r"\S+",
    "utt2dur": r"(?=.*[1-9])[0-9.]+(e[+-]?[0-9]+)?",  # above 0
    "utt2num_frames": r"0*[1-9][0-9]*",
    "spk2gender": "[mf]",
}
NO_SEGMENTS = "not read here: an utterance is a whole recording; cut the audio first"
MAX_LISTED = 10  # problems named in a message; the rest are counted
# Data directories and trial lists of this process: stage 1 checks what its own run has made.
written: set[Path] = set()


def read_table(path: Path) -> dict[str, str]:
    """Read a table into a dict in file order.

    Raises:
        SvError: No such file, a line without a value, or a key that is listed twice.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        key, value = [*line.split(maxsplit=1), "", ""][:2]
        if not value:
            raise SvError(f"{path}: line {number}: expected '<key> <value>', not {line!r}")
        if key in table:
            raise SvError(f"{path}: line {number}: '{key}' is listed twice")
        table[key] = value.strip()
    return table


def read_feats(feats_scp: Path, utt2num_frames: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Read the location of the features of each utterance, and their numbers of frames.

    Returns:
        Utterance to ``ark:offset``, and utterance to frames (of all that have features).

    Raises:
        SvError: See `read_table`; also an utterance without a number of frames.
    """
    feats, frames = read_table(feats_scp), read_table(utt2num_frames)
    for key, count in frames.items():
        if not re.fullmatch("[0-9]{1,18}", count):
            raise SvError(f"{utt2num_frames}: {key}: '{count}' is not a whole number")
    if missing := sorted(feats.keys() - frames.keys()):
        raise SvError(
            f"{utt2num_frames}: {len(missing)} utterances of {feats_scp} missing "
            f"(first: {missing[0]}); make stage 3 again"
        )
    return feats, {key: int(frames[key]) for key in feats}


def write_table(path: Path, rows: Mapping[str, object]) -> None:
    """Write a table in C order of its keys; an unchanged file keeps its modification time."""
    with replacing(path, keep_if_same=True) as file:
        # Python orders str by code point, which for UTF-8 is the order of the bytes: C order.
        file.writelines(f"{key} {value}\n" for key, value in sorted(rows.items()))


def invert_utt2spk(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Return spk2utt: for each speaker its utterances, sorted and joined by spaces."""
    spk2utt: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        spk2utt.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(utterances) for speaker, utterances in spk2utt.items()}


def write_data_dir(
    data_dir: Path, utt2spk: Mapping[str, str], **tables: Mapping[str, object]
) -> None:
    """Write utt2spk, spk2utt and further tables (``wav_scp=...`` writes ``wav.scp``).

    Raises:
        SvError: An utterance id does not start with its speaker's id.
    """
    written.add(data_dir)
    for utterance, speaker in utt2spk.items():
        if not utterance.startswith(speaker):
            raise SvError(f"{data_dir}: utterance '{utterance}' does not begin with '{speaker}'")
    write_table(data_dir / "utt2spk", utt2spk)
    write_table(data_dir / "spk2utt", invert_utt2spk(utt2spk))
    for name, rows in tables.items():
        write_table(data_dir / name.replace("_scp", ".scp"), rows)


def find_problems(
    data_dir: Path,
    *,
    require: Iterable[str] = (),
    skip: Container[str] = (),
    spk_sort: bool = True,
) -> list[str]:
    """List the problems of a data directory, a line each; an empty list means it is valid.

    Args:
        data_dir: The directory.
        require: Tables that must exist, besides utt2spk and spk2utt (``"feats.scp"``).
        skip: Tables that are not looked at.
        spk_sort: Whether the utterances of a speaker must stand together, as in Kaldi's own check
            (``--no-spk-sort`` is Kaldi's name for leaving it out).
    """
    problems = []
    if (data_dir / "segments").exists():
        problems.append(f"{data_dir}/segments: {NO_SEGMENTS}")
    required = ("utt2spk", "spk2utt", *require)
    found: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys((*required, *UTTERANCE_TABLES, *SPEAKER_TABLES)):
        path = data_dir / name
        if name in skip:
            continue
        if not path.exists():
            if name in required:
                problems.append(f"{path}: no such file")
            continue
        try:
            found[name] = read_table(path)
        except SvError as error:
            problems.append(str(error))
            continue
        problems += _check_lines(path, found[name])
    utt2spk = found.get("utt2spk")
    if utt2spk is None:
        return problems
    strays = [u for u, s in utt2spk.items() if not u.startswith(s)]
    problems += _describe(
        f"{data_dir}/utt2spk: utterance ids that do not begin with their speaker", strays
    )
    speakers = invert_utt2spk(utt2spk)
    if "spk2utt" in found and dict(found["spk2utt"]) != speakers:
        problems.append(f"{data_dir}/spk2utt: is not the inverse of utt2spk")
    if spk_sort and (parted := find_parted_speakers(utt2spk)):
        problems += _describe(
            f"{data_dir}/utt2spk: speakers whose utterances do not stand together, as their id is "
            "the beginning of another's; rename them, or give --no-spk-sort", parted
        )  # fmt: skip
    for names, keys, what in (
        (UTTERANCE_TABLES, utt2spk.keys(), "utterances"),
        (SPEAKER_TABLES, speakers.keys(), "speakers"),
    ):
        for name in names:
            if name in found:
                other, path = found[name].keys(), data_dir / name
                problems += _describe(f"{path}: {what} missing", keys - other)
                problems += _describe(f"{path}: {what} not in utt2spk", other - keys)
    return problems


def _check_lines(path: Path, table: Mapping[str, str]) -> list[str]:
    """List what is wrong with the order of a table, its values or its end."""
    problems, keys = [], list(table)
    if not keys:
        return [f"{path}: empty"]
    if keys != sorted(keys):
        first = next(b for a, b in zip(keys, sorted(keys), strict=True) if a != b)
        problems.append(f"{path}: not in C order (first misplaced: {first}); sort with LC_ALL=C")
    if not path.read_bytes().endswith(b"\n"):
        problems.append(f"{path}: its last line has no end")
    return problems + _check_values(path, table)


def _check_values(path: Path, table: Mapping[str, str]) -> list[str]:
    form = re.compile(VALUES.get(path.name, ".*"))
    wrong = [f"{key} {value}" for key, value in table.items() if not form.fullmatch(value)]
    return _describe(f"{path}: lines with another value than there can be", wrong)


def find_parted_speakers(utt2spk: Mapping[str, str]) -> list[str]:
    """Return the speakers between whose utterances, in C order, those of another one stand.

    mark-1, mark-2-1 (of mark-2), mark-3: Kaldi sorts by utterance and by speaker, and refuses it.
    """
    runs = Counter(speaker for speaker, _ in itertools.groupby(utt2spk[u] for u in sorted(utt2spk)))
    return [speaker for speaker, count in runs.items() if count > 1]


def _describe(what: str, keys: Iterable[str]) -> list[str]:
    keys = sorted(keys)
    if not keys:
        return []
    more = ", ..." if len(keys) > MAX_LISTED else ""
    return [f"{what}: {len(keys)} ({', '.join(keys[:MAX_LISTED])}{more})"]


def fix_data_dir(data_dir: Path) -> list[str]:
    """Sort the tables and keep only the utterances that every present table has.

    The original tables are kept in ``.backup/``. Returns the changes, a line each.

    Raises:
        SvError: A file is not a table (nothing is guessed), or no utterance would be left.
    """
    if not data_dir.is_dir():
        raise SvError(f"no such folder {data_dir}")
    present = [n for n in ("utt2spk", *UTTERANCE_TABLES) if (data_dir / n).exists()]
    if (data_dir / "segments").exists():
        raise SvError(f"{data_dir}/segments: {NO_SEGMENTS}")
    if "utt2spk" not in present:
        raise SvError(f"{data_dir}/utt2spk: no such file; nothing can be repaired without it")
    tables = {name: read_table(data_dir / name) for name in present}
    for name, table in tables.items():
        if problems := _check_values(data_dir / name, table):
            raise SvError(problems[0])
    keep = set.intersection(*(set(table) for table in tables.values()))
    if not keep:
        raise SvError(f"{data_dir}: no utterance is in all of {', '.join(present)}")
    changes = []
    new_tables = {name: {k: v for k, v in t.items() if k in keep} for name, t in tables.items()}
    new_tables["spk2utt"] = invert_utt2spk(new_tables["utt2spk"])
    for name, table in new_tables.items():
        path = data_dir / name
        old = path.read_bytes() if path.exists() else b""
        write_table(path, table)
        if path.read_bytes() != old:
            if old:
                with replacing(data_dir / ".backup" / name, mode="wb") as file:
                    file.write(old)
            removed = len(tables[name]) - len(table) if name in tables else 0
            changes.append(f"{path}: removed {removed} lines" if removed else f"{path}: rewritten")
    return changes
