"""What a total of several machines lacks is named; a job that was started again is one job."""

import pytest
from metered import ESTIMATE, mark, write_journal
from nodes_tree import build, joules, lines, write_stage

from sv.report.output import build_tables
from sv.report.results import collect_results
from sv.report.tables.cells import format_markdown

LATE = {
    "missing": ({"t.1.node0": (10, 200, True)}, "node t.1.node1: it was expected and left no"),
    "no end": ({"t.1.node0": (10, 200, True), "t.1.node1": (10, 190, False)},
               "node t.1.node1 on h1: its journal has no end"),
    "late": ({"t.1.node0": (10, 200, True), "t.1.node1": (75, 200, True)},
             "node t.1.node1 on h1: without the first 65 s of its job"),
    "early": ({"t.1.node0": (10, 200, True), "t.1.node1": (10, 130, True)},
              "node t.1.node1 on h1: without the last 70 s of its job"),
    "whole": ({"t.1.node0": (10, 200, True), "t.1.node1": (20, 195, True)}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_what_is_missing_is_named(tmp_path, case):
    spans, said = LATE[case]
    nodes = {
        label: lines(f"h{label[-1]}", first, last, ended=ended)
        for label, (first, last, ended) in spans.items()
    }
    own = lines("login", 0, 210, ESTIMATE)
    sidecar, _ = write_stage(tmp_path, own, nodes, expected=["t.1.node0", "t.1.node1"])
    seconds = sum(last - first for first, last, _ in spans.values())
    assert joules(sidecar) == pytest.approx(seconds * 100 + 210 * 6)
    assert sidecar.status == "complete"
    assert said in sidecar.reason if said else sidecar.reason is None
    if case == "missing":
        assert [node.status for node in sidecar.meters] == ["complete"] * 2 + ["missing"]


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    _, runner = write_stage(tmp_path, lines("login", 0, 40, ESTIMATE), {"f.1": lines("a", 0, 40)})
    broken = runner.folder / "05_train.nodes/1/f.2.journal.jsonl"
    broken.mkdir()
    assert "node f.2: cannot read" in build(runner).reason
    broken.rmdir()
    broken.write_text("half a li")
    write_journal(broken.with_name("expected.jsonl"), {"labels": ["f.1", "f.2"]})
    sidecar = build(runner)
    assert "node f.2: it was expected and left no journal" in sidecar.reason
    assert sidecar.torn_lines == 1


def test_a_requeued_job_is_no_resumed_stage(tmp_path):
    """The second start of a job goes on from the first; neither from an earlier attempt."""
    killed = lines("a", 10, 30, ended=False, marks=[mark(25.0, "checkpoint", step=1)])
    again = lines("b", 40, 60, marks=[mark(41.0, "resumed", step=1)])
    own = [
        *lines("login", 0, 5, ESTIMATE, ended=False, marks=[mark(3.0, "checkpoint", step=0)]),
        *lines("login", 6, 70, ESTIMATE),
    ]
    sidecar, runner = write_stage(tmp_path, own, {"t.1": [*killed, *again]}, attempt=2)
    attempt = sidecar.attempts[1]
    assert attempt.resumed is False and sidecar.reason is None
    assert joules(sidecar) == pytest.approx(40 * 100 + 64 * 6)
    assert joules(sidecar, "energy_all_kwh") == pytest.approx(40 * 100 + 64 * 6 + 5 * 6)
    starts = [(node.start, node.host, node.status) for node in sidecar.meters[1:]]
    assert starts == [(1, "a", "interrupted"), (2, "b", "complete")]
    # The first start that left anything says whether the stage goes on from an earlier attempt.
    before = lines("a", 10, 30, ended=False, marks=[mark(11.0, "resumed", step=0)])
    write_journal(runner.folder / "05_train.nodes/2/t.1.journal.jsonl", *before, *again)
    sidecar = build(runner)
    assert sidecar.attempts[1].resumed is True
    assert joules(sidecar) == joules(sidecar, "energy_all_kwh")


def test_the_tables_mark_a_total_that_lacks_a_machine(tmp_path):
    system = tmp_path / "exp" / "resnet50_d"
    system.mkdir(parents=True)
    own, job = lines("login", 0, 40, ESTIMATE), {"t.1.node0": lines("a", 0, 40)}
    write_stage(system, own, job, expected=["t.1.node0", "t.1.node1"])
    tables = build_tables(collect_results(tmp_path / "data", tmp_path / "exp"))
    stages = next(text for text in map(format_markdown, tables) if "train" in text)
    assert "incomplete" in stages and "node t.1.node1: it was expected" in stages
    write_stage(system, own, job)
    tables = build_tables(collect_results(tmp_path / "data", tmp_path / "exp"))
    assert not any("incomplete" in format_markdown(table) for table in tables)
