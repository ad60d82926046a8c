"""All but the voices: channels of sessions, noise, music, rooms. numpy and scipy only.

All functions take a generator and give the same samples for the same one. Sums run in one thread
(no matrix product), so that the number of cores does not change a bit.
"""

from pathlib import Path

import numpy as np
import soundfile
from scipy import fft, signal

RATE_HZ = 16000
SOUND_M_PER_S = 343.0


def draw_channel(rng: np.random.Generator) -> np.ndarray:
    """Draw a mild microphone: (255,) FIR taps, within a few dB of flat from 100 Hz to 7 kHz."""
    bands_hz = np.array([0.0, 120.0, 300.0, 800.0, 2000.0, 4500.0, 8000.0])
    gains_db = np.concatenate([[-6.0], rng.normal(0.0, 2.5, len(bands_hz) - 1)])
    return signal.firwin2(255, bands_hz, 10 ** (gains_db / 20), fs=RATE_HZ)


def apply_channel(
    samples: np.ndarray, taps: np.ndarray, rng: np.random.Generator, *, snr_db: float, rms_db: float
) -> np.ndarray:
    """Filter, add the hiss of the room, set the level; (samples,) float64, never over 0.95."""
    heard = signal.oaconvolve(samples.astype(np.float64), taps, mode="same")
    hiss = make_coloured(rng, len(heard), slope_db_per_octave=-3.0)
    heard += hiss * _rms(heard) * 10 ** (-snr_db / 20)
    return set_level(heard, rms_db)


def set_level(samples: np.ndarray, rms_db: float) -> np.ndarray:
    """Scale to ``rms_db`` below full scale, or less where a peak would pass 0.95."""
    gain = 10 ** (rms_db / 20) / _rms(samples)
    return samples * min(gain, 0.95 / max(float(np.abs(samples).max()), 1e-9))


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2))) + 1e-9


def make_coloured(
    rng: np.random.Generator, count: int, *, slope_db_per_octave: float
) -> np.ndarray:
    """Make noise of a given slope above 60 Hz, RMS 1: (count,) float64."""
    length = fft.next_fast_len(count, real=True)
    spectrum = fft.rfft(rng.standard_normal(length))
    hz = np.maximum(fft.rfftfreq(length, 1 / RATE_HZ), 60.0)
    shape = (hz / 1000.0) ** (slope_db_per_octave / 6.02)
    samples = fft.irfft(spectrum * shape, length)[:count]
    return samples / _rms(samples)


def make_noise(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Make one noise: a coloured bed that swells, with hum, clicks or beeps on it."""
    count = int(duration_s * RATE_HZ)
    time_s = np.arange(count) / RATE_HZ
    bed = make_coloured(rng, count, slope_db_per_octave=rng.uniform(-7.0, 2.0))
    swell_hz, phase = rng.uniform(0.05, 3.0), rng.uniform(0, 2 * np.pi)
    bed *= 1.0 + rng.uniform(0.0, 0.9) * np.sin(2 * np.pi * swell_hz * time_s + phase)
    kind = rng.choice(["bed", "hum", "clicks", "beeps"])
    if kind == "hum":
        base_hz = rng.uniform(45.0, 180.0)
        drift = 2 * np.pi * base_hz * (time_s + 0.02 * np.sin(2 * np.pi * 0.1 * time_s))
        for k in range(1, 16):
            bed += rng.uniform(0.2, 1.5) / k**0.5 * np.sin(k * drift)
    elif kind == "clicks":
        impulses = (rng.random(count) < rng.uniform(2, 40) / RATE_HZ) * rng.normal(0, 25, count)
        bed = 0.5 * bed + signal.lfilter(*_resonance(rng.uniform(400, 5000), 300.0), impulses)
    elif kind == "beeps":
        gate = np.sin(2 * np.pi * rng.uniform(0.5, 3.0) * time_s) > rng.uniform(0.0, 0.8)
        soft = signal.lfilter([0.01], [1, -0.99], gate.astype(float))
        bed += 3.0 * soft * np.sin(2 * np.pi * rng.uniform(400, 3000) * time_s)
    return set_level(bed, -20.0)


def _resonance(centre_hz: float, width_hz: float) -> tuple[list[float], list[float]]:
    radius = np.exp(-np.pi * width_hz / RATE_HZ)
    return [1.0], [1.0, -2 * radius * np.cos(2 * np.pi * centre_hz / RATE_HZ), radius**2]


def make_music(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Make one piece: chords of a key, a melody and a beat, on drawn instruments."""
    count = int(duration_s * RATE_HZ)
    piece = np.zeros(count + 4 * RATE_HZ)
    beat_s = 60.0 / rng.uniform(70.0, 150.0)
    key_hz = 110.0 * 2 ** (rng.integers(0, 12) / 12)
    scale = [0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10]
    chord_timbre, lead_timbre = (rng.uniform(0.3, 2.5, 2)).tolist()
    drums = rng.random() < 0.6
    root = 0
    for beat in range(int(duration_s / beat_s) + 1):
        start = int(beat * beat_s * RATE_HZ)
        if beat % 4 == 0:
            root = int(rng.integers(0, 7))
            for step in (0, 2, 4):
                note_hz = _pitch(key_hz, scale, root + step)
                _add(piece, start, _note(rng, note_hz, 4 * beat_s, chord_timbre, 0.4))
        if rng.random() < 0.8:
            note_hz = 2 * _pitch(key_hz, scale, root + int(rng.integers(0, 8)))
            length_s = beat_s * rng.choice([0.5, 1.0, 2.0])
            _add(piece, start, _note(rng, note_hz, length_s, lead_timbre, 0.7))
        if drums:
            length = int(0.15 * RATE_HZ)
            hit = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.03 * RATE_HZ))
            _add(piece, start, hit * (0.8 if beat % 2 else 0.3))
    piece = piece[:count]
    return set_level(piece, -20.0)


