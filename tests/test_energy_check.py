"""--check: what a sidecar says can be computed again; --schema describes what the meter writes."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, environment
from jsonschema import Draft202012Validator
from metered import (
    BOARD,
    ESTIMATE,
    NODE,
    PACKAGE,
    FakeRapl,
    Runner,
    end,
    head,
    mark,
    sample,
    write_journal,
)

from sv.energy.record import read_record
from sv.energy.sidecar import write_sidecar


def write_stage(folder, boot="b"):
    """Write a journal of ten seconds and its sidecar."""
    runner = Runner(folder)
    write_journal(
        runner.journal,
        head(PACKAGE, BOARD, ESTIMATE, boot_id=boot),
        *(
            sample(float(t), rapl__package__0=t * 10**8, nvml__board__a=50_000, cpu_time=t * 10**6)
            for t in range(11)
        ),
        mark(5.0, "phase", name="train"),
        end(10.0),
    )
    write_sidecar(runner.journal)
    return runner


def set_in(*keys, to):
    def edit(sidecar):
        for key in keys[:-1]:
            sidecar = sidecar[key]
        sidecar[keys[-1]] = to

    return edit


FIRST = ("attempts", 0, "channels", 0)
# What is changed in a sidecar -> what --check must say of it.
CHANGES = {
    "nothing": (lambda s: None, None),
    "sum": (set_in("energy_kwh", to=1.0), "energy_kwh: 1.0 in the sidecar, "),
    "all": (set_in("energy_all_kwh", to=0.5), "energy_all_kwh: is 0.5, the sum over all attempts"),
    "channel": (set_in(*FIRST, "energy_j", to=9.0), "(rapl.package.0): energy_j is 9.0, its raw "),
    "wraps": (set_in(*FIRST, "raw", "wraps", to=1), "its raw readings give 26"),
    "gap": (set_in(*FIRST, "samples", "max_gap_s", to=2000.0), "half a wrap takes 1311 s"),
    "contained": (set_in(*FIRST, "contained_in", to=["nvml.board.a"]), "package.0 is summed, and"),
    "carbon": (set_in("attempts", 0, "carbon", "intervals", 0, "energy_j", to=1.0), "to 1.0 J"),
    "summed": (set_in("attempts", 0, "channels", 2, "in_total", to=True), "the channels in the to"),
    "mark": (set_in("attempts", 0, "marks", 0, "energy_kwh", to=9.0), "marks[0].energy_kwh: 9.0"),
    "attempt": (set_in("attempts", 0, "energy_kwh", to=9.0), "energy_kwh: is 9.0, the sum over"),
    "missing": (lambda s: s.pop("boundary"), "missing key 'boundary'"),
    "type": (set_in("energy_kwh", to="1"), "energy_kwh must be float, not '1'"),
    "reason": (set_in("energy_kwh", to=None), "reason: there is none, and energy_kwh is null"),
    "status": (set_in("status", to="done"), "status must be one of"),
    "boundary": (set_in("channels", 0, "boundary", to="fan"), "boundary must be one of"),
    "unknown": (set_in("energie", to=1), "unknown key 'energie' (known: schema, "),
    "kind": (set_in(*FIRST, "kind", to="unavailable"), "unavailable, but in_total"),
    "journal": (lambda s: None, "no journal 05_train.journal.jsonl"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Check a sidecar for each change, all at once: change -> what is said of its sidecar."""
    root = tmp_path_factory.mktemp("check")
    paths = {}
    for name, (edit, _) in CHANGES.items():
        (root / name).mkdir()
        runner = write_stage(root / name, boot=name)
        paths[name] = runner.folder / "05_train.json"
        sidecar = json.loads(paths[name].read_text())
        edit(sidecar)
        paths[name].write_text(json.dumps(sidecar))
    (paths["journal"].with_name("05_train.journal.jsonl")).unlink()
    done = runner.tool("--check", *paths.values())
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{len(paths)} sidecars, " in done.stderr
    lines = done.stdout.splitlines()
    return {name: [x for x in lines if x.startswith(f"{paths[name]}: ")] for name in paths}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_sidecar_is_found(found, name):
    says = CHANGES[name][1]
    if says is None:
        assert found[name] == []
    else:
        assert any(says in line for line in found[name]), found[name]


