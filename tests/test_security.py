"""Data that somebody else made: what they ask for is not done, and the message is one line.

Each payload would make a file; the tests look for it.
"""

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from conftest import ROOT, environment
from corpora import prepare, run_here, write_audio, write_coded, write_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_tree import MEASURED, read_csv, write, write_model, write_scores, write_sidecar

from local.download_corpora import fetch, unpack
from sv.data.audio import read_header
from sv.data.crops import load_crop_index
from sv.data.cuts import Utterance, write_data_set
from sv.data.manifests import parse_item
from sv.energy.check import check_files
from sv.energy.config import build_energy_config
from sv.energy.journal import append_line, open_journal, read_journal
from sv.energy.live import describe, read_live_file, write_live
from sv.energy.nodes import read_expected
from sv.energy.sidecar import read_energy_series, write_trace
from sv.energy.web import FetchError, fetch_json
from sv.errors import SvError, UsageError
from sv.files import read_json, read_toml, validate_name, write_text
from sv.jobs import slurm
from sv.jobs.completion import is_finished
from sv.jobs.jobs import build_parser, parse
from sv.kaldi.archive import read_matrix, read_vectors
from sv.model_name import check_model_name
from sv.report.tables.cells import Cell, Column, Row, Table, format_csv, format_markdown
from sv.report.tables.latex import format_latex
from sv.score.record import read_scored_list
from sv.system import mask_secrets


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def made(tmp_path):
    """A file that only a payload makes."""
    path = tmp_path / "made"
    yield path
    assert not path.exists()


def assert_one_line(done, *words):
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def score(folder, scp, **info):
    folder.mkdir(exist_ok=True)
    info = {"data_set": "d", "precision": "fp32", "model": "m", **info}
    (folder / "info.json").write_text(json.dumps(info))
    (folder / "xvector.scp").write_text(scp)
    (folder / "utt2spk").write_text("utt1 s\n")
    (folder / "trials").write_text("utt1 utt1 target\n")
    return run_here(
        "sv.bin.score_trials", "--backends", "cosine", folder, folder / "trials", folder / "out",
        check=False,
    )  # fmt: skip


ENTRIES = (
    "touch {made} |",
    "touch {made} |:5",
    "|touch {made}",
    "cat {ark} | touch {made} |",
    "{ark}",
    "{ark}:2[0:1]",
    "{ark}:²",
    "{ark}:" + "9" * 26,
    "{ark}:-5",
    "-:5",
    "\0:5",
)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_table_names_archives_and_nothing_else(tmp_path, made, entry):
    ark = tmp_path / "x.ark"
    ark.write_bytes(b"utt1 \0BFV \4" + struct.pack("<iff", 2, 1.0, 2.0))
    done = score(tmp_path / "xv", f"utt1 {entry.format(made=made, ark=ark)}\n")
    assert_one_line(done, "xvector.scp")


HEADS = {
    "pickle": lambda made: b"PKL" + pickle.dumps(Payload(made)),
    "audio": lambda made: b"AUDIO" + b"\0" * 40,
    "numpy": lambda made: b"NPY" + b"\x93NUMPY\1\0" + b"\0" * 40,
    "negative": lambda made: b"\0BFV \4" + struct.pack("<i", -1),
    "endless": lambda made: b"\0BFV \4" + struct.pack("<i", 2**31 - 1),
    "double": lambda made: b"\0BDV \4" + struct.pack("<i", 2**31 - 1),
    "matrix": lambda made: b"\0BFM \4" + struct.pack("<ibi", 1, 4, 1) + b"\0\0\0\0",
    "compressed": lambda made: b"\0BCM2 " + struct.pack("<ffii", 0, 1, 2**31 - 1, 2**31 - 1),
    "text": lambda made: b" [ 1 2\n 3 4 ]",
    "no number": lambda made: b" [ 1 x ]",
    "nothing": lambda made: b"",
}


@pytest.mark.parametrize("kind", HEADS)
def test_an_archive_is_numbers_and_nothing_else(tmp_path, made, kind):
    (tmp_path / "x.ark").write_bytes(b"utt1 " + HEADS[kind](made))
    done = score(tmp_path / "xv", f"utt1 {tmp_path}/x.ark:5\n")
    assert_one_line(done, "xvector.scp")


MATRICES = {
    b"\0BFM \4": lambda rows, columns: struct.pack("<ibi", rows, 4, columns),
    b"\0BCM2 ": lambda rows, columns: struct.pack("<ffii", 0, 1, rows, columns),
}


@pytest.mark.parametrize("head", MATRICES)
def test_a_matrix_is_as_large_as_its_file_allows(tmp_path, head):
    ark = tmp_path / "x.ark"
    shapes = [(-1, 80), (80, -1), (-3, -4), (0, 4), (2**31 - 1, 80), (2**31 - 1, 2**31 - 1), (2, 3)]
    for shape in shapes:
        ark.write_bytes(head + MATRICES[head](*shape) + b"\0" * 11)
        with pytest.raises(SvError, match="rows|truncated"):
            read_matrix(f"{ark}:0")
    ark.unlink()
    os.mkfifo(ark)
    with pytest.raises(SvError, match="regular"):
        read_matrix(f"{ark}:0")