def _pitch(key_hz: float, scale: list[int], step: int) -> float:
    return key_hz * 2 ** (step // 7 + scale[step % 7] / 12)


def _note(
    rng: np.random.Generator, hz: float, length_s: float, timbre: float, gain: float
) -> np.ndarray:
    time_s = np.arange(int(length_s * RATE_HZ)) / RATE_HZ
    tone = np.zeros(len(time_s))
    for k in range(1, 12):
        if k * hz < 0.45 * RATE_HZ:
            phase = rng.uniform(0, 2 * np.pi)
            tone += np.sin(2 * np.pi * k * hz * time_s + phase) / k**timbre
    attack = np.minimum(1.0, time_s / 0.02) * np.minimum(1.0, (length_s - time_s) / 0.05)
    return gain * tone * attack * np.exp(-1.5 * time_s / length_s)


def _add(piece: np.ndarray, start: int, part: np.ndarray) -> None:
    part = part[: max(0, len(piece) - start)]
    piece[start : start + len(part)] += part


def draw_room(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draw a box-shaped room: its size, (3,) m, and its reverberation time T60, 0.2 to 1 s."""
    size_m = np.array([rng.uniform(3.0, 12.0), rng.uniform(3.0, 9.0), rng.uniform(2.4, 4.5)])
    return size_m, rng.uniform(0.2, 1.0)


def make_rir(rng: np.random.Generator, size_m: np.ndarray, t60_s: float) -> np.ndarray:
    """Make the impulse response between two drawn points of a room.

    Direct sound and first reflections by the image method, then a diffuse tail: Gaussian noise
    that falls 60 dB in ``t60_s``. The length is ``t60_s`` and a little; the peak is 0.9.

    Source: Allen and Berkley, "Image method", JASA 65, 1979; Polack's statistical tail.
    """
    count = int((t60_s + 0.05) * RATE_HZ)
    response = np.zeros(count)
    source, ear = (rng.uniform(0.1, 0.9, 3) * size_m for _ in range(2))
    # Sabine: T60 = 0.161 V / (A S), so the mean absorption A gives the walls' reflection.
    x, y, z = size_m
    absorption = min(0.95, 0.161 * x * y * z / (2 * (x * y + y * z + x * z) * t60_s))
    reflection = np.sqrt(1.0 - absorption)
    direct_m = max(0.3, float(np.sqrt(((source - ear) ** 2).sum())))
    for order in np.ndindex(5, 5, 5):
        cell = np.array(order) - 2
        bounces = int(np.abs(cell).sum())
        if bounces > 3:
            continue
        image = np.where(cell % 2 == 0, cell * size_m + source, (cell + 1) * size_m - source)
        path_m = max(0.3, float(np.sqrt(((image - ear) ** 2).sum())))
        at = int(path_m / SOUND_M_PER_S * RATE_HZ)
        if at < count:
            response[at] += reflection**bounces / path_m
    time_s = np.arange(count) / RATE_HZ
    start_s = direct_m / SOUND_M_PER_S + 0.004
    tail = rng.standard_normal(count) * 10 ** (-3.0 * (time_s - start_s) / t60_s)
    tail *= np.clip((time_s - start_s) / 0.01, 0.0, 1.0)
    # The tail's energy over the direct sound's, as in a diffuse field: 16 pi r^2 / (A S).
    ratio = 16 * np.pi * (1 - absorption) / (2 * (x * y + y * z + x * z) * absorption)
    response += tail * np.sqrt(ratio / max(float((tail**2).sum()), 1e-9))
    return 0.9 * response / float(np.abs(response).max())


def write_flac(path: Path, samples: np.ndarray) -> None:
    """Write (samples,) in -1..1 as 16 kHz mono FLAC, 16 bit, rounded here and not by a library."""
    pcm = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    soundfile.write(path, pcm, RATE_HZ, format="FLAC", subtype="PCM_16")
