"""VoxCeleb1 and 2 in their layouts, with their lists, whole and with parts missing."""

import gzip
import json
import os
import shutil

import pytest
from conftest import ROOT, SHARED_DATA, call
from corpora import prepare, run_here, write_audio, write_coded, write_config

from local import prepare_voxceleb1
from local.corpora import Request
from local.voxceleb import find_hard_speakers, read_meta, read_trial_list, utterance_id
from sv.errors import SvError
from sv.kaldi.data_dir import find_problems, read_table
from sv.kaldi.trials import read_trials

LISTS = SHARED_DATA / "voxceleb_lists"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason=f"no {LISTS}")
# Video ids hold and begin with '-' and '_'.
VIDEOS = ("-_a-b_c-d_1", "_-zXy_w-v12", "AAAAAAAAAAA")
CONFIG = """
train = "voxceleb2_dev"
[trials]
vox1_o = "voxceleb1"
[speech.voxceleb2]
path = "voxceleb2"
[speech.voxceleb1]
path = "voxceleb1"
[augment]
"""
THROUGH_ALL_STAGES = """
train = "mini_train"
[trials]
vox1_o = "voxceleb1"
[speech.mini]
path = "mini"
[speech.voxceleb1]
path = "voxceleb1"
[augment]
noise = ["musan/noise"]
"""
META1 = (
    "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
    "id10270\tA\tm\tUK\ttest\nid10271\tB\tf\tNew Zealand\ttest\n"
)
META2 = "\ufeffVoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n1 ,m ,dev\nid00017 ,n2 ,f ,test\n"


@pytest.fixture
def corpora(tmp_path):
    """A little VoxCeleb1 and VoxCeleb2; the trial list is not the published one."""
    one, two = tmp_path / "voxceleb1", tmp_path / "voxceleb2"
    for speaker in ("id10270", "id10271"):
        for video in VIDEOS[:2]:
            write_audio(one / "wav" / speaker / video / "00001.wav")
    write_audio(one / "wav/id10270" / VIDEOS[2] / "00009.wav")  # in no list
    (one / "vox1_meta.csv").write_text(META1)
    a, b = (f"id10270/{video}/00001.wav" for video in VIDEOS[:2])
    c = f"id10271/{VIDEOS[0]}/00001.wav"
    (one / "veri_test2.txt").write_text(f"1 {a} {b}\n0 {a} {c}\n0 {b} {c}\n")
    for number in range(1, 4):
        write_coded(two / "dev/aac/id00012" / VIDEOS[0] / f"{number:05}.m4a", seed=number)
    write_coded(two / "dev/aac/id00017" / VIDEOS[1] / "00001.m4a")  # a test speaker
    write_coded(two / "aac/id00018" / VIDEOS[1] / "00001.m4a")  # the test part
    (two / "vox2_meta.csv").write_text(META2)
    write_config(tmp_path / "conf/corpora.toml", CONFIG)
    return tmp_path


def test_both_corpora_are_prepared(corpora):
    done = prepare(corpora)
    data = corpora / "data"
    train = read_table(data / "voxceleb2_dev/utt2spk")
    assert list(train) == [f"id00012-{VIDEOS[0]}-{n:05}" for n in range(1, 4)]
    assert "dropped 1 of 4 utterances of test speakers (first: id00017" in done.stderr
    assert all(
        path.endswith(".flac") for path in read_table(data / "voxceleb2_dev/wav.scp").values()
    )
    test = read_table(data / "voxceleb1/utt2spk")
    assert len(test) == 3 and f"id10270-{VIDEOS[2]}-00009" not in test
    assert read_table(data / "voxceleb1/utt2nationality")[f"id10271-{VIDEOS[0]}-00001"] == (
        "New_Zealand"
    )
    assert read_table(data / "voxceleb2_dev/utt2gender")[f"id00012-{VIDEOS[0]}-00001"] == "m"
    for name in ("voxceleb1", "voxceleb2_dev"):
        assert not find_problems(data / name, require=["wav.scp", "utt2dur"])
    trials = read_trials(data / "trials/vox1_o")
    assert len(trials.enrol) == 3 and trials.is_target.sum() == 1
    remarks = (data / "remarks.tsv").read_text()
    assert "*\ttrained on 3 utterances of 1 speakers; VoxCeleb2 dev has 1092009 of 5994" in remarks
    assert "vox1_o\t" in remarks and "is not the published list (MD5 " in remarks
    assert "has 3 trials, the published list 37611" in remarks