def write_cuts(path, source, where):
    """Write a cut with a hostile source: its own, a track's or an impulse response's."""
    audio = path.parent / "x.wav"
    recording = {
        "id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 16000,
        "duration": 1.0,
    }  # fmt: skip
    good = {"type": "file", "channels": [0], "source": str(audio)}
    if where == "rir":
        kwargs = {"rir": recording, "affix_id": False, "rir_channels": [0]}
        recording = {
            **recording, "sources": [good],
            "transforms": [{"name": "ReverbWithImpulseResponse", "kwargs": kwargs}],
        }  # fmt: skip
    cut = {
        "id": "s-u", "start": 0, "duration": 1.0, "channel": 0, "supervisions": [],
        "recording": recording, "type": "MonoCut",
    }  # fmt: skip
    if where == "mix":
        track = {key: value for key, value in cut.items() if key != "type"}
        cut = {"id": "s-u", "type": "MixedCut", "tracks": [{"type": "MonoCut", "cut": track}]}
    if where == "custom":
        cut["recording"] = {**recording, "sources": [good]}
        cut["custom"] = {"x": recording}
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(cut) + "\n")


SOURCES = {
    "command": lambda made: {"type": "command", "channels": [0], "source": f"touch {made}"},
    "url": lambda made: {"type": "url", "channels": [0], "source": "http://127.0.0.1:9/x"},
    "memory": lambda made: {"type": "memory", "channels": [0], "source": "AAAA"},
    "descriptor": lambda made: {"type": "file", "channels": [0], "source": 0},
}


@pytest.mark.parametrize("where", ["cut", "mix", "rir", "custom"])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_manifest_names_files_and_nothing_else(tmp_path, made, kind, where):
    write_cuts(tmp_path / "cuts.jsonl.gz", SOURCES[kind](made), where)
    (tmp_path / "features.toml").write_text("")
    outputs = [tmp_path / name for name in ("a.ark", "a.scp", "frames")]
    done = run_here(
        "sv.bin.make_fbank", "--config", tmp_path / "features.toml",
        tmp_path, *outputs, check=False,
    )  # fmt: skip
    assert_one_line(done, "cuts.jsonl.gz", "only files are read")


