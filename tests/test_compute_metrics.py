"""compute_metrics on the files of other toolkits: forms, order, and everything that is refused."""

import gzip
import json
import random
import sys

import numpy as np
import pytest
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st

from sv.bin.compute_metrics import main
from sv.errors import SvError
from sv.kaldi.trials import (
    Trials,
    find_score_columns,
    find_trial_columns,
    read_trials,
    write_scores,
)
from sv.score.metrics import compute_metrics
from sv.score.record import format_metrics
from sv.score.trials import match_scores

NAMES = [f"id{i // 4:02d}/v{i}/{i:05d}.wav" for i in range(24)]
ROWS = [(a, b, a[:4] == b[:4]) for a in NAMES for b in NAMES if a < b]
SCORES = {row[:2]: round(random.Random(str(row)).gauss(2 * row[2], 1), 5) for row in ROWS}


def lists(form, true="target", false="nontarget", gap=" ", end="\n"):
    lines = (form.format(a, b, true if y else false).split() for a, b, y in ROWS)
    return "".join(gap.join(words) + end for words in lines)


def scores(form, rows=ROWS, gap=" ", end="\n"):
    lines = (form.format(a, b, SCORES[a, b], "target" if y else "nontarget", int(y)).split()
             for a, b, y in rows)  # fmt: skip
    return "".join(gap.join(words) + end for words in lines)


KALDI = lists("{0} {1} {2}"), scores("{0} {1} {2}")


@pytest.fixture
def measure(run_cli, tmp_path):
    """Give a function from two texts and options to what compute_metrics does."""

    def run(trials, scores, *options, check=True):
        (tmp_path / "list").write_text(trials, newline="")
        (tmp_path / "scores").write_text(scores, newline="")
        return run_cli(
            "sv.bin.compute_metrics", *options, tmp_path / "list", tmp_path / "scores", check=check
        )

    return run


def expected():
    values, labels = np.array([SCORES[r[:2]] for r in ROWS]), np.array([r[2] for r in ROWS])
    return format_metrics(compute_metrics(values, labels))


def test_json_is_what_the_scores_give_and_the_table_says_the_same(measure):
    done = measure(*KALDI, "--format", "json")
    metrics = json.loads(done.stdout)
    assert metrics == expected()
    assert [line.split(": ", 1)[1] for line in done.stderr.splitlines()] == [
        "columns enrol,test,label", "columns enrol,test,score",
    ]  # fmt: skip
    table = measure(*KALDI).stdout.splitlines()
    assert table[0] == "trials        276 (36 target, 240 nontarget)"
    assert table[1].startswith(f"EER           {metrics['eer_percent']:.3f} %  at ")
    assert table[2].startswith(f"minDCF(0.01)  {metrics['min_dcf']['0.01']:.4f}  at ")
    assert len(table) == 5


def test_calibrated_scores_have_actual_costs(measure):
    metrics = json.loads(measure(*KALDI, "--calibrated", "true", "--format", "json").stdout)
    llrs, labels = np.array([SCORES[r[:2]] for r in ROWS]), np.array([r[2] for r in ROWS])
    assert metrics == format_metrics(compute_metrics(llrs, labels, calibrated=True))
    assert "Cllr  " in measure(*KALDI, "--calibrated", "true").stdout


