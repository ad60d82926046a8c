"""Corpus preparation: AN4, where it is at hand, and requests that are refused."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SHARED_DATA
from corpora import prepare as prepare_data
from corpora import run_here, write_audio, write_config

from local.corpora import Request
from local.prepare_an4 import prepare
from local.sources import list_sources
from sv.data.config import TrainingSetConfig
from sv.data.cuts import load_samples
from sv.data.manifests import read_manifest
from sv.data.training_set import make_training_set
from sv.errors import SvError
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import find_problems, read_table, write_data_dir, write_table
from sv.kaldi.trials import read_trials, write_models, write_trials

AN4 = SHARED_DATA / "an4"
needs_an4 = pytest.mark.skipif(not AN4.is_dir(), reason=f"no AN4 in {SHARED_DATA}")


@needs_an4
def test_an4_has_its_speakers_utterances_and_pairs(tmp_path):
    prepare(Request(AN4, tmp_path, AN4, {}))
    for name, speakers, utterances in (("an4_train", 74, 948), ("an4_test", 10, 130)):
        assert not find_problems(tmp_path / name, require=["wav.scp", "utt2dur"])
        assert len(read_table(tmp_path / name / "spk2utt")) == speakers
        assert len(read_table(tmp_path / name / "utt2spk")) == utterances
    trials = read_trials(tmp_path / "trials" / "an4")
    assert len(trials.enrol) == 8385
    for entry in (tmp_path / "manifests").iterdir():
        assert entry.name.endswith(".jsonl.gz")


@needs_an4
@pytest.mark.parametrize(("ending", "form"), [("wav", "WAV"), ("sph", "NIST")])
def test_an4_in_its_public_forms(tmp_path, ending, form):
    """The database as it is distributed: RIFF or NIST SPHERE instead of FLAC."""
    corpus = tmp_path / "an4"
    for folder in ("an4_clstk", "an4test_clstk"):
        for speaker in sorted((AN4 / "wav" / folder).iterdir())[:2]:
            for path in sorted(speaker.glob("*.flac"))[:3]:
                target = corpus / "wav" / folder / speaker.name / f"{path.stem}.{ending}"
                target.parent.mkdir(parents=True, exist_ok=True)
                samples, rate = soundfile.read(path, dtype="int16")
                soundfile.write(target, samples, rate, subtype="PCM_16", format=form)
    prepare(Request(corpus, tmp_path / "data", corpus, {}))
    assert len(read_table(tmp_path / "data" / "an4_train" / "utt2spk")) == 6
    for cut in read_manifest(tmp_path / "data" / "an4_test" / "cuts.jsonl.gz"):
        assert len(load_samples(cut)) == cut.num_samples


def test_a_test_utterance_without_features_is_said_before_training(tmp_path):
    """Stage 3 leaves out one file in a thousand; a list that names it cannot be scored."""
    rows = [("a1", "a2", True), ("a1", "b1", False), ("a1", "b2", False), ("b1", "b2", True)]
    utt2spk = {key: key[0] for key in ("a1", "a2", "b1")}
    write_data_dir(tmp_path / "test", utt2spk, feats_scp=dict.fromkeys(utt2spk, "x.ark:1"))
    write_table(tmp_path / "test/.backup/wav.scp", {"b2": "/audio/b2.flac"})
    (tmp_path / "test/log").mkdir()
    (tmp_path / "test/log/fbank.1.log").write_text("12:00 no features for b2: lost sync\n")
    write_trials(tmp_path / "trials/x", rows)
    (tmp_path / "test_trials").write_text("x test\n")
    (tmp_path / "remarks.tsv").write_text("x\told\n")
    done = run_here("local.check_lists", tmp_path, check=False)
    assert done.returncode == 1
    assert "2 of 4 trials cannot be scored: no features of 1 utterances (first: b2: " in done.stderr
    assert "/audio/b2.flac: lost sync)" in done.stderr and "--allow-partial true" in done.stderr
    for _ in range(2):  # the second time nothing is lost
        run_here("local.check_lists", "--allow-partial", "true", tmp_path)
        assert read_trials(tmp_path / "trials/x").utterances == ["a1", "a2", "b1"]
        old, new = (tmp_path / "remarks.tsv").read_text().splitlines()
        assert old == "x\told" and new.startswith("x\tpartial: 2 of 4 trials cannot be scored")
    # A model without one of its utterances is not scored; what is left needs both kinds.
    write_trials(tmp_path / "trials/x", [("m", "a2", True), ("m", "b1", False)])
    write_models(tmp_path / "trials/x", {"m": ("a1", "b2")})
    done = run_here("local.check_lists", "--allow-partial", "true", tmp_path, check=False)
    assert done.returncode == 1 and "0 target and 0 nontarget trials can be scored" in done.stderr
    (tmp_path / "test/feats.scp").unlink()
    done = run_here("local.check_lists", tmp_path, check=False)
    assert done.returncode == 1 and "run stage 3 first" in done.stderr


def test_a_corpus_without_a_program_is_refused(tmp_path, run_cli):
    config = tmp_path / "corpora.toml"
    config.write_text('train = "x"\n[trials]\nx = "x"\n[speech.nothing]\npath = "x"\n[augment]\n')
    argv = ["local.prepare_data", "--config", config, "--corpora", tmp_path, tmp_path / "data"]
    done = run_cli(*argv, check=False)
    assert done.returncode == 2 and "no local/prepare_nothing.py" in done.stderr
    config.write_text('train = "x"\n[trials]\n[speech]\n[augment]\nhum = ["x"]\n')
    done = run_cli(*argv, check=False)
    assert done.returncode == 2 and "the kinds are babble, music, noise, reverb" in done.stderr
    done = run_cli("local.prepare_data", "--config", "egs/an4/conf/corpora.toml", tmp_path,
                   check=False)  # fmt: skip
    assert done.returncode == 2 and "give --corpora DIR" in done.stderr


CONFIG = """train = "train"
[trials]
mine = "test"
[speech.mine]
kind = "kaldi"
path = "s5/data"
[augment]
"""


def write_kaldi(root, **sets):
    """Write Kaldi data folders and a corpora.toml; of each set its tables, by name, as text."""
    write_config(root / "conf" / "corpora.toml", CONFIG)
    for name, tables in sets.items():
        for table, lines in tables.items():
            path = root / "s5" / "data" / name / table.replace("_scp", ".scp")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))


@needs_an4
def test_an4_as_a_finished_kaldi_folder_is_what_its_own_program_makes(tmp_path):
    prepare(Request(AN4, tmp_path / "own", AN4, {}))
    sets = {}
    for name in ("train", "test"):
        own = tmp_path / "own" / f"an4_{name}"
        tables = {table: (own / table).read_text().splitlines() for table in ("utt2spk", "wav.scp")}
        tables["wav.scp"] = [line.replace(str(AN4), "db/an4") for line in tables["wav.scp"]]
        sets[name] = tables
    sets["test"]["trials"] = (tmp_path / "own/trials/an4").read_text().splitlines()
    write_kaldi(tmp_path, **sets)
    (tmp_path / "s5" / "db").symlink_to(SHARED_DATA)
    prepare_data(tmp_path, "--nj", 2)
    data = tmp_path / "data"
    assert (data / "trials/mine").read_bytes() == (tmp_path / "own/trials/an4").read_bytes()
    for name in ("train", "test"):
        for table in ("utt2spk", "spk2utt", "utt2dur"):
            own = tmp_path / "own" / f"an4_{name}" / table
            assert (data / name / table).read_bytes() == own.read_bytes()
        assert not find_problems(data / name, require=["wav.scp"])
    cut = next(read_manifest(data / "test" / "cuts.jsonl.gz"))
    own = next(read_manifest(tmp_path / "own" / "an4_test" / "cuts.jsonl.gz"))
    assert (load_samples(cut) == load_samples(own)).all()


def make_small_kaldi(root):
    """Two speakers with two files each to train on; one file, cut in three, to test on."""
    files = {f"{s}-{i}": root / "s5" / f"{s}-{i}.wav" for s in ("ann", "bob") for i in (1, 2)}
    for seed, path in enumerate((*files.values(), root / "s5" / "long.flac")):
        write_audio(path, seconds=2, seed=seed)
    train = {
        "wav_scp": [f"{key} {path.name}" for key, path in files.items()],
        "utt2spk": [f"{key} {key[:3]}" for key in files],
    }
    test = {
        "wav_scp": ["talk long.flac"],
        "segments": ["cy-1 talk 0 0.5", "cy-2 talk 0.5 1.25", "di-1 talk 1.25 -1"],
        "utt2spk": ["cy-1 cy", "cy-2 cy", "di-1 di"],
        "mine": ["1 cy-1 cy-2", "0 cy-1 di-1"],  # VoxCeleb's form, under the list's name
    }
    return {"train": train, "test": test}


def test_segments_of_a_kaldi_folder_are_cut_once_bit_for_bit(tmp_path):
    sets = make_small_kaldi(tmp_path)
    write_kaldi(tmp_path, **sets)
    prepare_data(tmp_path)
    data = tmp_path / "data"
    assert read_trials(data / "trials" / "mine").is_target.tolist() == [True, False]
    cuts = {cut.id: cut for cut in read_manifest(data / "test" / "cuts.jsonl.gz")}
    whole, _ = soundfile.read(tmp_path / "s5" / "long.flac", dtype="float32")
    parts = [load_samples(cuts[key]) for key in ("cy-1", "cy-2", "di-1")]
    assert [len(part) for part in parts] == [8000, 12000, 12000]
    assert (np.concatenate(parts) == whole).all()

    files = {p.stem: p for p in (data / "audio" / "test").rglob("*.flac")}
    times = {key: path.stat().st_mtime_ns for key, path in files.items()}
    sets["test"]["segments"][2] = "di-1 talk 1.5 2.4"  # Kaldi's overshoot: it ends with the file
    write_kaldi(tmp_path, **sets)
    prepare_data(tmp_path)
    again = {key for key, path in files.items() if path.stat().st_mtime_ns != times[key]}
    assert again == {"di-1"} and soundfile.info(files["di-1"]).frames == 8000
    write_audio(tmp_path / "s5" / "long.flac", seconds=2, seed=9)  # replaced in place
    prepare_data(tmp_path)
    assert all(path.stat().st_mtime_ns != times[key] for key, path in files.items())


@pytest.mark.parametrize(
    ("data_set", "table", "line", "message"),
    [
        ("train", "wav_scp", "ann-1 sph2pipe -f wav x.sph |", "1 of 4 entries are commands"),
        ("train", "wav_scp", "ann-1 lost.wav", "no such file .*s5/lost.wav .relative paths"),
        ("train", "wav_scp", "ann-9 ann-1.wav", "no recording of 1 utterances .first: ann-1"),
        ("train", "utt2spk", "ann-1 eve", "'ann-1' does not begin with 'eve'"),
        ("test", "segments", "cy-1 talk 0", "'cy-1': expected <recording> <start> <end>"),
        ("test", "segments", "cy-1 talk 0.5 0.5", "'cy-1': expected <recording> <start> <end>"),
        ("test", "segments", "cy-1 talk nan 1", "'cy-1': expected <recording> <start> <end>"),
        ("test", "segments", "cy-1 talk 1 2.6", "1.0 to 2.6 s are not in its 2.00 s"),
        ("test", "segments", "cy-1 walk 0 1", "no recording of 1 utterances .first: cy-1"),
        ("train", "wav_scp", "ann-1 .", "s5: not a regular file"),
        ("test", "segments", "cy-9 talk 0 1", "segments: 1 utterances missing .first: cy-1"),
        ("test", "utt2spk", "cy-1 ../cy", "the speaker '../cy' cannot be the name of a file"),
        ("test", "mine", "1 cy-1 cy-3", "mine: 1 of 2 trials name files .*.1: cy-3.; give --allow"),
        (
            "train",
            "wav_scp",
            "ann-1 ann-1.wav\nann-9 ann-1.wav",
            "wav.scp: 1 entries are not in .*utt2spk .first: ann-9",
        ),
        (
            "test",
            "wav_scp",
            "talk long.flac\nwalk long.flac",
            "wav.scp: 1 entries are not in .*segments .first: walk",
        ),
        (
            "test",
            "segments",
            "cy-0 talk 0 1\ncy-1 talk 0 0.5",
            "segments: 1 entries are not in .*utt2spk .first: cy-0",
        ),
    ],
)
def test_a_kaldi_folder_that_is_not_finished_is_one_line(
    tmp_path, data_set, table, line, message
):  # fmt: skip
    sets = make_small_kaldi(tmp_path)
    sets[data_set][table][0] = line
    write_kaldi(tmp_path, **sets)
    done = prepare_data(tmp_path, check=False)
    assert done.returncode == 1 and re.search(message, done.stderr.splitlines()[-1])
    assert not (tmp_path / "data" / "train_set").exists()


def test_a_kaldi_folder_is_counted_in_stage_0_and_never_written_to(tmp_path):
    sets = make_small_kaldi(tmp_path)
    write_kaldi(tmp_path, **sets)
    words = ["local.check_corpora", "--config", tmp_path / "conf" / "corpora.toml"]
    done = run_here(*words, "--corpora", tmp_path, "--audio", "decode")
    rows = [line.split() for line in done.stderr.splitlines() if "utterances of" in line]
    assert [(row[1], row[2], row[5]) for row in rows] == [("test", "3", "2"), ("train", "4", "2")]
    where = tmp_path / "s5" / "data"
    before = {path: path.read_bytes() for path in where.rglob("*") if path.is_file()}
    config = ("--config", tmp_path / "conf" / "corpora.toml", "--corpora", tmp_path)
    done = run_here("local.prepare_data", *config, where, check=False)
    assert done.returncode == 1 and "another --data" in done.stderr
    assert {path: path.read_bytes() for path in where.rglob("*") if path.is_file()} == before
    (where / "test" / "mine").unlink()
    done = run_here(*words, "--corpora", tmp_path, check=False)
    assert done.returncode == 1 and "no trial list 'mine'" in done.stderr


def test_sets_and_lists_of_an_earlier_run_do_not_stand_for_missing_ones(tmp_path):
    sets = make_small_kaldi(tmp_path)
    write_kaldi(tmp_path, **sets)
    prepare_data(tmp_path)
    (tmp_path / "s5/data/test").rename(tmp_path / "s5/data/eval")
    done = prepare_data(tmp_path, check=False)
    assert done.returncode == 1
    assert "no corpus has made its data set test" in done.stderr.splitlines()[-1]
    assert (tmp_path / "data/test/utt2spk").exists()
    (tmp_path / "s5/data/eval").rename(tmp_path / "s5/data/test")
    prepare_data(tmp_path)


def test_relative_paths_are_from_s5_also_where_data_is_a_link(tmp_path):
    write_kaldi(tmp_path, **make_small_kaldi(tmp_path))
    (tmp_path / "s5/data").rename(tmp_path / "scratch")
    (tmp_path / "s5/data").symlink_to(tmp_path / "scratch")
    prepare_data(tmp_path)
    scp = read_table(tmp_path / "data/train/wav.scp")
    assert scp["ann-1"] == str(tmp_path / "s5/ann-1.wav")


def test_sources_may_lie_anywhere(tmp_path):
    """An entry of [augment] with an absolute path, and a list whose folder has another name."""
    root, far = tmp_path / "corpora", tmp_path / "far"
    root.mkdir()
    write_audio(far / "noise/1.wav")
    (recording,) = list_sources(root, "noise", [str(far / "noise")])
    assert recording.id == "../far/noise/1.wav"
    table = far / "rirs/rir_list"
    table.parent.mkdir()
    table.write_text("--rir-id 1 RIRS_NOISES/x.wav\n")
    with pytest.raises(SvError, match="1 of 1 files missing"):
        list_sources(root, "reverb", [str(table)])


def test_a_stage_that_changes_nothing_says_so_to_the_meter(tmp_path, monkeypatch):
    """Stage 1; what is in data/audio was converted by an earlier attempt, which is resumed."""
    write_kaldi(tmp_path, **make_small_kaldi(tmp_path))

    def list_marks():
        marks = tmp_path / "marks"
        marks.write_text("")
        monkeypatch.setenv("SV_METER_MARKS", str(marks))
        prepare_data(tmp_path)
        return [json.loads(line)["mark"] for line in marks.read_text().splitlines()]

    assert list_marks() == []
    assert list_marks() == ["resumed", "unchanged"]
    write_audio(tmp_path / "s5" / "long.flac", seconds=2, seed=9)  # as long, so the same tables
    assert list_marks() == ["resumed"]
    assert list_marks() == ["resumed", "unchanged"]
    (tmp_path / "data" / "test" / "utt2dur").unlink()
    assert list_marks() == ["resumed"]


def test_a_corpus_that_grew_or_shrank_is_prepared_again(tmp_path):
    """Features of before are in the way of nothing; ids that begin alike are a warning."""
    corpora = tmp_path / "corpora"
    for folder, speakers in (("an4_clstk", ("mark", "mark-2")), ("an4test_clstk", ("fa", "fb"))):
        for speaker in speakers:
            for number in range(1, 4):
                write_audio(corpora / "an4/wav" / folder / speaker / f"{number}.wav")
    write_config(corpora / "conf/corpora.toml", GROWING)
    done = prepare_data(corpora)
    assert "the id of a speaker is the beginning of another's (mark)" in done.stderr
    train = corpora / "data/an4_train"
    utt2spk = read_table(train / "utt2spk")
    for name in ("feats.scp", "utt2num_frames"):  # what stage 3 leaves
        write_table(train / name, dict.fromkeys(utt2spk, 100))
    write_audio(corpora / "an4/wav/an4_clstk/mark/4.wav")
    prepare_data(corpora)
    assert len(read_table(train / "utt2spk")) == len(utt2spk) + 1
    for number in (3, 4):
        (corpora / f"an4/wav/an4_clstk/mark/{number}.wav").unlink()
    prepare_data(corpora)
    assert len(read_table(train / "utt2spk")) == len(utt2spk) - 1
    (train / "wav.scp").unlink()
    assert any(
        "wav.scp: no such file" in line for line in find_problems(train, require=["wav.scp"])
    )


GROWING = """train = "an4_train"
[trials]
an4 = "an4_test"
[speech.an4]
path = "an4"
[augment]
"""


def test_as_many_are_held_out_of_speakers_that_stand_apart(tmp_path):
    """mark-1, mark-2-1 ... mark-2-4, mark-3 ...: in C order mark's utterances are parted."""
    utt2spk = {f"mark-{i}": "mark" for i in (1, 3, 4, 5)}
    utt2spk |= {f"mark-2-{i}": "mark-2" for i in range(1, 5)}
    feats = {key: np.random.default_rng(i).normal(size=(30, 4)).astype(np.float32)
             for i, key in enumerate(sorted(utt2spk))}  # fmt: skip
    data = tmp_path / "set"
    write_data_dir(data, utt2spk, utt2num_frames=dict.fromkeys(utt2spk, 30))
    write_archive(data / "f.ark", data / "feats.scp", iter(feats.items()), method="none")
    config = TrainingSetConfig(
        min_frames=1, min_utterances=3, valid_speakers=2, valid_utterances=2, seed=0
    )
    make_training_set(data, [], tmp_path / "egs", config)
    held_out = Counter(read_table(tmp_path / "egs/valid/utt2spk").values())
    assert held_out == {"mark": 2, "mark-2": 2}
    assert Counter(read_table(tmp_path / "egs/utterances").values()) == held_out


def test_a_folder_where_nothing_can_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    config = ROOT / "tests/egs/tiny/conf/mini.toml"
    done = run_here("local.make_mini", "--config", config, tmp_path / "file/corpora", check=False)
    assert done.returncode == 1 and "give --corpora DIR" in done.stderr
    assert done.stderr.count("\n") == 1