def make_tar(*members, mode="w"):
    """Pack TarInfo and bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def make_long_escape():
    """CVE-2025-4517: links that are longer than PATH_MAX once they are followed."""
    members, place = [], ""
    for letter in "abcdefghijklmnop":
        folder = tarfile.TarInfo(f"{place}{letter * 247}")
        folder.type = tarfile.DIRTYPE
        members += [(folder, b""), link(f"{place}{letter}", letter * 247)]
        place += f"{letter}/"
    members.append(link(f"{place}{'l' * 254}", "../" * 16))
    members.append(link("escape", f"{place}{'l' * 254}/../../home"))
    return make_tar(*members, (tarfile.TarInfo("escape/evil"), b"x"))


def make_zip(*entries, mode=0):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def change_zip(flags=0, method=zipfile.ZIP_DEFLATED):
    """Give every entry other flags and another method of compression."""
    data = make_zip(("wav/x", b"x"))
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(signature) + place
        data = data[:at] + struct.pack("<HH", flags, method) + data[at + 4 :]
    return data


WAV = (tarfile.TarInfo("wav/x"), b"x")
ARCHIVES = {
    "escape": lambda: make_tar(WAV, (tarfile.TarInfo("../evil"), b"x")),
    "long": make_long_escape,
    "link": lambda: make_tar(WAV, link("evil", "..")),
    "inner link": lambda: make_tar(WAV, link("evil", "wav")),
    "hard link": lambda: make_tar(WAV, link("evil", "wav/x", tarfile.LNKTYPE)),
    "fifo": lambda: make_tar(WAV, link("evil", "", tarfile.FIFOTYPE)),
    "device": lambda: make_tar(WAV, link("evil", "", tarfile.CHRTYPE)),
    "bomb": lambda: make_tar(WAV, (tarfile.TarInfo("evil"), bytes(300_000_000)), mode="w:gz"),
    "name": lambda: make_tar(WAV, (tarfile.TarInfo("x" * 2_000_000), b"x"), mode="w:gz"),
    "torn": lambda: make_tar(WAV, (tarfile.TarInfo("evil"), bytes(3000)))[:2500],
    "zip": lambda: make_zip(("wav/x", b"x"), ("../evil", b"x")),
    "zip bomb": lambda: make_zip(("wav/x", b"x"), ("evil", bytes(300_000_000))),
    "zip link": lambda: make_zip(("wav/x", b".."), mode=stat.S_IFLNK | 0o777),
    "encrypted": lambda: change_zip(flags=1),
    "method": lambda: change_zip(method=99),
    "noise": lambda: b"x" * 999,
}  # fmt: skip


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_leaves_its_folder_neither_by_paths_nor_by_size(tmp_path, kind):
    data = ARCHIVES[kind]()
    (tmp_path / "x.tar").write_bytes(data)
    (tmp_path / "home").mkdir()
    (tmp_path / "downloads.toml").write_text(
        f'[a]\nunpack = "a"\nproof = "a/wav/x"\nplace = "."\n'
        f'files = [{{ name = "x.tar", md5 = "{hashlib.md5(data).hexdigest()}" }}]\n'
    )
    done = run_here(
        "local.download_corpora", "--table", tmp_path / "downloads.toml", tmp_path, check=False
    )
    assert done.returncode == 1
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []
    assert list((tmp_path / "a").iterdir()) == []  # nothing is left behind


TABLES = (
    'name = "../x", md5 = "", url = "http://127.0.0.1:9/x"',
    'name = "x", md5 = "", url = "file:///etc/hostname"',
    'name = "x", md5 = "", url = "data:,x"',
    'name = "x", md5 = "", url = "x"',
    'name = "x", md5 = "", url = "http://[::1/x"',
)


@pytest.mark.parametrize("words", TABLES)
def test_a_table_fetches_from_servers_into_its_folder(tmp_path, words):
    (tmp_path / "t.toml").write_text(f"[a]\nfiles = [{{ {words} }}]\n")
    done = run_here(
        "local.download_corpora", "--table", tmp_path / "t.toml", tmp_path / "c", check=False
    )
    assert done.returncode == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["t.toml"]


def test_places_of_a_table_are_below_the_corpora(tmp_path):
    for key in ("unpack", "proof", "place"):
        (tmp_path / "t.toml").write_text(f'[a]\n{key} = "../x"\nfiles = []\n')
        done = run_here(
            "local.download_corpora", "--table", tmp_path / "t.toml", tmp_path, check=False
        )
        assert done.returncode == 2, key


class Answer(BaseHTTPRequestHandler):
    """Answers with the header that the path names."""

    def do_GET(self):
        name, _, value = self.path[1:].partition("=")
        self.send_response(302 if name == "Location" else 200)
        self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"x" * 100)

    def log_message(self, *args):
        pass


@pytest.fixture
def answers():
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "header",
    ["Content-Length=abc", "Content-Length=-5", "Content-Length=999999999999999999", "X=1",
     "Location=file:///etc/hostname"],
)  # fmt: skip
def test_a_server_fills_no_disk(tmp_path, answers, header):
    with pytest.raises(SvError) as error:
        fetch(f"http://user:hunter2@{answers}/{header}", tmp_path / "x", "", pause_s=0)
    assert "hunter2" not in str(error.value)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


# Names that become paths.

BAD_NAMES = ("../x", "a/b", "..", ".", "", "a b", "a\nb", "a\0", "a\\b", "/etc", "x/../../../PWN")


def test_one_rule_for_names():
    for name in BAD_NAMES:
        with pytest.raises(SvError):
            validate_name(name, "x")
    for name in ("id10001", "声-纹", "спикер", "a..b", "x.1", "ñ", "a+b,c=d"):
        assert validate_name(name, "x") == name


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("who", ["speaker", "utterance", "set"])
def test_no_audio_is_written_under_a_name_that_leads_out(tmp_path, name, who):
    source = write_coded(tmp_path / "in" / "x.mp3", codec="mp3")
    speaker, utterance = (name, f"{name}-1") if who == "speaker" else ("s", f"s{name}")
    if who == "utterance" and name in ("..", ".", ""):
        return  # "s.." is a name
    data = tmp_path / "data" / "deep"
    with pytest.raises(SvError):
        write_data_set(data, name if who == "set" else "d", [Utterance(utterance, speaker, source)])
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert found <= {source} | set(data.rglob("*"))
    assert not list(tmp_path.rglob("*.flac"))


CORPUS = """
train = "commonbench"
[trials]
commonbench = "commonbench"
[speech.commonbench]
path = "cv"
lists = "list.txt"
[augment]
noise = ["noise"]
"""
TSV = "client_id\tpath\n../../../../zz/a\tcommon_voice_en_1.mp3\n"


@pytest.mark.parametrize("table", [TSV, "x\ty\n1\t2\n", "", "client_id\tpath\na\n\xff\n"])
def test_a_corpus_writes_nothing_outside(tmp_path, table):
    """Through stage 1: speakers of Common Voice are named by its tables."""
    corpora = tmp_path / "a" / "b" / "c"
    write_config(corpora / "conf" / "corpora.toml", CORPUS)
    write_audio(corpora / "noise" / "x.wav", seconds=0.1)
    write_coded(corpora / "cv" / "en" / "clips" / "common_voice_en_1.mp3", seconds=0.2, codec="mp3")
    (corpora / "cv" / "en" / "validated.tsv").write_bytes(table.encode("latin-1"))
    (corpora / "list.txt").write_text("1 common_voice_en_1 common_voice_en_1\n")
    done = prepare(corpora, check=False)
    assert_one_line(done, "commonbench: the speaker '../" if table == TSV else "validated.tsv")
    assert not list(tmp_path.rglob("*.flac"))


def test_a_table_of_a_recipe_names_modules_of_local_alone(tmp_path):
    for name in ("an4.x", "../x", "os", ""):
        config = write_config(
            tmp_path / "corpora.toml",
            f'train = "a"\n[trials]\n[speech."{name}"]\npath = "."\n[augment]\n',
        )
        done = run_here("local.corpora", config, tmp_path, check=False)
        assert_one_line(done, f"no local/prepare_{name}.py")


def test_ids_of_files_that_are_only_read_may_hold_separators(tmp_path):
    source = write_audio(tmp_path / "in" / "x.wav")
    keys = write_data_set(tmp_path / "data", "d", [Utterance("s/a/1", "s", source)])
    assert keys == ["s/a/1"]


RECORD = {
    "trials_name": "t", "data_set": "d", "backend": "cosine", "precision": "fp32", "trials": 1,
    "targets": 1, "nontargets": 0, "eer_percent": 1.0, "min_dcf": {"0.01": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("key", ["trials_name", "data_set", "backend", "precision"])
def test_results_have_names_and_no_paths(tmp_path, key):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(RECORD))
    assert read_scored_list(path).trials_name == "t"
    for name in BAD_NAMES:
        path.write_text(json.dumps({**RECORD, key: name}))
        with pytest.raises(SvError, match=f"x.json: {key}"):
            read_scored_list(path)


# Networks of somebody else.


def test_a_checkpoint_is_tensors_and_nothing_else(tmp_path, made):
    import torch  # noqa: PLC0415 - it takes a second

    audio, final = write_audio(tmp_path / "x.wav"), tmp_path / "final.pt"
    network = {"format": "xvector/2", "features": None, "input_dim": 81, "embedding_dim": 2,
               "pooling": "statistics", "base_channels": (2, 2, 2, 2), "net": {}}  # fmt: skip

    def save(state, **how):
        torch.save(state, final, **how)

    spoil = (
        lambda: final.write_bytes(b""),
        lambda: final.write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f."),
        lambda: final.write_bytes(b"\x80\x05\x8e" + b"\xff" * 8),
        lambda: save({"format": "xvector/2", "x": Payload(made)}),
        lambda: save(Payload(made), _use_new_zipfile_serialization=False),
        lambda: save({"format": "xvector/2"}),
        lambda: save({**network, "model": "../../../PWN"}),
        lambda: save({**network, "model": "resnet18_d", "features": []}),
        lambda: save({**network, "model": "resnet18_d"}),
        lambda: save({**network, "model": "resnet18_d", "pooling": []}),
    )
    for write_final in spoil:
        write_final()
        for argv in (
            ("sv.bin.embed", tmp_path, audio),
            ("sv.bin.export", "--format", "torchscript", tmp_path),
        ):
            assert_one_line(run_here(*argv, check=False), "final.pt")
    assert {path.name for path in tmp_path.iterdir()} == {"x.wav", "final.pt"}


def test_an_index_of_crops_is_numbers(tmp_path, made):
    path = tmp_path / "train.npz"
    for write_index in (
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"PK\3\4" + b"\0" * 40),
        lambda: np.savez(path, columns=np.array(Payload(made), dtype=object)),
        lambda: np.savez(path, columns=np.array([1, 2])),
    ):
        write_index()
        with pytest.raises(SvError, match="train.npz"):
            load_crop_index(path)


# JSON, TOML and journals.

DEEP = "[" * 100_000
BAD_JSON = (
    DEEP, "[" * 60 + "]" * 60, "1" * 5000, '{"a": 1' + "0" * 30 + "}", r'"\ud800"', "{", "[NaN]",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD_JSON)
def test_json_and_toml_are_read_or_refused_in_one_line(tmp_path, text):
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(SvError, match=f"^{path}: [^\n]*$"):
        read_json(path)
    path.write_text(f"a = {text}")
    with pytest.raises(UsageError, match=f"^{path}: "):
        read_toml(path)
    path.write_text("[1e999]")  # TOML has infinity, JSON has not
    with pytest.raises(SvError, match="inf"):
        read_json(path)


BAD_LINES = (
    '{"line":"head"}', '{"line":"head","channels":[1]}', '{"line":"sample"}', DEEP,
    '{"line":["head"]}', '{"line":"sample","raw":5}', '{"line":"head","channels":[]}',
)  # fmt: skip
BAD_HEADS = (
    {"started_utc": "x"}, {"started_utc": 5}, {"t_s": "x"}, {"period_s": []}, {"stage": []},
    {"channels": [{"id": "a", "kind": "measured"}]}, {"pue": 5},
)  # fmt: skip


@pytest.fixture(scope="module")
def metered(tmp_path_factory):
    """The folder of a stage that the real meter has metered."""
    folder = tmp_path_factory.mktemp("metered")
    subprocess.run(
        ["utils/meter.sh", "--stage", "1", "--name", "z", "--dir", folder, "--country", "FRA", "--",
         "true"],
        cwd=ROOT, env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_a_bad_journal_stops_no_other(tmp_path, metered, run_cli):
    journal = (metered / "01_z.journal.jsonl").read_text()
    head, *rest = journal.splitlines()
    bad = [*BAD_LINES, *(json.dumps({**json.loads(head), **wrong}) for wrong in BAD_HEADS)]
    names = [f"01_a{number}" for number in range(len(bad))]
    for name, line in zip(names, bad, strict=True):
        (tmp_path / f"{name}.journal.jsonl").write_text("\n".join([line, *rest]) + "\n")
    (tmp_path / "01_b.journal.jsonl").symlink_to("nowhere")
    (tmp_path / "01_z.journal.jsonl").write_text(journal)
    done = run_cli("sv.bin.meter", "--rebuild", tmp_path, check=False)
    assert_one_line(done, *(f"{name}.journal.jsonl: " for name in (*names, "01_b")))
    assert len(done.stderr.splitlines()) == len(names) + 2
    assert {path.name for path in tmp_path.glob("*.json")} == {"01_z.json"}


@pytest.mark.parametrize("wrong", BAD_HEADS)
def test_a_sidecar_is_held_against_a_bad_journal_in_one_line(tmp_path, metered, wrong):
    head, *rest = (metered / "01_z.journal.jsonl").read_text().splitlines()
    journal, sidecar = tmp_path / "01_z.journal.jsonl", tmp_path / "01_z.json"
    journal.write_text("\n".join([json.dumps({**json.loads(head), **wrong}), *rest]) + "\n")
    sidecar.write_bytes((metered / "01_z.json").read_bytes())
    [(path, line)] = check_files([sidecar])
    assert path == sidecar and "journal" in line and "\n" not in line
    for read in (write_trace, read_energy_series):
        with contextlib.suppress(SvError):  # some lines are not needed for these
            read(journal)


def test_the_other_meters_of_a_stage_have_labels_and_no_paths(tmp_path):
    lines = ['{"labels":["../x","a.1",5]}', '{"labels":5}', '{"labels":["a.2","a/b"]}', DEEP]
    (tmp_path / "expected.jsonl").write_text("\n".join(lines))
    assert read_expected(tmp_path) == ["a.2"]


LIVE = {
    "schema": "energy-live/1", "stage": 1, "name": "x", "model": None, "label": None,
    "started_utc": "", "attempt": 1, "host": "h", "boot_id": "b", "meter_pid": 1,
    "meter_start_ticks": 5, "elapsed_s": 1.0, "power_w": 1.0, "energy_kwh": 1.0,
    "measured_fraction": 1.0, "co2_g": None, "run_energy_kwh": 1.0,
}  # fmt: skip


def test_a_live_file_is_a_live_file(tmp_path):
    path = tmp_path / ".01_x.live.json"
    path.write_text(json.dumps(LIVE))
    assert read_live_file(path) == LIVE
    for key, value in itertools.product(LIVE, (None, [], "x", float("nan"), -1, {})):
        path.write_text(json.dumps({**LIVE, key: value}))
        describe(tmp_path)  # what `meter --watch` prints
    path.write_text('{"schema": "energy-live/1"}')
    assert read_live_file(path) is None


def test_a_proof_is_a_proof(tmp_path):
    path = tmp_path / "x"
    for value in ({"command": [], "read": 5, "written": {}}, {"read": [], "written": {}}, [],
                  {"files": {"a": "b"}, "command": []}, {"command": 5, "read": {}, "written": {}},
                  {"command": [], "read": {}, "written": {"a": [[]]}}):  # fmt: skip
        path.write_text(json.dumps(value))
        assert not is_finished(path, [], {"a": [1, 2]})


# Stage 8.


def test_one_systems_files_cost_no_other_and_lead_nowhere_else(tmp_path, monkeypatch):
    """Through the real program, with an exp folder of which others have made a part."""
    monkeypatch.setitem(sys.modules, "sv.report.figures.files", None)  # as without matplotlib
    data, exp = tmp_path / "a" / "data", tmp_path / "a" / "exp"
    write(data / "test_trials", "t s\n")

    def add(name, trials="t"):
        write_model(exp, name, 1000)
        write_scores(exp, name, trials, "s", 3.0, det=False)
        write_sidecar(exp / name / "energy" / "05_train.json", 1.0, MEASURED)
        return exp / name

    add("resnet18_d")
    add("=cmd|x!A1")
    companion = add("resnet34_d")
    write(companion / "forecast.json", DEEP)
    write(companion / "energy" / "ceems.json", "{}")
    broken = {
        "name": lambda folder: write(
            folder / "scores" / "y.json", {**RECORD, "trials_name": "x/../../../../../PWN"}
        ),
        "deep": lambda folder: write(folder / "model.json", DEEP),
        "digits": lambda folder: write(folder / "model.json", '{"parameters": ' + "1" * 5000 + "}"),
        "sidecar": lambda folder: write(folder / "energy" / "05_train.json", "{}"),
        "file": lambda folder: write(folder / "scores" / "x y.json", RECORD),
        "a\x1bb": lambda folder: None,
        os.fsdecode(b"\xff"): lambda folder: None,
    }
    for name, spoil in broken.items():
        spoil(add(name))
    write(data / "energy" / "03_fbank.json", "[]")
    done = run_here("sv.bin.make_results", data, exp, check=False)
    assert_one_line(done, *(repr(name)[1:-1] for name in broken), "03_fbank.json")
    table = read_csv(exp / "results" / "table1.csv")
    assert [row["system"] for row in table] == ["resnet34_d", "resnet18_d", "'=cmd|x!A1"]
    notes = (exp / "results" / "table3.md").read_text()
    assert "forecast.json" in notes and "ceems.json" in notes
    assert not [path for path in tmp_path.rglob("*") if "PWN" in path.name]


def test_names_are_text_in_figures_and_what_cannot_be_drawn_costs_its_figure(tmp_path, monkeypatch):
    from sv.report.figures import files  # noqa: PLC0415 - matplotlib

    def draw(drawing):
        drawing.figure.add_axes((0, 0, 1, 1)).set_title("a\x01<script> $x^{$")

    def fail(drawing):
        drawing.figure.add_axes((0, 0, 1, 1)).plot([1.0], [1.0, 2.0])

    monkeypatch.setattr(files, "list_figures", lambda results: ({"det_a": fail, "det_b": draw}, []))
    drawn, _, failures = files.write_figures(None, tmp_path)
    assert [figure.stem for figure in drawn] == ["det_b"]
    assert len(failures) == 1 and failures[0].startswith("no det_a: ")
    assert "a&lt;script&gt; $x^{$" in (tmp_path / "det_b.svg").read_text()


# Secrets.


def test_secrets_of_a_command_are_recorded_nowhere(tmp_path, run_cli):
    run_cli(
        "utils/meter.sh", "--stage", 1, "--name", "x", "--dir", tmp_path, "--country", "FRA", "--",
        "true", "--password", "hunter2", "--api-token=hunter2", "A_TOKEN=hunter2",
        "https://u:hunter2@h/?token=hunter2&a=1", "Authorization: Bearer hunter2",
        "sh -c '--secret hunter2'",
    )  # fmt: skip
    run_cli("utils/run.py", tmp_path / "x.log", "echo", "--password", "hunter2")
    log = (tmp_path / "x.log").read_text()
    assert "# echo --password" in log and log.count("hunter2") == 1  # what it printed
    for path in tmp_path.rglob("*.json*"):
        assert "hunter2" not in path.read_text(), path
    assert mask_secrets(["--model", "a", "--token-variable", "T", "a=b"]) == [
        "--model", "a", "--token-variable", "T", "a=b",
    ]  # fmt: skip


REDFISH = {"node_power": "redfish", "redfish_url": "https://bmc", "redfish_chassis": ["1"]}
USER = {"redfish_user_variable": "BMC_USER", "redfish_password_variable": "BMC_PASSWORD"}


@pytest.mark.parametrize(
    "wrong",
    [
        {**USER, "redfish_password_variable": "calvin-the-password"},
        {**USER, "redfish_user_variable": "root!"},
        {"redfish_url": "https://bmc/?token=SECRET"},
        {"redfish_url": "https://u:calvin@bmc"},
        {**USER, "redfish_url": "http://bmc"},
        {**USER, "redfish_url": "http://localhost.evil"},
        {"electricity_maps_url": "http://x"},
        {"electricity_maps_token_variable": "abc-token"},
    ],
)
def test_no_setting_holds_a_secret_or_sends_one_in_clear(wrong):
    with pytest.raises(UsageError) as error:
        build_energy_config({**REDFISH, **wrong}, "energy.toml")
    assert "calvin" not in str(error.value) and "SECRET" not in str(error.value)
    assert build_energy_config({**REDFISH, **USER}, "energy.toml")
    assert build_energy_config({**REDFISH, **USER, "redfish_url": "http://localhost:1"}, "x")


def test_a_secret_is_sent_to_no_service_in_clear(run_cli, tmp_path):
    with pytest.raises(FetchError, match="https"):
        fetch_json("http://192.0.2.1/x", secrets={"Authorization": "Basic x"})
    for url, env in (("http://192.0.2.1", {"CEEMS_BASIC_AUTH": "u:p"}), ("http://h/?token=x", {})):
        done = run_cli(
            "sv.bin.ceems", "--url", url, "--cluster", "c", "--job", "1", "--user", "u",
            tmp_path / "out.json", check=False, env=env,
        )  # fmt: skip
        assert done.returncode == 2 and "--url must" in done.stderr
        assert "token=x" not in done.stderr


# The cluster.

FAKE = """#!/bin/sh
echo "$0 $*" >>{folder}/calls
case $0 in
*sbatch) env >{folder}/environ; for s; do :; done; SLURM_JOB_ID=7 sh "$s" >>{folder}/calls 2>&1;;
esac
"""


@pytest.fixture
def site(tmp_path):
    """Slurm's programs, which only note how they were called; sbatch runs the job at once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).write_text(FAKE.format(folder=tmp_path))
        (folder / name).chmod(0o755)
    (tmp_path / "slurm.conf").write_text("poll_s = 0.2\ngrace_s = 1\n")

    def run(*words, **env):
        env = environment(**env)
        env["PATH"] = f"{folder}:{env['PATH']}"
        return subprocess.run(
            [sys.executable, "utils/slurm.py", "--config", tmp_path / "slurm.conf", *words],
            cwd=ROOT, env=env, umask=0o002, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip

    return run


def test_what_a_queued_job_runs_is_its_owners_alone(tmp_path, site):
    log = tmp_path / "x.log"
    look = f"stat -c %a {tmp_path}/.x.slurm {tmp_path}/.x.slurm/[0-9a-f]* >{tmp_path}/modes"
    done = site(log, "sh", "-c", look)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "modes").read_text().split() == ["700", "700"]
    assert not (tmp_path / ".x.slurm").exists()


