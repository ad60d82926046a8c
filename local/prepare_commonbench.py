"""CommonBench: a user's list of trials on Common Voice 16.1.

``<language>/clips/common_voice_<language>_<number>.mp3`` and ``<language>/*.tsv``, which name the
speakers. The list is handed out by its makers and changes when a donor withdraws, so its SHA-256
and date are recorded. Its form is not documented; the columns are recognised by their content: a
label (0 or 1) first or last, and two clips, with or without folders and suffix.
"""

import csv
import io
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from local.corpora import Count, Remark, Request, Rows, keep_scorable
from sv.data.cuts import Utterance, write_data_set
from sv.errors import SvError
from sv.files import hash_file, open_unpacked, write_json
from sv.kaldi.data_dir import MAX_LISTED
from sv.kaldi.trials import write_trials

SET = TRIALS = "commonbench"
CLIP = re.compile(r"common_voice_(?P<language>[A-Za-z-]+)_\d+")
TABLES = ("validated.tsv", "invalidated.tsv", "other.tsv")
LABELS = {"0": False, "1": True, "nontarget": False, "target": True}
SPEAKER_CHARACTERS = 16  # of the 128 of a client_id: 64 bits distinguish a million speakers


def check(request: Request) -> list[Count]:
    """Count the trials of the list, and its clips that are there."""
    rows = read_list(_find_list(request))
    clips = {clip for enrol, test, _ in rows for clip in (enrol, test)}
    paths = tuple(path for clip in clips if (path := _find_clip(request.corpus, clip)))
    return [
        Count(SET, "trials", len(rows)),
        Count(SET, "clips of the list", len(paths), len(clips), paths),
    ]


def find_missing(request: Request) -> dict[str, str]:
    """Look for the corpus and its one list."""
    if not request.corpus.is_dir():
        raise SvError(f"no such folder {request.corpus}")
    _find_list(request)
    return {}


def prepare(request: Request) -> list[Remark]:
    """Write the set and the list commonbench.

    Raises:
        SvError: No list, a line that cannot be parsed, or more clips missing than
            ``max_unmatched`` of corpora.toml allows.
    """
    path = _find_list(request)
    rows = read_list(path)
    clips = sorted({clip for enrol, test, _ in rows for clip in (enrol, test)})
    found = {clip: file for clip in clips if (file := _find_clip(request.corpus, clip))}
    _refuse_unmatched(path, [clip for clip in clips if clip not in found], len(clips), request)
    speakers, labels = _read_speakers(request.corpus, found)
    without = [clip for clip in found if clip not in speakers]
    if without:
        logging.warning(
            "%d of %d clips are in no table of Common Voice, each is taken as a speaker of its "
            "own (first: %s)", len(without), len(found), without[0],
        )  # fmt: skip
    ids = {clip: f"{speakers.get(clip, clip)}-{clip}" for clip in found}
    kept = set(
        write_data_set(
            request.data,
            SET,
            (
                Utterance(ids[clip], speakers.get(clip, clip), file, labels.get(clip, {}))
                for clip, file in found.items()
            ),
            nj=request.nj,
        )
    )
    # max_unmatched, checked above, limits how many may be missing.
    named = [(ids.get(enrol, ""), ids.get(test, ""), target) for enrol, test, target in rows]
    usable, lost = keep_scorable(TRIALS, named, kept, allow_partial=True)
    write_trials(request.data / "trials" / TRIALS, usable)
    source = _describe_list(path, len(rows))
    write_json(request.data / "trials" / f"{TRIALS}.source.json", source)
    remarks = [Remark(TRIALS, f"list of {source['modified']}, SHA-256 {source['sha256'][:16]}...")]
    remarks += lost
    if without:
        remarks.append(Remark(TRIALS, f"{len(without)} of {len(found)} clips of unknown speakers"))
    return remarks


