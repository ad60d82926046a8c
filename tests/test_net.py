"""The net: what commit f8b4a44 made of journals, results and scores is what the trunk makes.

tests/net/make.py wrote the journals, and f8b4a44's programs the sidecars, tables and metrics
next to them. The sidecars are compared field by field by the names of energy-sidecar/2, whichever
of the two schemas the trunk writes: `translate` says which old name is which new one. One
exclusive meter must agree to the digit; several or shared ones, whose sums may be taken in another
order, to 1e-12.
"""

import json
import math
import shutil
import sys

import pytest
from conftest import ROOT, call

NET = ROOT / "tests" / "net"
SIDECARS = sorted(path.stem for path in (NET / "sidecars").glob("*.json"))
SCHEMAS = ("energy-sidecar/1", "energy-sidecar/2")
REL = 1e-12

# The only differences between the two schemas that the net allows.
DROPPED = {"energy_above_idle_kwh", "above_idle_reason"}  # wherever they stand
RENAMED = {"nodes": "meters", "facts": "metadata", "node": "label"}  # node: which meter of a mark
MARK_OWN = ("t_s", "energy_kwh", "energy_reason", "label")  # the rest of a mark is its payload
FREE_TEXT = ("reason", "uncertainty_reason", "energy_reason")  # worded anew: null or not


def translate(sidecar):
    """Return a sidecar of either schema by the names of energy-sidecar/2.

    A mark's payload is laid out flat. The top-level list of all attempts' meters goes (they are
    in attempts[].meters); so does attempts[].meters of an attempt of one meter, which
    energy-sidecar/1 does not have and `check_meters` checks.
    """
    new = _rename(sidecar)
    new.pop("meters", None)
    new.pop("run_attempts", None)
    for attempt in new["attempts"]:
        attempt["marks"] = [
            {**dict.fromkeys(MARK_OWN), **mark.pop("payload", {}), **mark}
            for mark in attempt["marks"]
        ]
        if len(attempt.get("meters", ())) <= 1:
            attempt.pop("meters", None)
    return new


def _rename(value):
    if isinstance(value, list):
        return [_rename(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {RENAMED.get(k, k): _rename(v) for k, v in value.items() if k not in DROPPED}


def find_differences(old, new, scales=None, path="", key=""):
    """List where two sidecars differ; what only the new one has is no difference.

    Args:
        old, new: As `translate` gives them.
        scales: Name of a field -> its largest figure in the old sidecar, of which `REL` may be
            missing; None: every digit counts.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lost = [
            f"{path}.{name}: {_show(old[name])}, now missing" for name in old.keys() - new.keys()
        ]
        return lost + [
            line
            for name in old
            if name in new and name != "schema"
            for line in find_differences(old[name], new[name], scales, f"{path}.{name}", name)
        ]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{path}: {len(old)} entries, now {len(new)}"]
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True))
            for line in find_differences(*pair, scales, f"{path}[{i}]", key)
        ]
    if key in FREE_TEXT:
        same = (old is None) == (new is None)
    elif isinstance(old, float) and isinstance(new, float | int) and not isinstance(new, bool):
        near = 0.0 if scales is None else REL * scales[key]
        same = old == new or abs(old - new) <= near
    else:
        same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [f"{path}: {_show(old)}, now {_show(new)}"]


def _show(value):
    return value if isinstance(value, float) else json.dumps(value)[:150]


def find_scales(value, key="", scales=None):
    """Find the largest figure of each name: what a difference of two such is rounded by."""
    scales = {} if scales is None else scales
    if isinstance(value, dict):
        for name, item in value.items():
            find_scales(item, name, scales)
    elif isinstance(value, list):
        for item in value:
            find_scales(item, key, scales)
    elif isinstance(value, float):
        scales[key] = max(scales.get(key, 0.0), abs(value))
    return scales


def check_meters(sidecar):
    """Say where energy-sidecar/2 does not list each attempt's meters with the attempt's energy."""
    wrong = []
    for i, attempt in enumerate(sidecar["attempts"]):
        known = [m["energy_kwh"] for m in attempt.get("meters", ()) if m["energy_kwh"] is not None]
        energy_kwh = attempt["energy_kwh"]
        same = math.isclose(sum(known), energy_kwh, rel_tol=1e-9) if energy_kwh else not sum(known)
        if not attempt.get("meters") or not same:
            wrong.append(f".attempts[{i}].meters: {known} kWh of {energy_kwh}")
    return wrong


def is_exact(sidecar):
    """Tell whether a sidecar of energy-sidecar/1 is of one exclusive meter."""
    return all(
        attempt["attribution"]["rule"] == "exclusive" and "nodes" not in attempt
        for attempt in sidecar["attempts"]
    )


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The folder of the journals with the sidecars that the trunk makes of them."""
    folder = tmp_path_factory.mktemp("net") / "energy"
    shutil.copytree(NET / "journals", folder)
    done = run("sv.bin.meter", "--rebuild", folder)
    assert done.returncode == 0, done.stderr
    return folder


def run(*words):
    return call([sys.executable, "-m", *words], timeout=120)


@pytest.mark.parametrize("name", SIDECARS)
def test_a_journal_gives_the_same_sidecar(rebuilt, name):
    old = json.loads((NET / "sidecars" / f"{name}.json").read_text())
    new = json.loads((rebuilt / f"{name}.json").read_text())
    assert new["schema"] in SCHEMAS
    wanted = translate(old)
    scales = None if is_exact(old) else find_scales(wanted)
    wrong = find_differences(wanted, translate(new), scales)
    wrong += check_meters(new) if new["schema"] == SCHEMAS[1] else []
    how = "to the digit" if scales is None else f"to {REL:g}"
    assert not wrong, f"{name}, {how}: {len(wrong)} differences\n" + "\n".join(wrong[:40])