def test_a_job_that_others_could_have_written_is_not_run(tmp_path, run_cli, made):
    folder = tmp_path / "job"
    folder.mkdir()
    job = {"log": str(tmp_path / "log"), "command": ["touch", str(made)], "label": "x"}
    spec = {
        "cwd": str(tmp_path), "threads": 1, "nodes": 1, "is_array": False, "max_restarts": 0,
        "jobs": {"1": job},
    }  # fmt: skip
    (folder / "jobs.json").write_text(json.dumps(spec))
    for path, mode in ((folder, 0o777), (folder / "jobs.json", 0o666)):
        before = path.stat().st_mode
        path.chmod(mode)
        done = run_cli("sv.jobs.slurm_job", folder, "1", check=False)
        assert_one_line(done, "can be written by others")
        path.chmod(before)


def test_slurm_exports_no_secret(tmp_path, site):
    stage = json.dumps({"config": {**REDFISH, **USER}})
    secret = {
        "EMAPS_API_TOKEN": "s3",
        "CEEMS_BASIC_AUTH": "s3",
        "HF_TOKEN": "s3",
        "MY_API_KEY": "s3",
    }
    site(tmp_path / "x.log", "true", KEPT="1", **secret)
    environ = (tmp_path / "environ").read_text()
    assert "KEPT=1" in environ and "s3" not in environ
    site(tmp_path / "y.log", "true", SV_METER_STAGE=stage, BMC_PASSWORD="s3", **secret)
    assert (tmp_path / "environ").read_text().count("s3") == 1  # of the node's own sensor


