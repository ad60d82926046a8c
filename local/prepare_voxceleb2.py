"""VoxCeleb2's development part, the training set: ``dev/aac/<speaker>/<video>/<number>.m4a``.

Or, converted already, ``dev/{wav,flac}``. The test part is never read: neither its speakers nor
VoxCeleb1, which the study is tested on, may be trained on.
"""

import logging
from pathlib import Path

from local.corpora import EVERY_LIST, Count, Remark, Request, count_speakers
from local.voxceleb import find_file, find_utterances, read_meta
from sv.data.cuts import Utterance, write_data_set
from sv.errors import SvError
from sv.kaldi.data_dir import MAX_LISTED

SET = "voxceleb2_dev"
FORMS = ("wav", "flac", "aac", "m4a")  # those that cost least to read first
SPEAKERS, UTTERANCES = 5994, 1_092_009  # Chung et al., "VoxCeleb2", 2018, table 2
META = "vox2_meta.csv"


def check(request: Request) -> list[Count]:
    """Count speakers and utterances against the published numbers."""
    utterances = _find(request)
    return [
        Count(SET, "speakers", count_speakers(utterances), SPEAKERS),
        Count(SET, "utterances", len(utterances), UTTERANCES, tuple(utterances.values())),
    ]


def find_missing(request: Request) -> dict[str, str]:
    """Look for the development part; it has no lists."""
    _find_roots(request)
    return {}


def prepare(request: Request) -> list[Remark]:
    """Write the set voxceleb2_dev; errors as `sv.data.cuts.write_data_set`."""
    found = _find(request)
    meta_path = find_file(META, [request.lists, request.corpus])
    labels = {}
    if meta_path is None:
        logging.warning("no %s: the speakers' genders are unknown", META)
    else:
        labels = {key: {"gender": row.gender} for key, row in read_meta(meta_path).items()}
    kept = write_data_set(
        request.data,
        SET,
        (Utterance(key, key[:7], path, labels.get(key[:7], {})) for key, path in found.items()),
        nj=request.nj,
    )
    speakers = count_speakers(kept)
    logging.info("%s: %d utterances of %d speakers", SET, len(kept), speakers)
    if (len(kept), speakers) == (UTTERANCES, SPEAKERS):
        return []
    text = (
        f"trained on {len(kept)} utterances of {speakers} speakers; "
        f"VoxCeleb2 dev has {UTTERANCES} of {SPEAKERS}"
    )
    return [Remark(EVERY_LIST, text)]


def _find_roots(request: Request) -> list[Path]:
    roots = [request.corpus / "dev" / form for form in FORMS]
    present = [root for root in roots if root.is_dir()]
    if not present:
        raise SvError(
            f"no such folder {request.corpus}/dev/aac (or dev/wav, dev/flac): unpack VoxCeleb2's "
            "development part there"
        )
    return present


def _find(request: Request) -> dict[str, Path]:
    present = _find_roots(request)
    if len(present) > 1:
        logging.info("%s: using %s, not %s", SET, present[0], ", ".join(map(str, present[1:])))
    found, strays = find_utterances(present[:1])
    if strays:
        shown = ", ".join(str(path) for path in strays[:MAX_LISTED])
        logging.warning("%d files are no <speaker>/<video>/<number>: %s", len(strays), shown)
    meta_path = find_file(META, [request.lists, request.corpus])
    if meta_path is not None:
        test = {key for key, row in read_meta(meta_path).items() if row.part == "test"}
        dropped = [key for key in found if key[:7] in test]
        if dropped:
            logging.warning(
                "dropped %d of %d utterances of test speakers (first: %s)",
                len(dropped), len(found), dropped[0],
            )  # fmt: skip
            found = {key: path for key, path in found.items() if key[:7] not in test}
    if not found:
        raise SvError(f"{present[0]}: no <speaker>/<video>/<number>.{{m4a,wav,flac}} in it")
    return found
