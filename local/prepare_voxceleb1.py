"""VoxCeleb1, all of it as a test set: VoxCeleb1-O, E and H, cleaned or as first published.

``wav/<speaker>/<video>/<number>.wav`` with both parts in one place, or ``dev/wav`` and
``test/wav``. The set holds the utterances that the recipe's lists name, and no others.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from local.corpora import Count, Remark, Request, Rows, count_speakers, keep_scorable
from local.voxceleb import (
    SpeakerRow,
    find_file,
    find_hard_speakers,
    find_lists_of,
    find_utterances,
    read_meta,
    read_trial_list,
)
from sv.data.cuts import Utterance, write_data_set
from sv.errors import SvError, UsageError
from sv.files import hash_file
from sv.kaldi.data_dir import MAX_LISTED
from sv.kaldi.trials import write_trials

SET = "voxceleb1"
FOLDERS = ("wav", "dev/wav", "test/wav", "flac", "dev/flac", "test/flac")
SPEAKERS, UTTERANCES = 1251, 153_516  # Nagrani et al., "VoxCeleb", 2017, table 2
META = "vox1_meta.csv"
HARD_SPEAKERS, HARD_GROUPS = 1190, 18


@dataclass(frozen=True)
class TrialList:
    """A published list; ``md5`` is None where none was published."""

    file: str
    trials: int
    md5: str | None = None


# www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html; MD5 as in the lists of public toolkits, 2025.
LISTS = {
    "vox1_o": TrialList("veri_test2.txt", 37_611, "b73110731c9223c1461fe49cb48dddfc"),
    "vox1_e": TrialList("list_test_all2.txt", 579_818, "a53e059deb562ffcfc092bf5d90d9f3a"),
    "vox1_h": TrialList("list_test_hard2.txt", 550_894, "857790e09d579a68eb2e339a090343c8"),
    "vox1_o_original": TrialList("veri_test.txt", 37_720),
    "vox1_e_original": TrialList("list_test_all.txt", 581_480),
    "vox1_h_original": TrialList("list_test_hard.txt", 552_536),
}


def check(request: Request) -> list[Count]:
    """Count speakers, utterances and trials against the published numbers."""
    found, _ = find_utterances(_find_roots(request))
    counts = [Count(SET, "speakers", count_speakers(found), SPEAKERS)]
    counts.append(Count(SET, "utterances", len(found), UTTERANCES, tuple(found.values())))
    for name in _choose_lists(request):
        rows = read_trial_list(_find_list(name, request))
        counts.append(Count(name, "trials", len(rows), LISTS[name].trials))
        wanted = {key for enrol, test, _ in rows for key in (enrol, test)}
        counts.append(Count(name, "of its utterances", len(wanted & found.keys()), len(wanted)))
    return counts


def find_missing(request: Request) -> dict[str, str]:
    """Return the lists that are not there, with the reason; errors as `_find_roots`."""
    _find_roots(request)
    missing = {}
    for name in _choose_lists(request):
        try:
            _find_list(name, request)
        except SvError as error:
            missing[name] = str(error)
    return missing


def prepare(request: Request) -> list[Remark]:
    """Write the set voxceleb1 and the lists that the recipe names.

    Raises:
        SvError: A list or an utterance of a list is missing; see also
            `sv.data.cuts.write_data_set`.
    """
    remarks: list[Remark] = []
    lists: dict[str, Rows] = {}
    meta_path = find_file(META, [request.lists, request.corpus])
    meta = read_meta(meta_path) if meta_path else {}
    if not meta:
        logging.warning(
            "no %s: genders and nationalities are unknown, VoxCeleb1-H is unchecked",
            META,
        )
    for name in _choose_lists(request):
        path = _find_list(name, request)
        lists[name] = read_trial_list(path)
        remarks += _compare_with_published(name, path, lists[name], meta)
    if not lists:
        return remarks
    found, strays = find_utterances(_find_roots(request))
    if strays:
        logging.warning("%d files are no <speaker>/<video>/<number>: %s", len(strays), strays[0])
    wanted = {key for rows in lists.values() for enrol, test, _ in rows for key in (enrol, test)}
    if missing := sorted(wanted - found.keys()):
        text = (
            f"{len(missing)} of {len(wanted)} utterances of the lists are not below "
            f"{request.corpus} ({', '.join(missing[:MAX_LISTED])})"
        )
        if not request.allow_partial:
            raise SvError(f"{text}; complete the corpus or give --allow-partial true")
        logging.warning(text)
    kept = set(
        write_data_set(
            request.data,
            SET,
            (Utterance(key, key[:7], found[key], _label(key, meta)) for key in wanted & set(found)),
            nj=request.nj,
        )
    )
    for name, rows in lists.items():
        usable, lost = keep_scorable(name, rows, kept, allow_partial=request.allow_partial)
        write_trials(request.data / "trials" / name, usable)
        remarks += lost
    return remarks


def _choose_lists(request: Request) -> list[str]:
    names = [name for name, data_set in request.trials.items() if data_set == SET]
    if unknown := [name for name in names if name not in LISTS]:
        raise UsageError(f"[trials] {unknown[0]}: the lists of {SET} are {', '.join(LISTS)}")
    return names


def _find_roots(request: Request) -> list[Path]:
    roots = [request.corpus / folder for folder in FOLDERS]
    present = [root for root in roots if root.is_dir()]
    if not present:
        raise SvError(f"no such folder {request.corpus}/wav (or dev/wav and test/wav)")
    return present


def _find_list(name: str, request: Request) -> Path:
    """Return a list by its name, or else the one file that has as many trials as published."""
    wanted, folders = LISTS[name], [request.lists, request.corpus]
    if path := find_file(wanted.file, folders):
        return path
    if found := find_lists_of(wanted.trials, folders):
        logging.info("%s: %s has its number of trials", name, found[0])
        return found[0]
    raise SvError(
        f"no {wanted.file} in {request.lists}, nor another list of {wanted.trials} trials; "
        "local/download_corpora.sh fetches it, --lists DIR gives its folder"
    )


def _compare_with_published(
    name: str, path: Path, rows: Rows, meta: dict[str, SpeakerRow]
) -> list[Remark]:
    published = LISTS[name]
    remarks = []
    if published.md5 and (md5 := hash_file(path, "md5")) != published.md5:
        remarks.append(Remark(name, f"{path} is not the published list (MD5 {md5})"))
    if len(rows) != published.trials:
        text = f"{path} has {len(rows)} trials, the published list {published.trials}"
        remarks.append(Remark(name, text))
    if published.file.startswith("list_test_hard") and meta:
        speakers, groups = find_hard_speakers(meta)
        named = {key[:7] for enrol, test, _ in rows for key in (enrol, test)}
        if (len(speakers), groups) != (HARD_SPEAKERS, HARD_GROUPS) or not named <= speakers:
            text = (
                f"{path}: {len(named - speakers)} speakers outside the {groups} groups of "
                f"nationality and gender with five speakers or more"
            )
            remarks.append(Remark(name, text))
    return remarks


def _label(utterance: str, meta: dict[str, SpeakerRow]) -> dict[str, str]:
    row = meta.get(utterance[:7])
    if row is None:
        return {}
    labels = {"gender": row.gender}
    if row.nationality:
        labels["nationality"] = row.nationality.replace(" ", "_")  # one word a value
    return labels