def _find_list(request: Request) -> Path:
    if request.lists.is_file():
        return request.lists
    named = sorted(request.lists.glob("*.txt*")) if request.lists.is_dir() else []
    if len(named) != 1:
        raise SvError(
            f"{TRIALS}: {len(named)} lists (*.txt) in {request.lists}; CommonBench's makers hand "
            "the list out: name its file as lists in [speech.commonbench] of corpora.toml"
        )
    return named[0]


def read_list(path: Path) -> Rows:
    """Read the trials as clip names without folder and suffix.

    Raises:
        SvError: A line that has no label, or not two clips of Common Voice.
    """
    rows: Rows = []
    label_at: int | None = None
    for number, words in _read_words(path):
        if len(words) != 3:
            raise SvError(f"{path}: line {number}: expected 3 columns, not {len(words)}: {words}")
        if label_at is None:
            places = [i for i in (0, 2) if words[i].lower() in LABELS]
            if len(places) != 1:
                if number == 1:
                    continue  # a header
                raise SvError(f"{path}: line {number}: no label (0, 1) first or last: {words}")
            label_at = places[0]
        label = LABELS.get(words[label_at].lower())
        clips = [_name_clip(word) for i, word in enumerate(words) if i != label_at]
        if label is None or None in clips:
            raise SvError(
                f"{path}: line {number}: expected a label and two clips "
                f"(common_voice_<language>_<number>), not {words}"
            )
        rows.append((clips[0], clips[1], label))
    if not rows:
        raise SvError(f"{path}: no trials in it")
    return rows


def _read_words(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open_unpacked(path) as packed, io.TextIOWrapper(packed, "utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if words := line.replace(",", " ").split():
                    yield number, words
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SvError(f"cannot read {path}: {error}") from error


def _name_clip(word: str) -> str | None:
    name = word.rsplit("/", 1)[-1].removesuffix(".mp3").removesuffix(".wav").removesuffix(".flac")
    return sys.intern(name) if CLIP.fullmatch(name) else None


def _find_clip(corpus: Path, clip: str) -> Path | None:
    language = CLIP.fullmatch(clip)["language"]
    for ending in (".flac", ".wav", ".mp3"):
        path = corpus / language / "clips" / f"{clip}{ending}"
        if path.is_file():
            return path
    return None


def _refuse_unmatched(path: Path, unmatched: list[str], total: int, request: Request) -> None:
    if not unmatched:
        return
    text = (
        f"{path}: {len(unmatched)} of {total} clips are not below {request.corpus} "
        f"({', '.join(unmatched[:MAX_LISTED])})"
    )
    allowed = 1.0 if request.allow_partial else request.max_unmatched
    if len(unmatched) > allowed * total:
        raise SvError(f"{text}; max_unmatched in corpora.toml allows {allowed:.2%}")
    logging.warning(text)


def _read_speakers(
    corpus: Path, found: dict[str, Path]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read speaker, gender and language of the clips from Common Voice's tables."""
    speakers: dict[str, str] = {}
    labels: dict[str, dict[str, str]] = {}
    csv.field_size_limit(1 << 24)  # a sentence may be long
    for language in sorted({CLIP.fullmatch(clip)["language"] for clip in found}):
        for table in TABLES:
            path = corpus / language / table
            if not path.is_file():
                continue
            for row in _read_rows(path):
                clip = _name_clip(row["path"])
                if clip in found:
                    speakers[clip] = row["client_id"][:SPEAKER_CHARACTERS]
                    labels[clip] = _label(row, language)
    return speakers, labels


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            # A line may lack its last columns.
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            if missing := {"client_id", "path"}.difference(rows.fieldnames or ()):
                raise SvError(f"{path}: no column {missing.pop()} in its first line")
            yield from rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SvError(f"cannot read {path}: {error}") from error


def _label(row: dict[str, str], language: str) -> dict[str, str]:
    gender = (row.get("gender") or "").split("_")[0]  # male_masculine in newer releases
    return {"language": language} | ({"gender": gender} if gender else {})


def _describe_list(path: Path, trials: int) -> dict[str, object]:
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    return {
        "file": str(path),
        "sha256": hash_file(path, "sha256"),
        "modified": modified,
        "trials": trials,
    }
