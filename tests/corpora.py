"""Small corpora in the layouts of the real ones, written by tests."""

import contextlib
import importlib
import io
import logging
from types import SimpleNamespace

import numpy as np
import soundfile

from sv.errors import SvError, UsageError

RATE_HZ = 16000


def write_audio(path, *, seconds=1.0, seed=0, rate_hz=RATE_HZ, channels=1):
    """Write noise as WAV or FLAC; the ending says which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate_hz), channels))
    soundfile.write(path, noise, rate_hz, subtype="PCM_16")
    return path


def write_coded(path, *, seconds=1.0, seed=0, rate_hz=RATE_HZ, codec="aac"):
    """Write noise as AAC in MP4, or as MP3."""
    import av  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 3000, round(seconds * rate_hz))
    form = "mp4" if codec == "aac" else "mp3"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout = "mono"
        planar = "fltp" if codec == "aac" else "s16p"
        samples = (noise / 32768).astype("f4") if planar == "fltp" else noise.astype("i2")
        frame = av.AudioFrame.from_ndarray(samples[None], format=planar, layout="mono")
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def write_config(path, text):
    """Write a corpora.toml."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_here(module, *argv, check=True):
    """Run a program's main in this process: importing lhotse takes longer than a small corpus.

    Returns ``returncode`` and ``stderr``, as of the program.
    """
    stderr = io.StringIO()
    handler = logging.StreamHandler(stderr)
    logger = logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    status = 0
    try:
        with contextlib.redirect_stderr(stderr):
            status = importlib.import_module(module).main([str(word) for word in argv])
    except SvError as error:
        status = 2 if isinstance(error, UsageError) else 1
        stderr.write(f"{module}: {error}\n")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert status == 0 or not check, stderr.getvalue()
    return SimpleNamespace(returncode=status, stderr=stderr.getvalue())


def prepare(corpora, *options, check=True):
    """Run stage 1 on ``corpora``, with its conf/corpora.toml, into its data."""
    config = corpora / "conf" / "corpora.toml"
    return run_here(
        "local.prepare_data", "--config", config, "--corpora", corpora, *options, corpora / "data",
        check=check,
    )  # fmt: skip
