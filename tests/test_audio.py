"""Audio files good and bad: each fault has its line, the rest of the work is kept."""

import gzip
import json
import os
import re
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from corpora import write_audio, write_coded
from lhotse.cut import MixTrack

from sv.data.audio import convert_to_flac, decode_audio, list_audio, read_duration_s
from sv.data.cuts import (
    Utterance,
    build_cut,
    build_recording,
    load_samples,
    write_data_set,
)
from sv.data.manifests import pack_items, read_manifest, write_manifest
from sv.errors import SvError
from sv.kaldi.data_dir import read_table

NOBODY = 65534


def make_set(tmp_path, paths, *, nj=1):
    utterances = [Utterance(f"s-{p.stem}", "s", p) for p in paths]
    return write_data_set(tmp_path / "data", "set", utterances, nj=nj)


def test_aac_is_decoded_once_and_counts_its_decoded_samples(tmp_path):
    source = write_coded(tmp_path / "a" / "x.m4a", seconds=3.0)
    samples, rate = decode_audio(source)
    assert rate == 16000 and len(samples) >= 3 * rate  # with the encoder's padding
    assert 0.05 < samples.std() < 0.15
    assert make_set(tmp_path, [source]) == ["s-x"]
    [cut] = read_manifest(tmp_path / "data/set/cuts.jsonl.gz")
    assert cut.num_samples == len(samples)
    flac = tmp_path / "data/audio/set/s/s-x.flac"
    assert read_table(tmp_path / "data/set/wav.scp")["s-x"] == str(flac)
    np.testing.assert_allclose(load_samples(cut), samples, atol=1 / 32768)
    before = flac.stat().st_mtime_ns, flac.stat().st_ino
    make_set(tmp_path, [source])
    assert (flac.stat().st_mtime_ns, flac.stat().st_ino) == before