def test_what_cannot_be_checked(tmp_path):
    runner = write_stage(tmp_path)
    assert runner.tool("--check", runner.folder / "none.json").returncode == 1
    assert runner.tool("--check").returncode == 2
    done = runner.tool("--check", runner.folder / "05_train.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "sv.bin.meter: 1 sidecars, 0 violations\n"


def test_the_same_package_and_time_in_two_sidecars(tmp_path):
    runner = write_stage(tmp_path)
    cases = {"overlaps": (5.0, "b", PACKAGE), "later": (50.0, "b", PACKAGE)}
    cases |= {"other boot": (5.0, "c", PACKAGE), "own processes": (5.0, "b", ESTIMATE)}
    paths = {}
    for name, (start_s, boot, channel) in cases.items():
        journal = tmp_path / name / "06_extract.journal.jsonl"
        first, last = ({channel["id"]: value} for value in (0, 10**8))
        samples = [{**sample(start_s), "raw": first}, {**sample(start_s + 1.0), "raw": last}]
        write_journal(journal, head(channel, boot_id=boot, host=name), *samples, end(start_s + 1.0))
        write_sidecar(journal)
        paths[name] = tmp_path / name / "06_extract.json"
    ours = runner.folder / "05_train.json"
    done = runner.tool("--check", ours, *paths.values())
    assert done.returncode == 1 and "5 sidecars, 1 violations" in done.stderr
    assert done.stdout == (
        f"{paths['overlaps']}: attempts[0].meters[0]: rapl.package.0 of 1.0 s are also in {ours}, "
        "attempts[0].meters[0]\n"
    )


def test_sidecars_of_real_stages_pass(tmp_path):
    """Measured, shared, failed, not found, killed, with marks."""
    runner = Runner(tmp_path, 'country = "FRA"\nperiod_s = 0.05\nattribution = "ceems"\n')
    say = 'echo \'{"mark": "phase", "name": "a"}\' >>"$SV_METER_MARKS"; '
    with FakeRapl(tmp_path, 100.0):
        assert runner.run("sh", "-c", say + "sleep 0.3; exit 3")[0] == 3
        assert runner.run("no-such-command")[0] == 127
        assert runner.run("sh", "-c", say + "sleep 0.3; kill -9 $PPID")[0] == -9
        runner.config.write_text('country = "DEU"\nperiod_s = 0.05\n')
        assert runner.run("sh", "-c", say + "sleep 0.2")[0] == 0
    done = runner.tool("--check", runner.folder / "05_train.json")
    assert (done.returncode, done.stdout) == (0, "")
    rules = [attempt.attribution.rule for attempt in runner.sidecar().attempts]
    assert rules == ["ceems", "ceems", "ceems", "exclusive"]


def test_a_node_sidecar_passes(tmp_path):
    runner = Runner(tmp_path)
    samples = [sample(float(t), rapl__package__0=t * 10**8, ipmi__node=400) for t in range(30)]
    write_journal(runner.journal, head(PACKAGE, NODE), *samples, end(29.0))
    write_sidecar(runner.journal)
    done = runner.tool("--check", runner.folder / "05_train.json")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_tiny_recipes_sidecars_pass(tiny):
    paths = [*tiny.data.glob("energy/*.json"), *tiny.exp.glob("**/energy/*.json")]
    assert len(paths) > 8
    words = [sys.executable, "-m", "sv.bin.meter", "--check", *map(str, paths)]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_sidecar_is_valid_by_the_printed_schema(tmp_path):
    runner = write_stage(tmp_path)
    schema = json.loads(runner.tool("--schema").stdout)
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    validator = Draft202012Validator(schema)
    path = runner.folder / "05_train.json"
    sidecar = json.loads(path.read_text())
    assert not list(validator.iter_errors(sidecar))
    for change in (lambda s: s.pop("boundary"), set_in("energie", to=1), set_in("host", to=5)):
        changed = json.loads(path.read_text())
        change(changed)
        assert len(list(validator.iter_errors(changed))) == 1


def test_sidecars_of_the_old_schema_pass_too():
    paths = sorted((ROOT / "tests" / "net" / "sidecars").glob("*.json"))
    assert len(paths) > 50
    for path in paths:
        assert read_record(path).name