def test_the_other_layouts(corpora):
    """VoxCeleb1 in dev/wav and test/wav; VoxCeleb2 converted; its table with tabs."""
    prepare(corpora)
    names = ("voxceleb1/utt2spk", "voxceleb2_dev/utt2spk", "voxceleb2_dev/utt2gender")
    before = [(corpora / "data" / name).read_text() for name in names]
    one = corpora / "voxceleb1"
    for speaker, part in (("id10270", "dev"), ("id10271", "test")):
        shutil.move(one / "wav" / speaker, one / part / "wav" / speaker)
    (one / "wav").rmdir()
    shutil.rmtree(corpora / "voxceleb2/dev")
    for number in range(1, 4):
        write_audio(corpora / "voxceleb2/dev/wav/id00012" / VIDEOS[0] / f"{number:05}.wav")
    (corpora / "voxceleb2/vox2_meta.csv").write_text(META2.replace(",", "\t").lstrip("\ufeff"))
    shutil.rmtree(corpora / "data")
    prepare(corpora)
    assert [(corpora / "data" / name).read_text() for name in names] == before


def test_a_missing_utterance_stops_unless_partial_is_allowed(corpora):
    (corpora / "voxceleb1/wav/id10271" / VIDEOS[0] / "00001.wav").unlink()
    with open(corpora / "voxceleb1/veri_test2.txt", "a") as file:
        file.write(f"0 id10270/{VIDEOS[0]}/00001.wav id10271/{VIDEOS[1]}/00001.wav\n")
    done = prepare(corpora, check=False)
    assert done.returncode == 1
    assert "1 of 4 utterances of the lists are not below" in done.stderr
    assert "give --allow-partial true" in done.stderr
    prepare(corpora, "--allow-partial", "true")
    assert len(read_trials(corpora / "data/trials/vox1_o").enrol) == 2
    remarks = (corpora / "data/remarks.tsv").read_text()
    assert "vox1_o\tpartial: 2 of 4 trials without audio" in remarks


def test_what_is_missing_is_said_before_anything_is_decoded_or_left_out(corpora):
    write_audio(corpora / "musan/noise/n.wav", seconds=2)
    text = CONFIG.replace("[speech.voxceleb2]", 'vox1_e = "voxceleb1"\ncn = "cnceleb"\n'
                          '[speech.cnceleb]\npath = "cn"\n[speech.voxceleb2]')  # fmt: skip
    config = write_config(
        corpora / "conf/corpora.toml", text + 'noise = ["musan/noise", "x"]\nmusic = ["y"]\n'
    )
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and not (corpora / "data").exists()
    last = done.stderr.splitlines()[-1]
    for part in ("speech cnceleb: no such folder", "vox1_e: no list_test_all2.txt in",
                 "augment noise x: ", "augment music y: ", "--allow-partial true"):  # fmt: skip
        assert part in last
    partial = ("--allow-partial", "true")
    prepare(corpora, *partial)
    data = corpora / "data"
    assert (data / "test_trials").read_text() == "vox1_o voxceleb1\n"
    remarks = (data / "remarks.tsv").read_text()
    assert "*\twithout vox1_e: no list_test_all2.txt in" in remarks
    assert "*\twithout speech cnceleb: no such folder" in remarks
    settings = ROOT / "tests/egs/tiny/conf/augment.toml"
    argv = ["local.augment_data", "--config", config, "--augment-config", settings,
            "--corpora", corpora]  # fmt: skip
    done = run_here(*argv, data, check=False)
    assert done.returncode == 1 and "augment music y: " in done.stderr
    run_here(*argv, *partial, data)
    assert (data / "augment_kinds").read_text() == "noise\n"
    assert len(read_table(data / "voxceleb2_dev_noise/utt2spk")) == 3
    remarks = [line for _, line in _read_remarks(data)]
    assert [line for line in remarks if "augment" in line] == [
        f"without augment {part}: no such folder {corpora / part[-1]}"
        for part in ("noise x", "music y")
    ]
    # The training set and the last list cannot be left out.
    (corpora / "voxceleb1/veri_test2.txt").unlink()
    done = prepare(corpora, *partial, check=False)
    assert done.returncode == 1 and "no trial list is left: " in done.stderr
    shutil.rmtree(corpora / "voxceleb2")
    shutil.rmtree(data)
    done = prepare(corpora, *partial, check=False)
    assert done.returncode == 1 and "speech voxceleb2: no such folder" in done.stderr


