"""Finished jobs and stages: the proof, what makes it void, and the proofs of commit f8b4a44."""

import json
import os
import re
import shutil

import pytest
from conftest import ROOT, call

from sv.jobs.completion import (
    begin_stage,
    end_stage,
    find_step_files,
    get_stage_proof,
    is_finished,
    is_stage_finished,
    prove_job,
    take_job_prints,
)

STEP = """\
#!/bin/sh
# Usage: steps/extract.sh [options] <exp-dir> <data-dir> <xvector-dir>
# Reads: <exp-dir>/final.pt <data-dir>/feats.scp <cohort>/xvector.scp
# Reads: <config>
# Writes: <xvector-dir>/xvector.scp <xvector-dir>/info.json
[ ! -e change ] || sh ./change
echo done >exp/xvectors/xvector.scp
echo "{}" >exp/xvectors/info.json
exit $(cat status)
"""
COMMAND = ["steps/extract.sh", "--cohort", "none", "--nj", "1", "exp", "data", "exp/xvectors"]
SIDECAR = ROOT / "tests/net/sidecars/10_counter.json"  # of a complete stage
PROOFS = ROOT / "tests/net/proofs"


class Stage:
    """A stage in a folder of its own: its step and what that reads."""

    def __init__(self, root):
        self.root = root
        for name in ("exp/final.pt", "data/feats.scp", "exp/xvectors/xvector.scp"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        (root / "steps").mkdir()
        (root / "steps/extract.sh").write_text(STEP)
        (root / "steps/extract.sh").chmod(0o755)
        (root / "status").write_text("0")
        self.sidecar = root / "exp" / "energy" / "06_extract_x.json"
        self.proof = get_stage_proof(self.sidecar)

    def run(self, *, skip="true", root=None):
        """Run it as run.sh does; return whether it was skipped."""
        argv = ["python3", "-m", "sv.bin.meter", "--stage", 6, "--name", "extract_x"]
        argv += ["--dir", "exp/energy", "--skip-finished", skip, "--", *COMMAND]
        done = call(argv, timeout=30, cwd=root or self.root)
        assert done.returncode == int((self.root / "status").read_text()), done.stderr
        return done.stderr == "utils/meter.sh: stage 6 extract_x: finished before\n"

    def prove(self):
        """Do what the meter does about the proof, at once."""
        begin_stage(self.sidecar, COMMAND)
        shutil.copy(SIDECAR, self.sidecar)
        end_stage(self.sidecar, COMMAND)
        return self.is_finished()

    def is_finished(self):
        return is_stage_finished(self.sidecar, COMMAND)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    (tmp_path / "stage").mkdir()
    monkeypatch.chdir(tmp_path / "stage")
    return Stage(tmp_path / "stage")


def test_the_meter_skips_a_finished_stage(stage, tmp_path):
    assert not stage.run() and stage.run()
    shutil.copytree(stage.root, tmp_path / "moved")
    assert stage.run(root=tmp_path / "moved")
    assert not stage.run(skip="false")
    (stage.root / "exp/final.pt").write_text("another")
    (stage.root / "status").write_text("3")  # a failed stage is not finished
    assert not stage.run() and not stage.run()
    (stage.root / "status").write_text("0")
    (stage.root / "change").write_text("touch -d 2020-01-01 exp/final.pt; rm change")
    assert not stage.run() and not stage.run() and stage.run()


def test_a_rerun_that_is_refused_leaves_a_stage_finished(stage):
    assert not stage.run()
    (stage.root / "change").write_text("rm change; kill $PPID")
    (stage.root / "status").write_text("143")
    assert not stage.run(skip="false")
    (stage.root / "status").write_text("0")
    assert stage.run()


CHANGES = {
    "features made anew, the same bytes": lambda s: os.utime(s.root / "data/feats.scp"),
    "no model": lambda s: (s.root / "exp/final.pt").unlink(),
    "another model": lambda s: (s.root / "exp/final.pt").write_text("another"),
    "an older model moved back": lambda s: os.utime(s.root / "exp/final.pt", (1, 1)),
    "no result": lambda s: (s.root / "exp/xvectors/xvector.scp").unlink(),
    "an input that was missing": lambda s: shutil.copytree("exp/xvectors", "none"),
    "no sidecar": lambda s: s.sidecar.unlink(),
    "a broken sidecar": lambda s: s.sidecar.write_text("{}"),
    "a failed attempt": lambda s: s.sidecar.write_text(
        json.dumps({**json.loads(s.sidecar.read_text()), "status": "failed"})
    ),
    "no proof": lambda s: s.proof.unlink(),
    "a broken proof": lambda s: s.proof.write_text("[]"),
    "begun again, and killed": lambda s: begin_stage(s.sidecar, COMMAND),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stage_is_finished_until_something_changes(stage, change):
    assert not stage.is_finished()
    assert stage.prove()
    CHANGES[change](stage)
    assert not stage.is_finished()
    assert stage.prove()


def test_a_step_that_writes_a_file_for_each_backend_names_them_all():
    options = ("--backends", "cosine as_norm", "--suffix", "", "--config", "conf/score.toml")
    arguments = ("exp/M/xvectors_test", "data/trials/list", "exp/M/scores")
    read, written = find_step_files([str(ROOT / "steps/score_trials.sh"), *options, *arguments])
    assert {str(path) for path in written.values()} == {
        f"exp/M/scores/list_{backend}.{ending}"
        for backend in ("cosine", "as_norm") for ending in ("txt", "json", "boot.json")
    }  # fmt: skip
    # Nothing of options that are not given: --cohort, --utt2spk.
    assert {str(path) for path in read.values()} == {
        "conf/score.toml", "exp/M/xvectors_test/xvector.scp", "data/trials/list",
        "data/trials/list.models",
    }  # fmt: skip


def test_what_changes_while_a_stage_runs_is_seen(stage):
    begin_stage(stage.sidecar, COMMAND)
    os.utime(stage.root / "exp/final.pt", (1, 1))
    shutil.copy(SIDECAR, stage.sidecar)
    end_stage(stage.sidecar, COMMAND)
    assert not stage.is_finished()


# tests/net/proofs holds what f8b4a44 wrote about the files of files.txt, each of which contains its
# name and is a second and a nanosecond younger than the one before it.
OLD_STAGES = {
    "05_train": (
        "steps/train_xvector.sh --cmd utils/run.py --model M --config conf/train.toml --ngpu 4 "
        "data/egs exp/M",
        ["conf/train.toml", "data/egs/train.npz", "exp/M/final.pt", "exp/M/model.json"],
    ),
    "06_extract_test": (
        "steps/extract_xvectors.sh --nj 8 exp/M data/test exp/M/xvectors_test",
        ["exp/M/final.pt", "data/test/feats.scp", "exp/M/xvectors_test/info.json"],
    ),
    "06_extract_cohort": (
        "steps/extract_cohort.sh --config conf/score.toml exp/M data/train data/egs "
        "exp/M/cohort/xvectors",
        ["conf/score.toml", "data/egs/utterances", "exp/M/cohort/xvectors/utt2spk"],
    ),
}
OLD_JOB = (
    "python3 -m sv.bin.make_fbank --config conf/features.toml --job 1 --nj 2 "
    "data/test/cuts.jsonl.gz data/test/fbank/fbank.1.ark data/test/fbank/fbank.1.scp "
    "data/test/fbank/utt2num_frames.1"
)


@pytest.fixture
def old_tree(tmp_path, monkeypatch):
    """The files that f8b4a44 left, with the steps of today."""
    for number, name in enumerate((PROOFS / "files.txt").read_text().split()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        time_ns = 1_760_000_000_000_000_000 + number * 1_000_000_001
        os.utime(path, ns=(time_ns, time_ns))
    (tmp_path / "steps").symlink_to(ROOT / "steps")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", OLD_STAGES)
def test_a_stage_finished_by_f8b4a44_is_not_run_again(old_tree, name):
    words, files = OLD_STAGES[name]
    sidecar = old_tree / "exp/M/energy" / f"{name}.json"
    sidecar.parent.mkdir()
    shutil.copy(SIDECAR, sidecar)
    proof = get_stage_proof(sidecar)
    shutil.copy(PROOFS / f"{name}.done", proof)
    assert is_stage_finished(sidecar, words.split())
    for file in files:
        status = (old_tree / file).stat()
        os.utime(old_tree / file)
        assert not is_stage_finished(sidecar, words.split()), file
        os.utime(old_tree / file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert is_stage_finished(sidecar, words.split())
    proof.write_text(json.dumps({**json.loads(proof.read_text()), "written": None}))
    assert not is_stage_finished(sidecar, words.split())  # it was killed


def test_archives_behind_a_table_are_part_of_a_job_s_proof(tmp_path):
    scp, ark, out = tmp_path / "feats.scp", tmp_path / "a.ark", tmp_path / "out"
    ark.write_bytes(b"0123456789")
    scp.write_text(f"u1 {ark}:3\nu2 {ark}:5\nu3 no entry\n")
    words, proof = ["extract", str(scp), str(out)], tmp_path / "done"
    before = take_job_prints(words)
    out.write_text("made")
    prove_job(proof, words, before, 0)
    assert is_finished(proof, words, take_job_prints(words))
    status = ark.stat()
    os.truncate(ark, 4)
    assert not is_finished(proof, words, take_job_prints(words))
    ark.unlink()
    assert not is_finished(proof, words, take_job_prints(words))
    ark.write_bytes(b"0123456789")
    os.utime(ark, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert is_finished(proof, words, take_job_prints(words))
    # A proof of before archives were in it is honoured.
    values = json.loads(proof.read_text())
    values["read"] = {word: found for word, found in values["read"].items() if " > " not in word}
    proof.write_text(json.dumps(values))
    os.truncate(ark, 4)
    assert is_finished(proof, words, take_job_prints(words))


def test_a_job_finished_by_f8b4a44_is_not_run_again(old_tree):
    proof, words = PROOFS / "fbank.1.log.done", OLD_JOB.split()
    assert is_finished(proof, words, take_job_prints(words))
    assert not is_finished(proof, [*words, "--more"], take_job_prints(words))
    os.utime(old_tree / "data/test/cuts.jsonl.gz")
    assert not is_finished(proof, words, take_job_prints(words))


def test_every_step_of_a_model_says_what_it_reads_and_writes():
    text = (ROOT / "run.sh").read_text()
    steps = re.findall(r'"\$\{own\[@\]\}".*?-- \\\n\s+(steps/\w+\.sh)', text)
    assert len(steps) == 5
    for step in steps:
        head = (ROOT / step).read_text().split("set -euo")[0]
        assert re.search("^# Reads: ", head, re.M) and re.search("^# Writes: ", head, re.M), step
