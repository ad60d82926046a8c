"""Backends: the named ways from embeddings to scores, and the cohort that two of them need.

``cosine`` is the inner product of two embeddings of length 1. ``cosine_mean`` subtracts the mean
of the cohort's embeddings first. ``as_norm`` (adaptive score normalisation) measures a cosine
against those of the cohort speakers nearest to each side: the cohort is scored once for each
utterance and not for each trial.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sv.errors import SvError
from sv.files import hash_file, read_json
from sv.kaldi.archive import read_vectors
from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import Trials
from sv.score.config import NEED_COHORT

_TRIALS = 512  # at a time: two gathered blocks of 256 floats stay in a core's own cache
_VECTORS = 4096  # normalised at a time: float64 copies stay small
# Utterances at a time: 1024 x 5994 float32 cohort scores are 25 MB a thread. Fixed, so that the
# products, and so the scores, do not depend on the number of threads.
_UTTERANCES = 1024


@dataclass(frozen=True)
class Cohort:
    """Embeddings of training speakers.

    ``means`` is (speakers, dim) float32, the mean embedding of each; ``mean`` is (dim,) float64,
    that of all ``utterances``.
    """

    means: np.ndarray
    mean: np.ndarray
    utterances: int


@dataclass(frozen=True)
class Scorer:
    """Scores a trial list by any backend; what several of them need is computed once.

    Attributes:
        trials: The list.
        vectors: (utterances, dim) float32 embeddings, in the order of ``trials.utterances``.
        cohort: Needed by all backends but ``cosine``.
        top_n: Cohort speakers that count in ``as_norm``; all of them where there are fewer.
        num_threads: Parts scored at once; the scores do not depend on it.
    """

    trials: Trials
    vectors: np.ndarray
    cohort: Cohort | None = None
    top_n: int = 300
    num_threads: int = 1

    @cached_property
    def _unit(self) -> np.ndarray:
        return normalize_length(self.vectors)

    @cached_property
    def _cosines(self) -> np.ndarray:
        return self._score_pairs(self._unit)

    def score(self, backend: str) -> tuple[np.ndarray, dict[str, int]]:
        """Score every trial.

        Args:
            backend: One of `sv.score.config.BACKENDS`.

        Returns:
            (trials,) float32 scores, and what the backend was given, for the metrics file.

        Raises:
            SvError: The cohort does not fit.
        """
        if backend not in NEED_COHORT:
            return self._cosines, {}
        cohort = self.cohort
        assert cohort is not None, f"{backend} needs a cohort"
        given = {"cohort_utterances": cohort.utterances}
        if len(cohort.mean) != self.vectors.shape[1]:
            raise SvError(
                f"embeddings of the cohort have {len(cohort.mean)} dimensions, those to score "
                f"{self.vectors.shape[1]}: they are of different networks; make stage 6 again"
            )
        if backend == "cosine_mean":
            unit = normalize_length(self.vectors - cohort.mean.astype(np.float32))
            return self._score_pairs(unit), given
        speakers = len(cohort.means)
        if speakers < 2:
            raise SvError("the cohort has 1 speaker: AS-norm needs at least 2")
        top_n = min(self.top_n, speakers)
        if top_n < self.top_n:
            logging.warning("top_n is %d, the cohort has %d speakers: all count", self.top_n, top_n)
        scores = self._normalize(normalize_length(cohort.means), top_n)
        return scores, {"top_n": top_n, "cohort_speakers": speakers, **given}

    def _score_pairs(self, unit: np.ndarray) -> np.ndarray:
        """Score every trial by the inner product of its two rows of ``unit``, (utterances, dim).

        Sums are float32 too: for vectors of length 1 the error is about 1e-7, that of the
        embeddings themselves, and half the memory traffic is saved, which is what the time goes
        into.
        """
        sides = self.trials.enrol, self.trials.test
        scores = np.empty(len(sides[0]), dtype=np.float32)

        def score(start: int, stop: int) -> None:
            buffers = np.empty((2, _TRIALS, unit.shape[1]), dtype=np.float32)
            for first in range(start, stop, _TRIALS):
                last = min(first + _TRIALS, stop)
                # clip: without it numpy fills a buffer of its own first, in case of a wrong index.
                rows = [
                    np.take(unit, side[first:last], axis=0, out=out[: last - first], mode="clip")
                    for side, out in zip(sides, buffers, strict=True)
                ]
                np.vecdot(*rows, out=scores[first:last])

        edges = np.linspace(0, len(scores), self.num_threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(self.num_threads) as pool:
            list(pool.map(score, edges[:-1], edges[1:]))
        return scores

    def _normalize(self, cohort: np.ndarray, top_n: int) -> np.ndarray:
        """Normalise the cosines by how each side's highest cohort scores lie; average both sides.

        Args:
            cohort: (speakers, dim) float32 of length 1.
            top_n: How many of the highest cohort scores count, 2 <= top_n <= speakers.

        Raises:
            SvError: The highest scores of an utterance are all the same: nothing to measure by.

        Source: Matějka et al., "Analysis of Score Normalization in Multilingual Speaker
        Recognition", Interspeech 2017 (adaptive S-norm, each side with its own cohort).
        """
        unit, enrol, test = self._unit, self.trials.enrol, self.trials.test
        mean, deviation = np.empty((2, len(unit)))  # of the highest, float64

        def describe(start: int) -> None:
            block = slice(start, start + _UTTERANCES)
            against = unit[block] @ cohort.T  # (block, speakers)
            against.partition(len(cohort) - top_n, axis=1)
            # Sums in one order, whatever partition does.
            highest = np.sort(against[:, -top_n:], axis=1)
            mean[block] = highest.mean(axis=1, dtype=np.float64)
            deviation[block] = highest.std(axis=1, dtype=np.float64)

        with ThreadPoolExecutor(self.num_threads) as pool:
            list(pool.map(describe, range(0, len(unit), _UTTERANCES)))
        if flat := np.count_nonzero(deviation == 0):
            raise SvError(
                f"{flat} of {len(unit)} utterances have the same score against all of their "
                f"nearest {top_n} cohort speakers: AS-norm has nothing to measure by"
            )
        # (s - m1) / d1 + (s - m2) / d2 is linear in s: two terms for each utterance.
        slope = 0.5 / deviation
        offset = slope * mean
        scores = self._cosines * (slope[enrol] + slope[test])
        scores -= offset[enrol]
        scores -= offset[test]
        return scores.astype(np.float32)


def normalize_length(vectors: np.ndarray) -> np.ndarray:
    """Scale (n, dim) float32 vectors to length 1, in float64; a zero vector stays zero."""
    unit = np.empty_like(vectors)
    for start in range(0, len(vectors), _VECTORS):
        part = vectors[start : start + _VECTORS].astype(np.float64)
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        unit[start : start + _VECTORS] = part / np.maximum(norms, np.finfo(np.float64).tiny)
    return unit


def read_info(directory: Path) -> dict[str, Any]:
    """Read the info.json of embeddings: of which network, data set and precision they are.

    Raises:
        SvError: It is missing or lacks one of them, or the network has been trained again since.
    """
    path = directory / "info.json"
    info = read_json(path)
    for key in ("data_set", "precision"):
        if not isinstance(info, dict) or not isinstance(info.get(key), str):
            raise SvError(f"{path}: no {key} in it")
    model, made_by = Path(str(info.get("model"))), info.get("model_sha256")
    if made_by and model.is_file() and hash_file(model, "sha256") != made_by:
        raise SvError(f"{directory}: embeddings of another network than {model} is; run stage 6")
    return info


def read_embeddings(directory: Path) -> tuple[list[str], np.ndarray]:
    """Read the utterances of a folder of stage 6, and their embeddings.

    Raises:
        SvError: See `sv.kaldi.archive.read_vectors`.
    """
    try:
        return read_vectors(directory / "xvector.scp")
    except SvError as error:
        raise SvError(f"{error}; run stage 6 again") from error


def read_cohort(directory: Path, info: Mapping[str, object]) -> Cohort:
    """Read the embeddings of a cohort and average them by speaker.

    Args:
        directory: Holds xvector.scp, info.json and utt2spk.
        info: The info.json of the embeddings that are scored.

    Raises:
        SvError: A file is missing or broken, an embedding has no speaker, or the cohort's are of
            another network or precision.
    """
    if not (directory / "xvector.scp").is_file():
        raise SvError(f"no such file {directory / 'xvector.scp'}; run stage 6 first")
    own = read_info(directory)
    for key in own.keys() & info.keys() & {"model", "model_sha256", "precision"}:
        if own[key] != info[key]:
            raise SvError(
                f"{directory}: its {key} is {own.get(key)}, that of the embeddings to score is "
                f"{info.get(key)}; make stage 6 again"
            )
    utt2spk = read_table(directory / "utt2spk")
    keys, vectors = read_embeddings(directory)
    unknown = [key for key in keys if key not in utt2spk]
    if unknown:
        raise SvError(
            f"{directory / 'utt2spk'}: {len(unknown)} utterances of xvector.scp missing "
            f"(first: {unknown[0]}); make stage 6 again"
        )
    _, speaker_of = np.unique([utt2spk[key] for key in keys], return_inverse=True)
    sums = np.zeros((speaker_of.max() + 1, vectors.shape[1]))
    np.add.at(sums, speaker_of, vectors)  # float64
    counts = np.bincount(speaker_of)
    mean = sums.sum(axis=0) / len(keys)
    return Cohort((sums / counts[:, None]).astype(np.float32), mean, len(keys))
