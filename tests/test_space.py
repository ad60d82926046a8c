"""What stages 1 and 3 will write, and that a disk without room for it is refused before they do."""

import json
import logging
import os
import re
from collections import namedtuple
from dataclasses import asdict

import pytest
from conftest import ROOT
from corpora import write_coded

from sv.bin import recipe
from sv.config import read_config
from sv.data import space
from sv.data.config import FbankConfig
from sv.data.cuts import Utterance, write_data_set
from sv.errors import SvError

KINDS = ("", "_babble", "_music", "_noise", "_reverb")
FEATURES = ROOT / "egs/voxceleb/conf/features.toml"
Usage = namedtuple("Usage", "free")


@pytest.fixture
def disk(monkeypatch, caplog):
    """Let every disk have ``disk.free`` bytes; ``disk.read()`` is what was logged."""
    caplog.set_level(logging.INFO)

    class Disk:
        free = 10**15

        def read(self):
            text = caplog.text
            caplog.clear()
            return text

    made = Disk()
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: Usage(made.free))
    return made


def test_the_five_copies_of_voxceleb2(disk, tmp_path):
    """Its published hours (Chung et al., 2018: 1,092,009 utterances of 7.8 s), in fewer lines."""
    hours = 1_092_009 * 7.8 / 3600
    lines = 10_000
    table = "".join(f"id{n:05} {hours * 3600 / lines:.3f}\n" for n in range(lines))
    dirs = [tmp_path / f"voxceleb2_dev{kind}" for kind in KINDS]
    for folder in dirs:
        folder.mkdir()
        (folder / "utt2dur").write_text(table)
    config = tmp_path / "features.toml"

    def ask(free, compression="two-byte"):
        disk.read()
        disk.free = free
        config.write_text(FEATURES.read_text() + f'compression = "{compression}"\n')
        recipe.main(["space", "--config", str(config), *map(str, dirs)])
        text = disk.read()
        sizes = re.findall(r"voxceleb2_dev\w*: ([0-9.]+) GB", text)
        return [float(x) for x in sizes], float(re.search(r"([0-9.]+) GB to write", text)[1])

    # 100 frames a second of 81 values
    assert ask(700 * 10**9) == ([pytest.approx(hours * 360_000 * 162 / 1e9, rel=1e-3)] * 5, 689.9)
    assert ask(400 * 10**9, "one-byte") == ([69.0] * 5, 345.0)
    assert ask(1400 * 10**9, "none")[1] == pytest.approx(1379.9, abs=0.2)
    with pytest.raises(SvError, match=r"689\.9 GB to write, 600\.0 GB free on the disk at /") as e:
        ask(600 * 10**9)
    for way in (r"kinds .*\(138\.0 GB each", r'"one-byte" .*\(345\.0 GB\)', "another --data"):
        assert re.search(way, str(e.value))
    with pytest.raises(SvError, match="another --data") as e:
        ask(300 * 10**9, "one-byte")
    assert "one-byte" not in str(e.value)

    # What an earlier run has written is there; sparse files are as large for everyone.
    fbank = dirs[0] / "fbank"
    fbank.mkdir()
    for job, size in ((1, 100), (2, 30)):
        (fbank / f"fbank.{job}.ark").touch()
        os.truncate(fbank / f"fbank.{job}.ark", size * 10**9)
    (fbank / ".fbank.3.ark.77.tmp").write_bytes(b"killed")
    (fbank / "features.json").write_text(json.dumps(asdict(read_config(FEATURES, FbankConfig))))
    assert ask(600 * 10**9)[1] == 559.9
    # Of other settings it is replaced, after the new one is written beside it.
    assert ask(600 * 10**9, "one-byte")[1] == 215.0
    dirs[:] = dirs[:1]
    assert ask(600 * 10**9, "one-byte")[1] == 69.0

    (dirs[0] / "utt2dur").write_text("a 7.8\nb long\n")
    with pytest.raises(SvError, match="utt2dur: not a table of seconds"):
        ask(600 * 10**9)


def test_audio_to_convert_needs_room_until_it_is_there(disk, tmp_path):
    """A disk that is full is named before a file is converted; a rerun needs nothing more."""
    sources = [write_coded(tmp_path / f"{n}.m4a", seconds=2.0, seed=n) for n in range(3)]
    utterances = [Utterance(f"s-{path.stem}", "s", path) for path in sources]
    disk.free = 1000
    with pytest.raises(SvError, match=r"no room: .* to write, .* free .*--data"):
        write_data_set(tmp_path / "data", "set", utterances)
    assert not (tmp_path / "data/audio").exists()
    disk.free = 10**6
    write_data_set(tmp_path / "data", "set", utterances)
    flacs = list((tmp_path / "data/audio").rglob("*.flac"))
    said = re.search(r"FLAC of 3 files: ([0-9.]+) MB\n", disk.read())
    assert float(said[1]) * 1e6 == pytest.approx(sum(f.stat().st_size for f in flacs), rel=0.5)
    disk.free = 0
    assert len(write_data_set(tmp_path / "data", "set", utterances)) == 3
    assert " 0.0 MB to write" in disk.read()
