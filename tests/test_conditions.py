"""Breakdown by condition, against counts by hand, through the program."""

import csv
import io
import json

import numpy as np
import pytest
from scored_world import build_world, write_list, write_system

from sv.errors import SvError, UsageError
from sv.score.conditions import bin_values, measure_conditions, read_utterance_table
from sv.score.metrics import compute_eer, compute_error_curve


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of 20 speakers, half of them f, whose scores are worse; and tables of them."""
    root = tmp_path_factory.mktemp("conditions")
    rng = np.random.default_rng(2)
    trials, scores, utt2spk = build_world(rng, 20, 6, shift=3.5)
    gender = {s: "fm"[int(s[1:]) % 2] for s in set(utt2spk.values())}
    noisy = np.array([gender[u[:3]] == "f" for u in trials.utterances])
    scores = scores + noisy[trials.enrol] * rng.normal(size=len(scores)) * 2
    write_list(root, trials, utt2spk)
    write_system(root / "a.txt", trials, scores)
    (root / "spk2gender").write_text("".join(f"{s} {g}\n" for s, g in sorted(gender.items())))
    rows = [f"{u}\t{gender[s]}\t{1 + i % 5}\n" for i, (u, s) in enumerate(utt2spk.items())]
    (root / "table.tsv").write_text("utterance\tgender\tseconds\n" + "".join(rows))
    return root, trials, scores, {u: gender[s] for u, s in utt2spk.items()}


def score_conditions(run_cli, root, table, *options, check=True):
    paths = [root / "list", root / "a.txt", root / table]
    return run_cli("sv.bin.score_conditions", *options, *paths, check=check)


def test_each_condition_is_the_measure_of_its_trials(run_cli, listed):
    root, trials, scores, gender = listed
    done = score_conditions(run_cli, root, "table.tsv", "--by", "gender", "--format", "json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert list(rows) == ["all", "same", "cross", "f / f", "m / m", "f / m"]
    values = np.array([gender[u] for u in trials.utterances])
    first, second = values[trials.enrol], values[trials.test]
    masks = {"f / f": (first == "f") & (second == "f"), "cross": first != second,
             "same": first == second, "all": np.ones(len(first), dtype=bool)}  # fmt: skip
    _, threshold = compute_eer(compute_error_curve(scores, trials.is_target))
    for name, mask in masks.items():
        of_condition, is_target = scores[mask], trials.is_target[mask]
        counts = len(of_condition), is_target.sum(), (~is_target).sum()
        assert tuple(rows[name][key] for key in ("trials", "targets", "nontargets")) == counts
        accepted = of_condition >= threshold
        assert rows[name]["fa_percent"] == pytest.approx(100 * accepted[~is_target].mean())
        if name != "cross":
            eer, _ = compute_eer(compute_error_curve(of_condition, is_target))
            assert rows[name]["eer_percent"] == pytest.approx(100 * eer)
            assert rows[name]["miss_percent"] == pytest.approx(100 * (~accepted[is_target]).mean())
    assert rows["f / f"]["miss_percent"] > rows["all"]["miss_percent"]
    assert rows["cross"]["eer_percent"] is None and rows["cross"]["miss_percent"] is None
    assert rows["cross"]["reason"] == rows["f / m"]["reason"] == "no target trials"
    assert rows["m / m"]["eer_percent"] is None  # an EER of few errors is none
    assert "errors of a kind, fewer than 30" in rows["m / m"]["reason"]


def test_tables_for_people_and_programs(run_cli, listed):
    root = listed[0]
    options = ("--utt2spk", root / "utt2spk", "--min-errors", 1)
    done = score_conditions(run_cli, root, "spk2gender", *options, "--format", "csv")
    rows = {row["condition"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert float(rows["m / m"]["eer_percent"]) < float(rows["f / f"]["eer_percent"])
    assert rows["cross"]["eer_percent"] == ""
    text = score_conditions(run_cli, root, "table.tsv", "--by", "seconds", "--bins", "2 4").stdout
    assert "### list by seconds" in text
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert names[2:] == ["all", "same", "cross", "<2 / <2", "2-4 / 2-4", ">=4 / >=4",
                         "<2 / 2-4", "<2 / >=4", "2-4 / >=4"]  # fmt: skip


def test_utterances_that_the_table_lacks_are_counted(run_cli, listed):
    root = listed[0]
    (root / "part").write_text((root / "spk2gender").read_text().replace("s03 m\n", ""))
    options = ("--utt2spk", root / "utt2spk")
    done = score_conditions(run_cli, root, "part", *options, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "sv.bin.score_conditions: 6 of 120 utterances of the trial list are not in the table "
        "(s03-0, s03-1, s03-2, s03-3, s03-4, s03-5)\n"
    )
    done = score_conditions(run_cli, root, "table.tsv", "--bins", "4 2", check=False)
    assert done.returncode == 2
    assert "--bins: must be rising numbers, not '4 2'" in done.stderr


def test_tables_that_cannot_be_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,a,b\nu1,1,2\n")
    assert read_utterance_table(path, "b") == {"u1": "2"}
    with pytest.raises(UsageError, match="say which column with --by: a, b"):
        read_utterance_table(path)
    with pytest.raises(UsageError, match=r"no column 'c' \(there are a, b\)"):
        read_utterance_table(path, "c")
    path.write_text('id,a\nu1,"x, y"\nu2\n')
    with pytest.raises(SvError, match="line 3: 1 fields, not 2"):
        read_utterance_table(path)
    path.write_text("id,a\nu1,x\nu1,y\n")
    with pytest.raises(SvError, match="line 3: 'u1' stands twice"):
        read_utterance_table(path)
    assert bin_values({"a": "1", "b": "2", "c": "7.5"}, [2, 4]) == {
        "a": "<2",
        "b": "2-4",
        "c": ">=4",
    }
    with pytest.raises(SvError, match="'a' has the value 'long', which is no number"):
        bin_values({"a": "long"}, [2])


def test_hundreds_of_values_are_no_hundreds_of_passes():
    """Every trial is in one pair, whatever the number of values."""
    rng = np.random.default_rng(0)
    trials, scores, utt2spk = build_world(rng, 60, 2)
    rows = measure_conditions(trials, scores, utt2spk, min_errors=1)
    pairs = [row for row in rows if " / " in row.name]
    assert len(pairs) == 60 * 61 // 2
    assert sum(row.trials for row in pairs) == len(scores) == rows[0].trials
