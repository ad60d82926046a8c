"""Voices and sentences drawn from a seed, and espeak-ng to speak them.

espeak-ng keeps state between utterances (wave phase, flutter, noise): the same text in the same
voice differs from one call to the next. Bytes repeat only from a fresh process, so one process
speaks one speaker (`local.make_mini` starts them) and the order of calls in it is fixed.
"""

import contextlib
import ctypes
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr

from sv.errors import SvError

RATE_HZ = 16000  # what leaves this module
ESPEAK_RATE_HZ = 22050  # src/libespeak-ng/synthdata.c, 1.52

# espeak-ng names; each has its own phonemes or lengths (espeak-ng-data/lang/gmw, 1.52).
ACCENTS = ("en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland")
ACCENTS += ("en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")

# (pitch Hz low, high; formant percent low, high; share). Vocal tracts: women's formants lie about
# 17 %, children's 30 % above men's (Peterson and Barney, JASA 1952, table II).
KINDS = {
    "man": ((75.0, 155.0), (85.0, 106.0), 0.45),
    "woman": ((140.0, 265.0), (100.0, 123.0), 0.43),
    "child": ((220.0, 340.0), (116.0, 136.0), 0.12),
}


@dataclass(frozen=True)
class Voice:
    """One speaker. Percentages are of espeak-ng's default, its docs/voices.md names each line."""

    name: str
    gender: str  # m or f
    accent: str
    pitch_hz: float
    pitch_span: float  # top of the range over the base
    formants: tuple[tuple[int, int, int], ...]  # (frequency, strength, width) percent, 0 to 8
    tone: tuple[int, ...]  # four pairs of Hz and amplitude 0-255
    breath: tuple[int, ...]
    flutter: int
    roughness: int
    voicing: int
    consonants: tuple[int, int]
    speed_percent: float
    stress_add: tuple[int, ...]