FORMS = {
    "Kaldi": KALDI,
    "WeSpeaker": (KALDI[0], scores("{0} {1} {2:.5f} {3}")),
    "WeSpeaker normalised": (KALDI[0], scores("{0} {1} {2} {3} 12.5 13.25 0.1 0.2")),
    "SpeechBrain": (KALDI[0], scores("{0} {1} {4} {2:f}")),
    "VoxCeleb": (lists("{2} {0} {1}", "1", "0"), KALDI[1]),
    "CN-Celeb": (lists("{0} {1} {2}", "1", "0"), KALDI[1]),
    "score first": (lists("{0} {1} {2}", "tgt", "imp"), scores("{2} {0} {1}")),
    "words": (lists("{2} {0} {1}", "True", "False"), KALDI[1]),
    "tabs": (lists("{0} {1} {2}", gap="\t"), scores("{0} {1} {2}", gap="\t")),
    "CRLF": (lists("{0} {1} {2}", end="\r\n"), scores("{0} {1} {2}", end="\r\n")),
    "blanks": (lists("{0} {1} {2}", gap="   ", end="  \r\n"), scores("{0} {1} {2}", gap=" \t ")),
    "shuffled": (KALDI[0], scores("{0} {1} {2}", random.Random(0).sample(ROWS, len(ROWS)))),
    "empty lines": (KALDI[0].replace("\n", "\n\n"), "  " + KALDI[1] + "\n\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_files_of_other_toolkits_are_understood(tmp_path, capsys, form):
    for name, text in zip(("list", "scores"), FORMS[form], strict=True):
        (tmp_path / name).write_text(text, newline="")
    main(["--format", "json", str(tmp_path / "list"), str(tmp_path / "scores")])
    assert json.loads(capsys.readouterr().out) == expected()


def test_uneven_blanks_may_begin_anywhere(tmp_path):
    # Beyond what columns are told from: the fast way is tried first and given up.
    names = [f"u{i}-{'x' * 90}" for i in range(1000)]
    lines = [f"{a} {b} nontarget\n" for a, b in zip(names, names[1:], strict=False)]
    (tmp_path / "list").write_text("".join(lines) + f"{names[0]}\t\t{names[0]}  target \n")
    columns = find_trial_columns(tmp_path / "list")
    trials = read_trials(tmp_path / "list", columns)
    assert len(trials.enrol) == 1000 and trials.is_target.tolist() == [False] * 999 + [True]
    assert trials.utterances[trials.test[-1]] == names[0]


AMBIGUOUS = "1 0 1\n0 1 0\n1 1 1\n0 0 0\n"  # ids 1 and 0, labels 1 and 0


def test_columns_that_cannot_be_told_are_asked_for(measure):
    done = measure(AMBIGUOUS, KALDI[1], check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.endswith(
        "list: cannot tell which of 3 columns is the label (line 1: '1 0 1'): name it, for "
        "example --columns label,enrol,test\n"
    )
    numbers = "0.5 1 0\n0.25 0 1\n0.75 1 1\n0.125 0 0\n"
    options = ("--columns", "label,enrol,test", "--format", "json")
    done = measure(AMBIGUOUS, "1 0 0.5\n0 1 0.25\n1 1 0.75\n0 0 0.125\n", *options)
    assert json.loads(done.stdout)["targets"] == 2
    asked = measure(AMBIGUOUS, numbers, *options, "--score-columns", "score,enrol,test")
    assert asked.stdout == done.stdout
    # Quality measures of unknown meaning before the score.
    extra = scores("{0} {1} 7.5 {2}")
    done = measure(KALDI[0], extra, check=False)
    assert "which of 4 columns is the score" in done.stderr
    assert "--score-columns enrol,test,score" in done.stderr
    done = measure(KALDI[0], extra, "--score-columns", "enrol,test,-,score", "--format", "json")
    assert json.loads(done.stdout) == expected()


@pytest.mark.parametrize("text", ["enrol,test", "enrol,test,score", "enrol,enrol,test,label", "x"])
def test_wrong_words_for_columns_are_a_usage_error(measure, text):
    done = measure(*KALDI, "--columns", text, check=False)
    assert done.returncode == 2
    assert f"--columns {text}: must name enrol, test, label once each" in done.stderr


FIRST, SECOND, *REST = KALDI[1].splitlines(keepends=True)
FAULTS = {
    "missing": ("".join(REST), f"2 of 276 trials have no score ({NAMES[0]} {NAMES[1]}, "),
    "twice": (KALDI[1] + SECOND, f"1 trials are scored twice ({NAMES[0]} {NAMES[2]})"),
    "unknown": (KALDI[1] + f"x {NAMES[0]} 1.0\n{NAMES[1]} {NAMES[0]} 2\n",
                f"2 scores are of trials that the list does not have (x {NAMES[0]}, {NAMES[1]} "),
    "comma": (scores("{0} {1} {2}").replace(" ", ","), "columns are separated by commas ('id00"),
    "nan": (scores("{0} {1} {2}").replace(str(SCORES[ROWS[0][:2]]), "nan", 1).replace(
            str(SCORES[ROWS[2][:2]]), "-inf", 1), "2 scores are NaN or infinite (id00/v0"),
    "several": ("".join(REST) + REST[5] + "x y 1\n", "have no score"),
    "no number": (KALDI[1] + "x y high\n", "invalid value 'high'"),
    "short line": (KALDI[1] + "x y\n", "columns, others have 3"),
    "other list": (scores("x{0} x{1} {2}"), "276 of 276 trials have no score"),
    "empty": ("", "scores: empty"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_counted_and_named(measure, fault):
    text, message = FAULTS[fault]
    done = measure(KALDI[0], text, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and done.stdout == ""
    assert last.startswith("sv.bin.compute_metrics: ") and message in last
    if fault == "several":
        assert "1 scores are of trials" in last and "1 trials are scored twice" in last
    if fault == "other list":
        assert last.count(", ") == 2 * 9  # ten examples of each kind


def test_packed_lists_and_scores_are_read_whatever_their_names(tmp_path, capsys):
    for name, text in zip(("list", "scores"), FORMS["tabs"], strict=True):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    main(["--format", "json", str(tmp_path / "list"), str(tmp_path / "scores")])
    assert json.loads(capsys.readouterr().out) == expected()
    (tmp_path / "scores").write_bytes(gzip.compress(KALDI[1].encode())[:200])
    with pytest.raises(SvError, match="scores: .*end-of-stream"):
        main([str(tmp_path / "list"), str(tmp_path / "scores")])


@pytest.mark.parametrize("spell", [
    lambda name: name.removesuffix(".wav"),  # SpeechBrain
    lambda name: name.removesuffix(".wav").replace("/", "-"),  # ours
    lambda name: name.replace(".wav", ".flac"),
])  # fmt: skip
def test_ids_may_differ_by_ending_and_folders(tmp_path, capsys, caplog, spell):
    caplog.set_level("INFO")
    (tmp_path / "list").write_text(FORMS["VoxCeleb"][0])
    lines = "".join(f"{spell(a)} {spell(b)} {SCORES[a, b]}\n" for a, b, _ in ROWS)
    (tmp_path / "scores").write_text(lines)
    main(["--format", "json", str(tmp_path / "list"), str(tmp_path / "scores")])
    assert json.loads(capsys.readouterr().out) == expected()
    assert f"24 ids are spelt differently: '{spell(NAMES[0])}' is '{NAMES[0]}'" in caplog.text
    # Two ids of the list that only their endings tell apart are not guessed.
    (tmp_path / "list").write_text("a.wav b target\na.mp3 b nontarget\n")
    (tmp_path / "scores").write_text("a b 1\na b 2\n")
    with pytest.raises(SvError, match=r"2 of 2 trials have no score \(a.wav b, .* \(a b, a b\)"):
        main([str(tmp_path / "list"), str(tmp_path / "scores")])


def test_pipes_are_read_once_and_whole(tmp_path):
    """Longer than the head that tells the columns, packed, and with uneven blanks at the end."""
    rows = [(f"{a}-{i}", f"{b}-{i}", y) for i in range(20) for a, b, y in ROWS]
    listed = "".join(f"{a} {b} {'target' if y else 'nontarget'}\n" for a, b, y in rows)
    scored = "".join(f"{a} {b} {i}.5\n" for i, (a, b, _) in enumerate(rows))
    (tmp_path / "list").write_text(listed)
    with gzip.open(tmp_path / "scores.gz", "wt") as file:
        file.write(scored.rstrip("\n") + "  \n")
    measure = f"cat list | {sys.executable} -m sv.bin.compute_metrics --format json -"
    done = call(["bash", "-c", f"{measure} <(cat scores.gz)"], timeout=60, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["trials"] == len(rows), done.stderr
    assert "/dev/stdin: columns" in done.stderr
    done = call(["bash", "-c", f"{measure} <(echo a b 1)"], timeout=60, cwd=tmp_path)
    assert done.returncode == 1 and "/dev/fd/" in done.stderr and "Traceback" not in done.stderr


def test_a_trial_that_is_listed_again_counts_again(measure):
    again = ROWS[::5]
    for rows, extra in ((ROWS, ROWS), (again + ROWS, ROWS), (again + ROWS, again + ROWS)):
        listed = "".join(f"{a} {b} {'target' if y else 'nontarget'}\n" for a, b, y in rows)
        shuffled = random.Random(1).sample(extra, len(extra))
        done = measure(listed, scores("{0} {1} {2}", shuffled), "--format", "json")
        values = np.array([SCORES[row[:2]] for row in rows])
        labels = np.array([row[2] for row in rows])
        assert json.loads(done.stdout) == format_metrics(compute_metrics(values, labels))
    listed += f"{NAMES[0]} {NAMES[5]} nontarget\n" * 2
    two = f"{NAMES[0]} {NAMES[5]} 0.5\n{NAMES[0]} {NAMES[5]} 0.25\n"
    done = measure(listed, scores("{0} {1} {2}", ROWS[::-1]) + two, check=False)
    assert "trials are scored twice" in done.stderr


def test_wrong_labels_of_the_list_are_refused(measure):
    done = measure(KALDI[0] + f"{NAMES[0]} {NAMES[1]} nontarget\n", KALDI[1], check=False)
    assert done.returncode == 1
    both = f"both labels (first: {NAMES[0]} {NAMES[1]}: line 1, target; line 277, nontarget)"
    assert f"1 trials are listed with {both}" in done.stderr
    options = ("--columns", "enrol,test,label")
    done = measure(KALDI[0] + "x y maybe\nx z Perhaps\n", KALDI[1], *options, check=False)
    assert "2 labels are none of target, tgt, true, 1, nontarget, " in done.stderr
    assert "(first: line 277, 'maybe')" in done.stderr
    done = measure("a b 0.5\n", KALDI[1], check=False)
    assert "cannot tell which of 3 columns is the label" in done.stderr


def test_a_file_of_ours_gives_the_metrics_of_its_unrounded_scores(measure, tmp_path):
    (tmp_path / "list").write_text(KALDI[0])
    trials = read_trials(tmp_path / "list")
    values = np.random.default_rng(0).normal(size=len(ROWS)).astype(np.float32)
    write_scores(tmp_path / "scores", trials, values)
    done = measure(KALDI[0], (tmp_path / "scores").read_text(), "--format", "json")
    metrics, own = json.loads(done.stdout), compute_metrics(values, trials.is_target)
    for key in ("eer_percent", "min_dcf"):
        assert metrics[key] == getattr(own, key)
    assert metrics["eer_threshold"] == pytest.approx(own.eer_threshold, abs=1e-7)


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, unique=True),
       st.randoms(use_true_random=False), st.integers(0, 3), st.integers(0, 3))  # fmt: skip
def test_matching_finds_every_score_or_says_what_is_wrong(pairs, order, lost, added):
    import pyarrow as pa  # noqa: PLC0415

    enrol, test = np.array(pairs, dtype=np.int32).T
    trials = Trials([f"u{i}" for i in range(5)], enrol, test, enrol == test)
    lines = [(f"u{e}", f"u{t}", 10.0 * e + t) for e, t in pairs]
    order.shuffle(lines)
    lines = lines[lost:] + [(f"x{i}", "u0", 1.0) for i in range(added)]
    if not lines:
        return
    names = ("enrol", "test", "score")
    table = pa.table({n: pa.chunked_array([c]) for n, c in zip(names, zip(*lines, strict=True),
                                                               strict=True)})  # fmt: skip
    missing = min(lost, len(pairs))
    if not missing and not added:
        assert match_scores(trials, table, "file").tolist() == [10.0 * e + t for e, t in pairs]
        return
    with pytest.raises(SvError) as error:
        match_scores(trials, table, "file")
    assert (f"{missing} of {len(pairs)} trials have no score" in str(error.value)) == bool(missing)
    text = f"{added} scores are of trials that the list does not have"
    assert (text in str(error.value)) == bool(added)


def test_numeric_ids_are_known_by_the_list(tmp_path):
    (tmp_path / "scores").write_text("101 202 0.5\n102 201 -1e-3\n")
    ids = {"101", "102", "201", "202"}
    assert find_score_columns(tmp_path / "scores", ids) == ("enrol", "test", "score")