def test_a_length_that_is_guessed_is_not_believed(tmp_path):
    """Silence first: by its bit rate the whole would be many times as long."""
    path = tmp_path / "x.aac"
    samples = np.zeros(6 * 44100)
    samples[3 * 44100 :] = np.random.default_rng(0).normal(0, 0.3, 3 * 44100)
    with av.open(str(path), "w", format="adts") as out:
        stream = out.add_stream("aac", rate=44100)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None].astype("f4"), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert read_duration_s(path) > 7
    samples, rate_hz = decode_audio(path)
    assert len(samples) / rate_hz == pytest.approx(6, abs=0.2)
    # An MP3 file without a table of its length cannot be known to be cut off.
    whole = write_coded(tmp_path / "x.mp3", seconds=4, codec="mp3").read_bytes()
    path = tmp_path / "cut.mp3"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SvError, match=r"truncated after 1.9 of 4.0 s"):
        decode_audio(path)
    path.write_bytes(re.sub(b"Xing|Info", bytes(4), whole[: len(whole) // 2]))
    samples, rate_hz = decode_audio(path)
    assert len(samples) / rate_hz == pytest.approx(2, abs=0.2)


def test_mp3_is_resampled(tmp_path):
    source = write_coded(tmp_path / "x.mp3", seconds=2.0, rate_hz=48000, codec="mp3")
    convert_to_flac(source, tmp_path / "x.flac")
    info = soundfile.info(tmp_path / "x.flac")
    assert info.samplerate == 16000 and info.channels == 1
    assert info.duration == pytest.approx(2.0, abs=0.1)


def test_a_source_that_changed_is_converted_again(tmp_path):
    source = write_coded(tmp_path / "x.m4a", seconds=1.0)
    target = tmp_path / "x.flac"
    convert_to_flac(source, target)
    first = target.read_bytes()
    write_coded(source, seconds=1.5, seed=1)
    for time_ns in (10**18, 2 * 10**18):  # older than before, younger than before
        os.utime(source, ns=(time_ns, time_ns))
        convert_to_flac(source, target)
        assert target.read_bytes() != first
        first = target.read_bytes()
    convert_to_flac(source, target)
    assert target.read_bytes() == first


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_bad(folder, fault):  # noqa: PLR0911
    """Write a file with a fault; give it and what its line says."""
    if fault == "missing":
        return folder / "bad.wav", "not readable as audio"
    if fault == "zero bytes":
        path = folder / "bad.flac"
        path.write_bytes(b"")
        return path, "not readable as audio"
    if fault == "truncated m4a":
        path = write_coded(folder / "bad.m4a", seconds=3.0)
        truncate(path)
        return path, "not readable as audio|truncated after"
    if fault == "truncated wav":
        path = write_audio(folder / "bad.wav", seconds=3.0)
        truncate(path)
        return path, "cut off after 2398. of 48000 samples"
    if fault == "truncated sphere":
        path = folder / "bad.sph"
        soundfile.write(path, np.zeros(48000), 16000, format="NIST", subtype="PCM_16")
        truncate(path)
        return path, "cut off after 23.* of 48000 samples"
    if fault == "not UTF-8":
        path = folder / os.fsdecode(b"caf\xe9.wav")
        write_audio(folder / "good.wav").rename(path)
        return path, r"caf\\udce9.wav'?: its name is not UTF-8"
    if fault == "unknown length":
        path = write_audio(folder / "bad.flac")
        data = bytearray(path.read_bytes())
        data[21] &= 0xF0  # STREAMINFO, total samples: 36 bits
        data[22:26] = bytes(4)
        path.write_bytes(data)
        return path, "its header does not tell its length"
    if fault == "zero-byte m4a":
        path = folder / "bad.m4a"
        path.write_bytes(b"")
        return path, "not readable as audio"
    if fault == "wrong rate":
        return write_audio(folder / "bad.wav", rate_hz=8000), "8000 Hz; resample it to 16000 Hz"
    path = folder / "bad.wav"
    soundfile.write(path, np.empty(0), 16000)
    return path, "no samples in it"


@pytest.mark.parametrize(
    "fault",
    [
        "missing",
        "zero bytes",
        "truncated m4a",
        "zero-byte m4a",
        "wrong rate",
        "no samples",
        "truncated wav",
        "truncated sphere",
        "not UTF-8",
        "unknown length",
    ],  # fmt: skip
)
def test_a_bad_file_is_named_and_the_rest_is_kept(tmp_path, caplog, fault):
    """One bad file of a thousand and one is left out; one of two stops the stage."""
    folder = tmp_path / "wav"
    folder.mkdir()
    good = write_audio(folder / "good.flac")
    bad, message = make_bad(folder, fault)
    many = [Utterance(f"s-{i:04}", "s", good) for i in range(1000)]
    kept = write_data_set(tmp_path / "data", "set", [*many, Utterance("s-bad", "s", bad)])
    assert len(kept) == 1000 and "s-bad" not in kept
    assert len(read_table(tmp_path / "data/set/utt2spk")) == 1000
    assert "left out 1 of 1001 files" in caplog.text and ascii(str(bad))[1:-1] in caplog.text
    with pytest.raises(SvError, match=f"1 of 2 audio files cannot be used; first: .*({message})"):
        make_set(tmp_path / "again", [good, bad])
    assert not (tmp_path / "again" / "data" / "set").exists()


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 32001, 31999])
def test_the_length_in_a_pipes_header_is_not_believed(tmp_path, claimed):
    """SoX and FFmpeg write these; and a byte more or less is no loss."""
    path = write_audio(tmp_path / "x.wav")
    data = bytearray(path.read_bytes())
    data[40:44] = claimed.to_bytes(4, "little")
    path.write_bytes(data)
    assert abs(len(decode_audio(path)[0]) - 16000) <= 1


def test_labels_are_one_word_or_a_line_and_none_is_empty(tmp_path):
    path = write_audio(tmp_path / "x.wav")
    labels = [{"gender": ""}, {"gender": "f\nm"}, {"gender": " f "}]
    utterances = [Utterance(f"s-{i}", "s", path, label) for i, label in enumerate(labels)]
    write_data_set(tmp_path, "set", utterances)
    assert read_table(tmp_path / "set/utt2gender") == {"s-1": "f m", "s-2": "f"}
    with pytest.raises(SvError, match=f"'' is no speaker id: {path}"):
        write_data_set(tmp_path, "set", [Utterance("s-1", "", path)])


def test_stereo_gives_its_first_channel(tmp_path):
    path = write_audio(tmp_path / "wav/x.wav", channels=2)
    make_set(tmp_path, [path])
    [cut] = read_manifest(tmp_path / "data/set/cuts.jsonl.gz")
    samples, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(load_samples(cut), samples[:, 0])


def test_nan_samples_are_an_error_of_their_utterance(tmp_path, run_cli):
    good = write_audio(tmp_path / "wav/good.wav")
    bad = tmp_path / "wav/bad.wav"
    soundfile.write(bad, np.full(16000, np.nan), 16000, subtype="FLOAT")
    make_set(tmp_path, [good, bad])
    done = run_cli(
        "sv.bin.make_fbank", "--config", "egs/mini/conf/features.toml",
        tmp_path / "data/set", tmp_path / "f.ark", tmp_path / "f.scp",
        tmp_path / "utt2num_frames",
    )  # fmt: skip
    assert "no features for s-bad: " in done.stderr
    assert f"{bad}: NaN or infinity in its audio" in done.stderr
    assert list(read_table(tmp_path / "f.scp")) == ["s-good"]


def test_ids_with_blanks_and_twice_are_refused_and_odd_paths_are_not(tmp_path):
    dash = write_audio(tmp_path / "wav dir/-dash.wav")
    assert make_set(tmp_path, [dash]) == ["s--dash"]
    assert read_table(tmp_path / "data/set/wav.scp")["s--dash"] == str(dash)
    blank = write_audio(tmp_path / "wav dir/a b.wav")
    with pytest.raises(SvError, match="'s-a b' cannot be an utterance id: spaces"):
        make_set(tmp_path, [blank])
    with pytest.raises(SvError, match="duplicate utterance id 's--dash': .* and "):
        make_set(tmp_path, [dash, dash])


def test_an_unreadable_folder_is_an_error():
    """os.walk would go on without it."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        wav = Path(folder, "wav")
        write_audio(wav / "a/x.wav")
        closed = write_audio(wav / "b/y.wav").parent
        Path(folder).chmod(0o755)
        closed.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)  # root reads everything
        try:
            with pytest.raises(SvError, match=f"cannot read folder {closed}: Permission denied"):
                list_audio(wav)
        finally:
            if root:
                os.seteuid(0)


def test_manifests_are_the_same_for_any_number_of_processes(tmp_path):
    path = write_audio(tmp_path / "wav/x.wav")
    for nj in (1, 2):
        utterances = [Utterance(f"s-{i:04}", "s", path, {"gender": "f"}) for i in range(2100)]
        write_data_set(tmp_path / f"data{nj}", "set", utterances, nj=nj)
    for name in ("recordings", "supervisions", "cuts"):
        one, two = (
            (tmp_path / f"data{nj}/manifests/set_{name}.jsonl.gz").read_bytes() for nj in (1, 2)
        )
        assert one == two
    assert len(list(read_manifest(tmp_path / "data2/set/cuts.jsonl.gz"))) == 2100
    assert read_table(tmp_path / "data2/set/utt2gender")["s-0000"] == "f"


def test_manifest_lines_are_what_lhotse_writes(tmp_path):
    """Recordings, reverberated recordings, supervisions, cuts and mixes."""
    path = write_audio(tmp_path / "x.wav")
    recording = build_recording(path, "s-x")
    cut = build_cut(recording, Utterance("s-x", "s", path, {"language": "fr"}))
    wet = recording.reverb_rir(recording, affix_id=False, rir_channels=[0])
    mixed = cut.mix(cut, snr=10, preserve_id="left")
    assert isinstance(mixed.tracks[0], MixTrack)
    items = [recording, cut.supervisions[0], cut, wet, mixed]
    write_manifest(tmp_path / "m.jsonl.gz", items)
    lines = gzip.decompress(pack_items(items)).decode().splitlines()
    for line, item in zip(lines, items, strict=True):
        assert json.loads(line) == json.loads(json.dumps(item.to_dict()))