def seeded(seed: int, *names: object) -> np.random.Generator:
    """Return the generator for one name: the same whatever else is made, and in what order."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, names)).encode())])


def draw_voice(seed: int, name: str) -> Voice:
    """Draw the voice of a speaker; every property is independent of the others but sex and size."""
    rng = seeded(seed, "voice", name)
    kind = rng.choice(list(KINDS), p=[share for _, _, share in KINDS.values()])
    pitch_hz, size, _ = KINDS[kind]
    scale = rng.uniform(*size)
    own = rng.normal(0.0, (2.0, 3.5, 3.5, 3.5, 4.0, 4.0, 3.0, 3.0, 3.0))
    formants = tuple(
        (round(scale + own[i]), round(rng.uniform(80, 115)), round(rng.uniform(80, 140)))
        for i in range(9)
    )
    tilt = rng.uniform(0.75, 1.25)
    tone = []
    for hz, amplitude in ((600, 170), (1300, 135), (2200, 115), (3500, 105)):
        gain = rng.uniform(0.9, 1.1) * (tilt if hz > 600 else 1.0)
        tone += [round(hz * rng.uniform(0.9, 1.1)), min(255, round(amplitude * gain))]
    breathy = rng.random() < 0.5
    gender = {"man": "m", "woman": "f"}.get(str(kind)) or ("m" if rng.random() < 0.5 else "f")
    return Voice(
        name=name,
        gender=gender,
        accent=str(rng.choice(ACCENTS)),
        pitch_hz=float(np.exp(rng.uniform(*np.log(pitch_hz)))),
        pitch_span=rng.uniform(1.1, 1.9),
        formants=formants,
        tone=tuple(tone),
        breath=tuple(round(rng.uniform(0, 45)) if breathy else 0 for _ in range(8)),
        flutter=round(rng.uniform(0, 14)),
        roughness=int(rng.integers(0, 6)),
        voicing=round(rng.uniform(70, 120)),
        consonants=(round(rng.uniform(50, 140)), round(rng.uniform(50, 140))),
        speed_percent=rng.uniform(75, 130),
        stress_add=tuple(round(v) for v in rng.uniform(-35, 35, 8)),
    )


def vary_voice(voice: Voice, rng: np.random.Generator) -> Voice:
    """Draw how the speaker sounds in one session: mood, effort, a cold; the identity stays."""
    tilt = rng.uniform(0.8, 1.2)
    breath = rng.uniform(0, 12) if rng.random() < 0.5 else 0.0
    return replace(
        voice,
        pitch_hz=voice.pitch_hz * np.exp(rng.normal(0.0, 0.08)),
        pitch_span=1 + (voice.pitch_span - 1) * rng.uniform(0.7, 1.4),
        formants=tuple(
            (round(f + rng.normal(0, 1.2)), round(s * rng.uniform(0.85, 1.15)), w)
            for f, s, w in voice.formants
        ),
        tone=tuple(
            v if k % 2 == 0 or k == 1 else min(255, round(v * tilt))
            for k, v in enumerate(voice.tone)
        ),
        breath=tuple(round(v * rng.uniform(0.6, 1.4) + breath) for v in voice.breath),
        voicing=round(voice.voicing * rng.uniform(0.9, 1.1)),
        speed_percent=voice.speed_percent * np.exp(rng.normal(0.0, 0.08)),
    )


def format_voice(voice: Voice) -> str:
    """Format an espeak-ng variant file."""
    lines = [
        "language variant",
        f"name {voice.name}",
        f"gender {'male' if voice.gender == 'm' else 'female'}",
        f"pitch {voice.pitch_hz:.0f} {voice.pitch_hz * voice.pitch_span:.0f}",
        *(f"formant {i} {f} {s} {w}" for i, (f, s, w) in enumerate(voice.formants)),
        f"tone {_join(voice.tone)}",
        f"breath {_join(voice.breath)}",
        f"flutter {voice.flutter}",
        f"roughness {voice.roughness}",
        f"voicing {voice.voicing}",
        f"consonants {_join(voice.consonants)}",
        f"speed {voice.speed_percent:.0f}",
        f"stressAdd {_join(voice.stress_add)}",
        "echo 0 0",
    ]
    return "\n".join(lines) + "\n"


def _join(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))


class Synthesizer:
    """One libespeak-ng with its own data folder; the library allows one a process."""

    def __init__(self, library: Path, data: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_ng_SetRandSeed.restype = None
        self._data = data
        self._chunks: list[np.ndarray] = []
        # 2: AUDIO_OUTPUT_SYNCHRONOUS (no thread); 0x8000: errors come back instead of exit().
        rate = self._library.espeak_Initialize(2, 0, str(data).encode(), 0x8000)
        if rate != ESPEAK_RATE_HZ:
            raise SvError(f"espeak-ng does not start with {data} (answer {rate})")
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._take)  # kept: the library does not own it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: ctypes.POINTER, count: int, _events: int) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    @property
    def version(self) -> str:
        """The version of espeak-ng, ``1.52.0``."""
        return self._library.espeak_Info(None).decode()

    def set_voice(self, accent: str, name: str, text: str, *, seed: int) -> None:
        """Write ``text`` (`format_voice`) as voice ``name`` and speak in it from now on.

        The name stays short: a long one overflows a buffer of espeak-ng 1.52 and aborts it.
        """
        assert len(name) <= 12, name
        (self._data / "voices" / "!v" / name).write_text(text, encoding="utf-8")
        if self._library.espeak_SetVoiceByName(f"{accent}+{name}".encode()) != 0:
            raise SvError(f"espeak-ng has no accent '{accent}'")
        self._library.espeak_ng_SetRandSeed(seed)

    def speak(self, text: str) -> np.ndarray:
        """Speak ``text``: (samples,) float32 in -1..1 at 22050 Hz, silence at the ends cut off."""
        self._chunks = []
        data = text.encode()
        # 0: from the first character; 1: end by characters; 1: espeakCHARS_UTF8
        status = self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        if status != 0 or not self._chunks:
            raise SvError(f"espeak-ng did not speak '{text}' (status {status})")
        samples = np.concatenate(self._chunks).astype(np.float32) / 32768.0
        loud = np.flatnonzero(np.abs(samples) > 0.004)
        return samples[loud[0] : loud[-1] + 1] if len(loud) else samples

    def speak_for(self, rng: np.random.Generator, duration_s: float) -> np.ndarray:
        """Speak drawn sentences, cut after ``duration_s`` as VoxCeleb's: (samples,) at 16 kHz."""
        wanted = int(duration_s * ESPEAK_RATE_HZ) + 16
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < wanted:
            pause = np.zeros(int(rng.uniform(0.1, 0.35) * ESPEAK_RATE_HZ), np.float32)
            parts += [self.speak(draw_sentence(rng)), pause]
        joined = np.concatenate(parts)[:wanted]
        samples = soxr.resample(joined, ESPEAK_RATE_HZ, RATE_HZ, quality="HQ")
        samples = samples[: int(duration_s * RATE_HZ)]
        fade = min(len(samples), 320)  # 20 ms: no click where the voice is cut
        samples[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
        return samples


@contextlib.contextmanager
def open_synthesizer(scratch: Path | None = None) -> Iterator[Synthesizer]:
    """Start espeak-ng on a private data folder: voices are files, the wheel's folder is not ours.

    Args:
        scratch: Where that folder is made and removed again; None: the system's.

    Raises:
        SvError: espeakng-loader is not installed, or its library does not start.
    """
    try:
        import espeakng_loader  # noqa: PLC0415  only this corpus needs it
    except ImportError as error:
        raise SvError("the mini corpus needs espeak-ng: pip install espeakng-loader") from error
    source = Path(espeakng_loader.get_data_path())
    with tempfile.TemporaryDirectory(prefix="voices.", dir=scratch) as folder:
        data = Path(folder)
        # espeak-ng 1.52 keeps the path in a buffer of 160 bytes and adds to it unchecked.
        if len(os.fsencode(data)) > 100:
            raise SvError(f"{data}: too long a path for espeak-ng, set TMPDIR to a shorter one")
        for name in ("phondata", "phonindex", "phontab", "intonations", "en_dict"):
            (data / name).symlink_to(source / name)
        (data / "lang" / "gmw").mkdir(parents=True)
        for path in sorted((source / "lang" / "gmw").glob("en*")):
            (data / "lang" / "gmw" / path.name).symlink_to(path)
        (data / "voices" / "!v").mkdir(parents=True)
        yield Synthesizer(Path(espeakng_loader.get_library_path()), data)


# A clause: 40 subjects x 32 verbs x 40 objects, and in 7 of 10 cases one of 24 places.
CLAUSE = (
    "the old sailor|my younger brother|a quiet neighbour|the chief engineer|her favourite uncle|"
    "the village doctor|our music teacher|a tired driver|the famous singer|this small company|"
    "the government|an honest witness|the whole family|a foreign student|the night watchman|"
    "his grandmother|the football club|a careful painter|the young queen|my best friend|"
    "the baker's daughter|a group of children|the local museum|a clever journalist|the captain|"
    "one of the judges|the publisher|a shy librarian|the gardener|an elderly couple|she|he|"
    "the weather service|a wealthy farmer|the orchestra|your cousin|the postman|a lonely fisherman|"
    "the science class|everybody in town",
    "carried|painted|never forgot|looked after|wanted to sell|could not find|dreamed about|"
    "described|borrowed|photographed|finally opened|enjoyed|threw away|paid for|argued about|"
    "measured|discovered|watched|quietly removed|was afraid of|wrote a book about|should visit|"
    "has already seen|refused to share|invented|kept|is going to repair|laughed at|moved|chose|"
    "would rather have|brought back",
    "seven baskets of apples|the broken piano|a yellow umbrella|two bottles of vinegar|his shoes|"
    "the largest ship|an orange coat|the theory of colours|a pair of wild horses|that photograph|"
    "the second chapter|thirty chairs|a bowl of hot soup|the Chinese vase|her voice|the judge|"
    "a bridge over the river|some fresh bread|the garden wall|an unusual question|the old radio|"
    "five thousand pounds|the missing keys|a box of matches|every single letter|the blue curtain|"
    "a herd of sheep|the northern road|three good reasons|a choir of young voices|cheap jewellery|"
    "the first aeroplane|a thick fog|the treasure|white sugar|an empty house|the Friday newspaper|"
    "a huge breakfast|that awful noise|the museum's oldest clock",
    "in the kitchen|near the harbour|for almost an hour|without any help|before the storm|"
    "at the edge of the forest|during the winter|behind the church|for the second time|"
    "on the other side|with great pleasure|under the stairs|in a strange dream|by accident|"
    "after midnight|at half past eight|in front of the cameras|somewhere in the south|yesterday|"
    "under a pale moon|because of the fire|across the valley|in the usual way|this July",
)
OPENINGS = (
    "Last year|Every morning|On the way home|As far as I know|To be honest|After the long war|"
    "Before the show|In those days|Nobody knew that|They told me that"
)
JOINS = ", and|, but|, so|, although| while| because"


def draw_sentence(rng: np.random.Generator) -> str:
    """Draw one English sentence, one clause or two: about 2 to 6 s of speech."""
    text = _draw_clause(rng)
    if rng.random() < 0.7:
        text = f"{_pick(rng, OPENINGS)} {text}"
    if rng.random() < 0.4:
        text += f"{_pick(rng, JOINS)} {_draw_clause(rng)}"
    return text[0].upper() + text[1:] + ("?" if rng.random() < 0.08 else ".")


def _draw_clause(rng: np.random.Generator) -> str:
    parts = CLAUSE if rng.random() < 0.7 else CLAUSE[:3]
    return " ".join(_pick(rng, part) for part in parts)


def _pick(rng: np.random.Generator, choices: str) -> str:
    words = choices.split("|")
    return words[rng.integers(len(words))]