def test_only_names_that_are_made_here_are_cancelled(tmp_path, site):
    (tmp_path / ".x.slurm").mkdir()
    for name in ("x,victim", "..a", "0123456", "0123456G"):
        (tmp_path / ".x.slurm" / name).mkdir()
    (tmp_path / ".x.slurm" / "0123abcd").mkdir()
    site(tmp_path / "x.log", "true")
    calls = (tmp_path / "calls").read_text()
    assert "--name=x-0123abcd" in calls and "victim" not in calls
    assert calls.count("scancel") == 1


def test_no_lock_follows_a_link(tmp_path, site):
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / ".x.slurm").mkdir()
    (tmp_path / ".x.slurm" / "lock").symlink_to(precious)
    done = site(tmp_path / "x.log", "true")
    assert done.returncode == 1 and precious.read_text() == "x"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".y.slurm").symlink_to(tmp_path / "elsewhere")
    assert site(tmp_path / "y.log", "true").returncode == 1
    (tmp_path / "a.journal.jsonl").symlink_to(precious)
    with pytest.raises(SvError), open_journal(tmp_path / "a.journal.jsonl"):
        pass
    assert precious.read_text() == "x" and list((tmp_path / "elsewhere").iterdir()) == []


def test_no_file_is_written_through_a_link(tmp_path, run_cli):
    precious = tmp_path / "precious"
    precious.write_text("x")
    log = tmp_path / "x.log"
    log.symlink_to(precious)
    done = run_cli("utils/run.py", log, "true", check=False)
    assert done.returncode == 1 and "x.log" in done.stderr
    (tmp_path / f".y.{os.getpid()}.tmp").symlink_to(precious)
    write_text(tmp_path / "y", "new")
    (tmp_path / ".z.live.tmp").symlink_to(precious)
    write_live(tmp_path / ".z.live.json", {"a": 1})
    (tmp_path / "a").write_text("a b\n")
    (tmp_path / "m.tmp").symlink_to(precious)
    run_cli("utils/merge_tables.sh", tmp_path / "m", tmp_path / "a")
    with pytest.raises(OSError):
        append_line(log, {})
    assert precious.read_text() == "x"
    assert (tmp_path / "m").read_text() == "a b\n" and (tmp_path / "y").read_text() == "new"


