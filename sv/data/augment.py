"""Augmented copies of a training set as Lhotse cuts: babble, music, noise, reverberation.

Every utterance gets one copy of each kind. What it is mixed with is drawn from a generator that
is seeded with the utterance's own id: the copy does not depend on the order of the set, the
number of jobs or the other utterances. Each cut names all that it needs and loads on its own.
The kinds and their levels follow Snyder et al., "X-vectors", ICASSP 2018, section 3.3.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from lhotse import MonoCut, Recording
from lhotse.cut import MixedCut, MixTrack

from sv.data.config import AugmentConfig, MixConfig


def augment_cut(
    cut: MonoCut, kind: str, sources: Sequence[Recording], config: AugmentConfig
) -> MonoCut | MixedCut:
    """Build the augmented copy ``<id>-<kind>`` of a cut.

    Args:
        cut: A whole utterance, one channel; the copy has its duration and speaker.
        kind: One of `KINDS`.
        sources: Noise recordings of that kind, or room impulse responses for ``"reverb"``.
        config: Levels and seed.
    """
    # A string seed is hashed by SHA-512, the same in every process and Python version.
    rng = random.Random(f"{config.seed} {kind} {cut.id}")
    cut_id = f"{cut.id}-{kind}"
    if kind == "reverb":
        # reverb_rir keeps length and level: reverberation is all that changes.
        room = sources[rng.randrange(len(sources))]
        recording = cut.recording.reverb_rir(room, affix_id=False, rir_channels=[0])
        return replace(cut, id=cut_id, recording=recording)
    mix: MixConfig = getattr(config, kind)
    tracks = [MixTrack(cut)]
    for number in range(rng.randint(*mix.sources)):
        noise = sources[rng.randrange(len(sources))]
        snr_db = round(rng.uniform(*mix.snr_db), 2)
        tracks += _cover(noise, cut, snr_db, number, rng)
    return MixedCut(id=cut_id, tracks=tracks)


def _cover(
    noise: Recording, cut: MonoCut, snr_db: float, number: int, rng: random.Random
) -> list[MixTrack]:
    """Cover the whole cut with one noise: a random segment of it, or the noise repeated."""
    rate = cut.sampling_rate
    wanted, available = cut.num_samples, noise.num_samples
    start = rng.randrange(max(1, available - wanted))
    tracks: list[MixTrack] = []
    filled = 0
    while filled < wanted:
        length = min(available - start, wanted - filled)
        piece = MonoCut(
            id=f"{noise.id}-{number}-{len(tracks)}",
            start=start / rate,
            duration=length / rate,
            channel=0,
            recording=noise,
        )
        tracks.append(MixTrack(piece, offset=filled / rate, snr=snr_db))
        filled += length
        start = 0
    return tracks