def _read_remarks(data):
    lines = [line for path in sorted(data.glob("*remarks.tsv")) for line in path.open()]
    return [line.rstrip("\n").split("\t") for line in lines]


def test_a_list_is_known_by_its_content_and_may_be_packed(corpora, monkeypatch):
    wanted = prepare_voxceleb1.TrialList("veri_test2.txt", 3)
    monkeypatch.setitem(prepare_voxceleb1.LISTS, "vox1_o", wanted)
    path = corpora / "voxceleb1/veri_test2.txt"
    for name, pack in (("vox1-O(cleaned).txt", bytes), ("voxceleb1_test_v2.txt.gz", gzip.compress)):
        (corpora / "lists" / name).parent.mkdir(exist_ok=True)
        (corpora / "lists" / name).write_bytes(pack(path.read_bytes()))
        (corpora / "lists/other.txt").write_text("three\nother\nlines\n")
        request = Request(corpora / "voxceleb1", corpora / "data", corpora / "lists",
                          {"vox1_o": "voxceleb1"})  # fmt: skip
        path.rename(corpora / "aside")
        assert prepare_voxceleb1.find_missing(request) == {}
        prepare(corpora, "--lists", corpora / "lists")
        (corpora / "aside").rename(path)
        assert len(read_trials(corpora / "data/trials/vox1_o").enrol) == 3
        shutil.rmtree(corpora / "lists")


def test_a_list_that_cannot_be_scored_is_refused_in_stage_1(corpora):
    path = corpora / "voxceleb1/veri_test2.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1], lines[1]]))
    prepare(corpora)
    assert ["vox1_o", "2 of 5 trials repeat an earlier one; each counts as often as it stands"] in (
        _read_remarks(corpora / "data")
    )
    path.write_text("".join(lines[1:]))
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and "0 target and 2 nontarget trials: both" in done.stderr


def test_lists_from_another_folder(corpora):
    (corpora / "lists").mkdir()
    shutil.move(corpora / "voxceleb1/veri_test2.txt", corpora / "lists")
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and "no veri_test2.txt in" in done.stderr
    prepare(corpora, "--lists", corpora / "lists")
    assert len(read_trials(corpora / "data/trials/vox1_o").enrol) == 3


def test_no_development_part(corpora):
    """The test part alone is never taken for it."""
    shutil.rmtree(corpora / "voxceleb2/dev")
    done = prepare(corpora, check=False)
    assert done.returncode == 1 and "voxceleb2/dev/aac" in done.stderr


FORM = "expected '1|0 <speaker>"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 id10270/AAAAAAAAAAA/00001.wav", FORM),
        (
            "2 id10270/AAAAAAAAAAA/00001.wav id10270/AAAAAAAAAAA/00002.wav",
            FORM,
        ),
        ("1 id10270/AAAAAAAAAAA/00001.wav id10271/AAAAAAAAAAA/00001.wav", "contradicts the ids"),
        ("1 id1027/AAAAAAAAAAA/00001.wav id10271/AAAAAAAAAAA/00001.wav", FORM),
    ],
)
def test_a_malformed_list_names_its_line(tmp_path, line, message):
    path = tmp_path / "list.txt"
    good = "0 id10270/AAAAAAAAAAA/00001.wav id10271/AAAAAAAAAAA/00001.wav"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(SvError, match=f"line 2: .*{message.replace('|', '[|]')}"):
        read_trial_list(path)