def test_a_lock_is_held_once(tmp_path):
    root = tmp_path / ".x.slurm"
    old = slurm._open_lock(root / "lock")  # opened before the holder removes it
    with slurm.lock_folder(root):
        pass
    assert not slurm._is_open(root / "lock", old)
    with slurm.lock_folder(root), pytest.raises(SvError), slurm.lock_folder(root):
        pass
    os.close(old)


def test_the_store_of_a_training_listens_where_it_is_needed():
    from sv.train.launch import BoundRendezvous, find_meeting  # noqa: PLC0415 - torch

    meeting = find_meeting({}, 1, None, 0)
    rendezvous = BoundRendezvous(meeting.host, meeting.port, 0, 1, "training", 60)
    store = rendezvous.next_rendezvous().store
    store.set("a", "b")
    rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}")]  # noqa: SIM115
    own = [row[1] for row in rows if row[1].endswith(f":{meeting.port:04X}") and row[3] == "0A"]
    assert own == [f"0100007F:{meeting.port:04X}"]


def test_nothing_from_the_network_is_unpickled():
    for path in ROOT.glob("sv/**/*.py"):
        assert not re.search(r"(gather|broadcast|scatter|recv)_object", path.read_text()), path


# The shell.


def test_scripts_run_nothing_of_the_folder_that_they_are_called_from(tmp_path, made):
    for name in (
        "utils/parse_options.sh",
        "path.sh",
        "utils/check_environment.py",
        "sv/bin/meter.py",
    ):
        write(tmp_path / name, f"touch {made}\nopen('{made}', 'w')\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for script in (path for folder in ("steps", "utils", "local") for path in
                   sorted((ROOT / folder).glob("*.sh"))):  # fmt: skip
        if script.name in ("parse_options.sh", "compute_environment.sh"):
            continue  # they are sourced
        words = {"install.sh": (), "meter.sh": ("--stage", "1", "true")}.get(
            script.name, ("a", "b")
        )
        done = subprocess.run(
            [script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, (script, done.stderr)
    subprocess.run([ROOT / "utils/meter.sh", "true"], cwd=tmp_path, check=True, capture_output=True)


def test_options_of_scripts_are_text(tmp_path, made):
    word = f"a[$(touch {made})]"
    for script, *options in (
        ("run.sh", "--nj"), ("run.sh", "--ngpu"), ("run.sh", "--nnodes"), ("run.sh", "--stage"),
        ("steps/train_xvector.sh", "--nproc"), ("steps/train_xvector.sh", "--node-rank"),
        ("steps/forecast.sh", "--nproc"), ("steps/make_fbank.sh", "--nj"),
        ("steps/make_fbank.sh", f"--{word}"),
    ):  # fmt: skip
        needed = {"steps/train_xvector.sh": ("--model", "m", "--config", "README.md")}
        argv = [ROOT / script, *needed.get(script, ()), *options, word, tmp_path, tmp_path]
        done = subprocess.run(
            argv, cwd=ROOT, env=environment(SV_ENVIRONMENT="x"), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2), (script, options)


def test_names_that_stages_hand_on_are_no_paths(tmp_path, run_cli):
    good = {"train_set": "a\n", "augment_kinds": "noise\n", "test_trials": "t s\n"}
    for file, text in (("train_set", "../x\n"), ("test_trials", "t s\nt ..\n")):
        for name, lines in {**good, file: text}.items():
            write(tmp_path / "data" / name, lines)
        done = run_cli(
            "./run.sh", "--egs", "tests/egs/tiny", "--data", tmp_path / "data", "--exp",
            tmp_path / "exp", "--stage", 3, "--ngpu", 0, check=False,
        )  # fmt: skip
        assert_one_line(done, f"data/{file}: not names of folders")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


# Outputs.

HOSTILE = (
    "=cmd|calc!A1", "@x", "+1+x", "-1+1", "[1cm] evil", "*", "<img src=x onerror=alert(1)>",
    "a|b", "\x1b[2J\x9b2J", "a\\|b", "[x](http://h)", "`x`", "a\nb", "\\input{x}", "$x^", "%",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_cells_of_hostile_names_are_inert(name):
    columns = [Column("system", "System", numeric=False), Column("n", "N")]
    rows = [Row(x, {"system": Cell(x, x), "n": Cell("1", 1)}) for x in ("first", name)]
    table = Table("t", "A table", tuple(columns), tuple(rows), ())
    [*_, line] = format_csv(table).splitlines() if "\n" not in name else [f'"{name}'[:1]]
    assert line.lstrip('"')[:1] not in ("=", "+", "-", "@")
    markdown = [line for line in format_markdown(table).splitlines() if line.startswith("|")]
    assert len(markdown) == 4 and not re.search(r"[\x1b\x9b]", markdown[-1])
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in markdown] == [3] * 4
    assert not re.search(r"(?<!\\)<img|\]\(|(?<!\\)`", markdown[-1])
    tex = format_latex(table).splitlines()
    after = [b for a, b in zip(tex, tex[1:], strict=False) if a.endswith((r"\\", r"\midrule"))]
    assert not [line for line in after if line.lstrip().startswith(("[", "*"))]


# Bounds.


def test_a_corpus_whose_links_lead_round_is_listed_once(tmp_path):
    """Through stage 0, which counts the files of each part."""
    write_config(tmp_path / "corpora.toml", CORPUS)
    write_audio(tmp_path / "noise" / "x.wav", seconds=0.1)
    for name in ("a", "b"):
        (tmp_path / "noise" / name).symlink_to(".")
    (tmp_path / "noise" / "d").mkdir()
    (tmp_path / "noise" / "d" / "up").symlink_to("..")
    write_coded(
        tmp_path / "cv" / "en" / "clips" / "common_voice_en_1.mp3", seconds=0.2, codec="mp3"
    )
    (tmp_path / "list.txt").write_text("1 common_voice_en_1 common_voice_en_1\n")
    done = run_here(
        "local.check_corpora", "--config", tmp_path / "corpora.toml", "--corpora", tmp_path
    )
    assert re.search(r"noise.* 1( |$)", done.stderr, re.M)


def test_a_header_that_claims_days_is_refused(tmp_path):
    path = write_audio(tmp_path / "x.flac", seconds=0.1)
    data = bytearray(path.read_bytes())
    at = 8 + 13  # STREAMINFO: the lowest 36 bits before the MD5 are the number of samples
    data[at] |= 0x0F
    data[at + 1 : at + 5] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(SvError, match="claims"):
        read_header(path)


def test_ranges_of_jobs_have_a_cap(tmp_path):
    for last in (99_999_999_999, 10**30):
        with pytest.raises(ValueError):
            parse(build_parser("x", ""), [f"JOB=1:{last}", "x.JOB.log", "true"])


def test_wrong_names_are_refused_in_time_that_grows_with_their_length():
    for name in ("resnet50d" + "1" * 20_000 + "x", "resnet50" + "-" * 20_000, "=" * 20_000):
        started = time.monotonic()
        with pytest.raises(UsageError):
            check_model_name(name)
        assert time.monotonic() - started < 2


# Dependencies.


def test_the_lock_has_every_package_at_its_version_with_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    locked = {}
    for entry in re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text())[1:]:
        name, version = re.match(r"([a-z0-9-]+)==(\S+)", entry).groups()
        locked[name] = version
        assert "--hash=sha256:" in entry, name
    for requirement in wanted:
        name, version = requirement.split("==")
        if not name.startswith("torch"):
            assert locked[re.sub(r"[-_.]+", "-", name).lower()] == version
    assert not {"torch", "torchaudio"} & set(locked)  # a build for each kind of machine


# What no one thought of: any input ends in a result or in an `SvError`.

FUZZ = settings(
    max_examples=int(os.environ.get("SV_FUZZ_EXAMPLES", "150")), deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
HEADS_OF_ARKS = (b"\0BFV \4", b"\0BDV \4", b"\0BFM \4", b"\0BCM2 ", b" [ 1 2", b"PKL", b"")
PART = st.one_of(
    st.sampled_from(HEADS_OF_ARKS), st.binary(max_size=30),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: struct.pack("<i", n)),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from(["head", "sample", "mark", "end", "file", "command", "MonoCut", "MixedCut"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.text(max_size=5) | st.sampled_from(
            ["line", "channels", "raw", "t_s", "id", "kind", "said", "mark", "type", "sources",
             "source", "recording", "tracks", "duration", "start", "num_samples"]),
        inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@FUZZ
@given(data=st.lists(PART, max_size=5).map(b"".join), entry=st.text(max_size=12))
def test_fuzz_archives_and_tables(room, data, entry):
    ark, scp = room / "x.ark", room / "x.scp"
    ark.write_bytes(data)
    for place in (f"{ark}:0", f"{ark}:{entry}", entry):
        with contextlib.suppress(SvError):
            read_matrix(place)
        with contextlib.suppress(SvError):
            scp.write_text(f"u {place}\nv {ark}:0\n", errors="replace")
            read_vectors(scp)


@FUZZ
@given(lines=st.lists(JSON.map(json.dumps) | st.text(max_size=20), max_size=6))
def test_fuzz_journals_and_manifests(room, lines):
    path = room / "x.journal.jsonl"
    path.write_text("\n".join(lines), errors="replace")
    list(read_journal(path))
    for line in lines:
        with contextlib.suppress(SvError):
            parse_item(line, path)
        path.write_text(line, errors="replace")
        with contextlib.suppress(SvError):
            read_scored_list(path)


@FUZZ
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(
    ["a", "=", "[", "]", "[[", "]]", "{", "}", '"', "'", "1", ".", "\n", "1e9", "-", ",", "#"]
), max_size=40).map("".join))  # fmt: skip
def test_fuzz_toml_and_json(room, text):
    path = room / "x.toml"
    path.write_bytes(text.encode("utf-8", "replace"))
    for read in (read_toml, read_json):
        with contextlib.suppress(SvError):
            read(path)


@FUZZ
@given(
    kind=st.sampled_from([make_tar, make_zip]), at=st.integers(0, 3000), junk=st.binary(max_size=40)
)
def test_fuzz_unpacking(room, kind, at, junk):
    members = [WAV] if kind is make_tar else [("wav/x", b"x" * 99), ("wav/y", b"y")]
    data = kind(*members)
    (room / "x.tar").write_bytes(data[:at] + junk + data[at + len(junk) :])
    with contextlib.suppress(SvError):
        unpack([room / "x.tar"], room / "out", room / "out" / "wav" / "x")
    assert not list(room.glob("out/.unpacking*"))
