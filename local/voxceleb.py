"""What VoxCeleb1 and VoxCeleb2 share: ids, trial lists, speaker tables, published counts.

An audio file is ``<speaker>/<video>/<number>``; its utterance id joins the three with '-'. Video
ids contain '-' and '_' and may begin with them: ids are split by their fixed widths (7, 11 and
5 characters), never at a separator.
"""

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sv.data.audio import walk_audio
from sv.errors import SvError
from sv.files import open_unpacked, read_text

AUDIO = re.compile(r"(id\d{5})/([\w-]{11})/(\d{5})\.(wav|flac|m4a)", re.ASCII)


def utterance_id(relative: str) -> str | None:
    """Return ``id10270-5r0dWxy17C8-00001`` for ``id10270/5r0dWxy17C8/00001.wav``, else None."""
    match = AUDIO.fullmatch(relative)
    return "-".join(match.group(1, 2, 3)) if match else None


def find_utterances(roots: Iterable[Path]) -> tuple[dict[str, Path], list[Path]]:
    """Find the audio files of several folders of speakers.

    Returns:
        Utterance id to file, and the audio files whose path is no VoxCeleb path.

    Raises:
        SvError: A folder cannot be read, or an utterance is in two folders.
    """
    found: dict[str, Path] = {}
    strays: list[Path] = []
    for root in roots:
        for path in walk_audio(root):
            key = utterance_id(path[len(str(root)) + 1 :])
            if key is None:
                strays.append(Path(path))
            elif key in found:
                raise SvError(f"utterance {key} has two files: {found[key]} and {path}")
            else:
                found[key] = Path(path)
    return found, strays


def read_trial_list(
    path: Path, find_id: Callable[[str], str | None] = utterance_id
) -> list[tuple[str, str, bool]]:
    """Read a list in VoxCeleb's form, ``1 <path> <path>``, 1 meaning the same speaker.

    Args:
        path: The list.
        find_id: Returns the utterance id of a path in it, None if it is no such path. The first
            7 characters of an id are the speaker's.

    Raises:
        SvError: A line of another form, or a label that the speakers' ids contradict.
    """
    ids: dict[str, str | None] = {}
    trials = []
    for number, line in enumerate(read_text(path, unpack=True).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        for word in words[1:]:
            if word not in ids:
                ids[word] = find_id(word)
        keys = [ids[word] for word in words[1:]]
        if len(keys) != 2 or None in keys or words[0] not in ("0", "1"):
            raise SvError(
                f"{path}: line {number}: expected '1|0 <speaker>/<video>/<number>.wav "
                f"<speaker>/...', not {line!r}"
            )
        enrol, test = keys
        target = words[0] == "1"
        if target != (enrol[:7] == test[:7]):
            raise SvError(f"{path}: line {number}: label {words[0]} contradicts the ids: {line!r}")
        trials.append((enrol, test, target))
    if not trials:
        raise SvError(f"{path}: empty")
    return trials


@dataclass(frozen=True)
class SpeakerRow:
    """A speaker of vox1_meta.csv or vox2_meta.csv; ``part`` is dev or test."""

    gender: str
    nationality: str | None
    part: str


def read_meta(path: Path) -> dict[str, SpeakerRow]:
    """Read vox1_meta.csv or vox2_meta.csv, in any of their public variants.

    Tabs or commas, a byte-order mark or none, spaces in the header's names.

    Raises:
        SvError: No column of ids, genders or parts.
    """
    lines = read_text(path).splitlines() or [""]
    delimiter = "\t" if "\t" in lines[0] else ","
    try:
        names, *table = csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise SvError(f"{path}: {error}") from error
    header = [name.strip().lower() for name in names]

    def find(word: str) -> int | None:
        return next((i for i, name in enumerate(header) if word in name), None)

    speaker, gender, nation, part = find("voxceleb"), find("gender"), find("nation"), find("set")
    if speaker is None or gender is None or part is None:
        raise SvError(f"{path}: expected columns 'VoxCeleb. ID', 'Gender', 'Set', not {header}")
    rows = {}
    for words in table:
        if len(words) < len(header):
            continue
        rows[words[speaker].strip()] = SpeakerRow(
            gender=words[gender].strip(),
            nationality=None if nation is None else words[nation].strip(),
            part=words[part].strip(),
        )
    return rows


def find_hard_speakers(meta: dict[str, SpeakerRow]) -> tuple[set[str], int]:
    """Return the speakers that VoxCeleb1-H is drawn from, and the number of their groups.

    They share nationality and gender with at least four others (Chung et al., "VoxCeleb2",
    Interspeech 2018, section 4.1): 1,190 speakers in 18 groups.
    """
    groups = Counter((row.nationality, row.gender) for row in meta.values())
    large = {group for group, count in groups.items() if count >= 5}
    speakers = {key for key, row in meta.items() if (row.nationality, row.gender) in large}
    return speakers, len(large)


def find_file(name: str, folders: Iterable[Path]) -> Path | None:
    """Return the first ``<folder>/name`` or ``<folder>/meta/name`` that exists, perhaps as .gz."""
    for folder in folders:
        for path in (folder / name, folder / "meta" / name):
            for each in (path, path.with_name(f"{name}.gz")):
                if each.is_file():
                    return each
    return None


def find_lists_of(trials: int, folders: Iterable[Path]) -> list[Path]:
    """Find trial lists in VoxCeleb's form by their number of trials: other toolkits rename them.

    Kaldi calls VoxCeleb1-O voxceleb1_test_v2.txt, WeSpeaker vox1-O(cleaned).txt.
    """
    tried = {path for f in folders for top in (f, f / "meta") for path in top.glob("*.txt*")}
    return [path for path in sorted(tried) if path.is_file() and _count_trials(path) == trials]


@functools.cache
def _count_trials(path: Path) -> int:
    with open_unpacked(path) as file:
        first = file.readline().split()
        if len(first) != 3 or utterance_id(first[1].decode(errors="replace")) is None:
            return 0
        return 1 + sum(bool(line.strip()) for line in file)