def test_a_list_with_a_byte_order_mark_and_crlf(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(
        b"\xef\xbb\xbf1 id10270/-_a-b_c-d_1/00001.wav id10270/AAAAAAAAAAA/00001.wav\r\n"
    )
    assert read_trial_list(path) == [
        ("id10270--_a-b_c-d_1-00001", "id10270-AAAAAAAAAAA-00001", True)
    ]


@needs_lists
def test_the_official_list_and_speakers():
    trials = read_trial_list(LISTS / "veri_test2.txt")
    assert len(trials) == 37611 and sum(target for _, _, target in trials) == 18802
    assert all(len(name) == 7 + 1 + 11 + 1 + 5 for trial in trials for name in trial[:2])
    meta = read_meta(LISTS / "vox1_meta.csv")
    assert len(meta) == 1251
    hard, groups = find_hard_speakers(meta)
    assert (len(hard), groups) == (1190, 18)


def test_ids_have_fixed_widths():
    assert utterance_id("id10270/-_a-b_c-d_1/00001.wav") == "id10270--_a-b_c-d_1-00001"
    for wrong in ("id10270/short/00001.wav", "id1027/AAAAAAAAAAA/00001.wav", "a.wav"):
        assert utterance_id(wrong) is None


def test_check_corpora_counts_against_what_was_published(corpora):
    argv = ["local.check_corpora", "--config", corpora / "conf/corpora.toml", "--corpora", corpora]
    done = run_here(*argv, "--audio", "decode", check=False)
    assert done.returncode == 1
    assert "voxceleb1: 2 speakers, 1251 were published" in done.stderr
    assert "voxceleb2_dev: 3 utterances, 1092009 were published" in done.stderr
    assert "vox1_o: 3 trials, 37611 were published" in done.stderr
    assert run_here(*argv, "--allow-partial", "true").returncode == 0
    (corpora / "voxceleb1/wav/id10270" / VIDEOS[0] / "00001.wav").write_bytes(b"x")
    done = run_here(*argv, "--audio", "header", check=False)
    assert "00001.wav: not readable as audio" in done.stderr


@needs_lists
def test_vox1_o_from_the_list_to_its_metrics(tiny, tmp_path):
    """Names, numbers and MD5 are the published ones; the audio is anything, the model is tiny.

    No trial is lost from stage 1 to stage 7.
    """
    egs = tmp_path / "egs"
    shutil.copytree(ROOT / "tests/egs/tiny/conf", egs / "conf")
    write_config(egs / "conf/corpora.toml", THROUGH_ALL_STAGES)
    corpora = tmp_path / "corpora"
    corpora.mkdir()
    for name in ("mini", "musan"):
        (corpora / name).symlink_to(tiny.corpora / name)
    sources = [write_audio(tmp_path / f"{n}.flac", seconds=0.3, seed=n) for n in range(40)]
    names = {key for row in read_trial_list(LISTS / "veri_test2.txt") for key in row[:2]}
    assert len(names) == 4708
    for number, key in enumerate(sorted(names)):
        path = corpora / "voxceleb1/wav" / key[:7] / key[8:19] / f"{key[20:]}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[number % len(sources)], path)
    model = tmp_path / "exp" / tiny.model
    model.mkdir(parents=True)
    for name in ("final.pt", "model.json", "config.toml"):
        shutil.copy(tiny.exp / tiny.model / name, model)

    def run(*options):
        argv = ["./run.sh", "--egs", egs, "--corpora", corpora, "--lists", LISTS, "--nj", 2,
                "--data", tmp_path / "data", "--exp", tmp_path / "exp", *options]  # fmt: skip
        done = call(argv, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]

    # The mini corpus and this tree are not the published ones: stage 0 would refuse VoxCeleb1.
    run("--stage", 1, "--stop-stage", 4)
    data = tmp_path / "data"
    for table in ("utt2spk", "utt2gender"):
        assert len(read_table(data / "voxceleb1" / table)) == 4708
    assert "vox1_o" not in (data / "remarks.tsv").read_text()  # the list is the published one
    run("--stage", 6, "--stop-stage", 7)
    metrics = json.loads((model / "scores/vox1_o_cosine.json").read_text())
    assert (metrics["trials"], metrics["targets"]) == (37611, 18802)
    lines = (model / "scores/vox1_o_cosine.txt").read_text().splitlines()
    listed = (data / "trials/vox1_o").read_text().splitlines()
    assert [x.split()[:2] for x in lines] == [x.split()[:2] for x in listed]
    assert len(listed) == 37611
