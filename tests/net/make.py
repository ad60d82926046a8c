"""Write what tests/net holds: journals and scores, and what commit f8b4a44 makes of them.

Run once, with the code of that commit, whose clone lies in $OLD:
    PYTHONPATH=$OLD:$OLD/tests python3 tests/net/make.py tests/net
tests/net/recipe is no work of this program: it is what run.sh of that commit left of tests/egs/tiny
(two systems, one also in bf16; host renamed, large files left out; times.tsv has the times of its
files, which .done records hold), and resnet18_w0.125, whose energy is of some of the journals.
Times are whole 8ths of a second and starts whole seconds, so that no sum with a Unix time is
rounded: a figure may not depend on the order of such sums. Powers are no round numbers.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from metered import BOARD, DRAM, ESTIMATE, MAX_RANGE_UJ, NODE, PACKAGE, end, head, mark
from report_tree import build_tree
from study_exp import build_study

from sv.kaldi.archive import write_archive

TICK_S = 1 / 8
CORE_W = 6.0
FAST = {**PACKAGE, "max_range": 1_000_000_000}  # goes round every ten seconds
COUNTER = {
    **BOARD, "method": "counter_delta", "kind": "measured", "unit": "mJ", "max_range": 2**63 - 1,
    "update_period_s": 0.1, "sensor_rel": 0.05, "sensor_rel_basis": "assumed",
}  # fmt: skip
POWER = {**BOARD, "id": "nvml.power.a", "in_total": False, "reason": "a cross-check"}
BOARD_B = {**COUNTER, "id": "nvml.board.b"}
MODULE = {**COUNTER, "id": "nvml.module.a", "boundary": "gpu_module"}
PSYS = {**PACKAGE, "id": "rapl.psys", "boundary": "psys"}
MEMORY = {
    **ESTIMATE, "id": "dram_time", "boundary": "dram", "method": "power_integral", "unit": "mW",
    "power_w_per_core": None,
}  # fmt: skip
CRAY = {**NODE, "id": "node.cray", "method": "counter_delta", "kind": "measured", "unit": "J"}
REDFISH = {**NODE, "id": "node.redfish", "sensor_rel": 0.02, "sensor_rel_basis": "test"}
NONE = {
    **PACKAGE, "id": "dram", "boundary": "dram", "kind": "unavailable", "method": None,
    "in_total": False, "reason": "no dram zone", "unit": None, "max_range": None,
}  # fmt: skip
WATTS = {
    "cpu_package": 97.3, "dram": 11.7, "gpu_board": 313.9, "node": 1241.1, "psys": 131.9,
    "gpu_module": 477.7,
}  # fmt: skip
FRANCE = {
    "provider": "owid", "zone": "FRA", "year": 2024, "vintage": "2025-07", "scope": "lifecycle",
    "basis": "production", "g_per_kwh": 44.179, "source": "Our World in Data", "reason": None,
}  # fmt: skip
RTE = {
    "provider": "rte", "zone": "FRA", "scope": "direct", "basis": "production", "g_per_kwh": 21.0,
    "source": "RTE eCO2mix, eco2mix-national-tr, taux_co2",
}  # fmt: skip


def utc(seconds):
    """Format a second of the tests' day, which is a whole one."""
    seconds = int(seconds)
    return f"2026-01-01T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"


def joules(channel, host, t_s):
    """Return what a channel has counted: a power that swings, the same for every meter."""
    watts = WATTS[channel["boundary"]] * (1 + 0.07 * (sum(map(ord, host + channel["id"])) % 7))
    return watts * (t_s + 5.3 * math.sin(t_s / 11.3))


def power_w(channel, host, t_s):
    """Return its derivative."""
    watts = WATTS[channel["boundary"]] * (1 + 0.07 * (sum(map(ord, host + channel["id"])) % 7))
    return watts * (1 + 5.3 / 11.3 * math.cos(t_s / 11.3))


def read(channel, host, t_s, first_s, cores):
    """Return the raw reading of a channel."""
    per_unit = {"uJ": 10**6, "mJ": 10**3, "J": 1, "mW": 10**3, "W": 1}
    if channel["unit"] == "us":  # each meter's processes have their own processor time
        return int((t_s - first_s) * 10**6 * cores)
    if channel["id"] == "dram_time":
        return int(700 + 90 * math.sin(t_s / 9.1))
    if channel["method"] == "power_integral":
        return round(power_w(channel, host, t_s) * per_unit[channel["unit"]])
    count = int((joules(channel, host, t_s) + 150.0) * per_unit[channel["unit"]])
    return count if channel["max_range"] is None else count % channel["max_range"]


def attempt(  # noqa: PLR0913 - each is one thing that may happen to an attempt
    host, first_s, last_s, *channels, ended=True, code=0, marks=(), config=None, lacks=(),
    busy=None, cores=1.37, slow=(), lines=(), asleep=(), look_s=10, memory=False, cut=None,
    boot="b", **changes,
):  # fmt: skip
    """Return the lines of an attempt, a sample each other second and at the end.

    Args:
        busy: Part of the machine's processor time that is the job's; None: nobody looked.
        lacks: (channel, first second, last second) without a reading.
        slow: Channels that are read each third time.
        lines: (second, line) between the samples: factors, facts.
        asleep: (second, seconds) in which the machine was suspended.
        cut: A second from which on counters begin at 0 again.
        changes: Of the head.
    """
    channels = channels or (PACKAGE, ESTIMATE)
    made = [
        head(
            *channels, host=host, boot_id=boot, started_utc=utc(first_s), t_s=float(first_s),
            awake_s=float(first_s), config=config or {}, argv=["steps/train.sh", "--model", "m"],
            git={"commit": "c" * 40, "dirty": False},
            **({"carbon": FRANCE, "period_s": 2.0} | changes),
        )
    ]  # fmt: skip
    readable = [ch for ch in channels if ch["kind"] != "unavailable"]
    waiting = sorted(lines, key=lambda pair: pair[0])
    ticks = [at_s * 8 + at_s * 37 % 3 for at_s in range(first_s, last_s, 2)]
    next_look_s, slept_s = first_s, 0
    for k, tick in enumerate([first_s * 8, *ticks[1:], last_s * 8]):
        t_s = tick * TICK_S
        slept_s = sum(seconds for at_s, seconds in asleep if at_s <= t_s)
        while waiting and waiting[0][0] <= t_s:
            made.append(waiting.pop(0)[1])
        raw = []
        for channel in readable:
            name = channel["id"]
            value = read(channel, host, t_s, first_s, cores)
            if cut is not None and t_s >= cut and channel["method"] == "counter_delta":
                value = read(channel, host, t_s - cut, first_s, cores)
            out = any(name == lack and a <= t_s <= b for lack, a, b in lacks)
            if out or (name in slow and k % 3 != 1):
                value = None
            raw.append(value)
        line = {"line": "sample", "t_s": t_s + slept_s, "awake_s": t_s, "raw": raw}
        if busy is not None and (t_s >= next_look_s or t_s == last_s):
            next_look_s = t_s + look_s
            used = (t_s * 1.37 + 3 * math.sin(t_s / 17)) / busy
            line["usage"] = {"node_cpu_us": int(used * 10**6) // 10**4 * 10**4}
            if memory:
                line["usage"]["job_bytes"] = 2 * 10**9 + int(t_s) * 10**7
                line["usage"]["node_bytes"] = 11 * 10**9
        made.append(line)
    made += marks
    if ended:
        last = {**end(float(last_s + slept_s), code), "meter_cpu_s": 0.625}
        made.append({**last, "ended_utc": utc(last_s + slept_s + changes.get("step_s", 0))})
    return made


def factor(t_s, valid_s, observed_s=None, **changes):
    """Return a factor's line."""
    record = {**RTE, "valid_from_utc": utc(valid_s), **changes}
    if observed_s is not None:
        record["observed_utc"] = utc(observed_s)
    return (t_s, {"line": "factor", "t_s": float(t_s), "factor": record})


def list_stretches(first_s):
    """Return the marks of a forecast's training."""
    plan = {"total_steps": 4000, "steps_per_epoch": 400, "crops_per_step": 8}
    marks = [mark(first_s + 2.5, "plan", **plan), mark(first_s + 6.25, "validation", seconds=3.5)]
    marks += [mark(first_s + 6.25 + 12.5 * i, "stretch", steps=9 + i % 3) for i in range(1, 8)]
    return [*marks, mark(first_s + 95.75, "checkpoint", step=70)]


def build_single():
    """Return the journals of one meter: name -> lines; all but those in SHARED are exclusive."""
    epochs = [mark(13.25, "phase", name="data"), mark(20.5, "phase", name="train")]
    epochs += [mark(31.125, "epoch", epoch=1, loss=2.5), mark(44.75, "checkpoint", step=40)]
    more = [mark(101.5, "resumed", step=40), mark(102.25, "phase", name="train")]
    more += [mark(120.75, "epoch", epoch=2, loss=1.25), mark(133.0, "phase", name="data")]
    cpu = {"attribution": "cpu_share"}
    ceems = {"attribution": "ceems", "jobs_on_node": 3}
    inside = {**PACKAGE, "contained_in": ["nvml.module.a"]}
    outside = [{**BOARD_B}, {**NODE, "reason": "GPUs are assumed to be not inside"}]
    torn = attempt("a", 0, 30, PACKAGE, DRAM, marks=[mark(12.5, "epoch", epoch=1)])
    torn[9:9] = ['{"line":"sample","t_s":7.0,"aw', "", "[1, 2]"]
    torn.insert(20, {"line": "of a later version", "x": 1})
    no_factor = attempt("a", 0, 20)
    del no_factor[0]["carbon"]
    psys = [{**ch, "contained_in": ["rapl.psys"]} for ch in (PACKAGE, DRAM)]
    baseline = {"host": "a", "channels": {"rapl.package.0": {"power_w": 40.0}}}
    single = {
        "10_counter": attempt("a", 3, 63, PACKAGE, DRAM, ESTIMATE, NONE, marks=epochs),
        "11_wrap": attempt("a", 3, 43, FAST, DRAM),
        "12_reset": attempt("a", 3, 43, PACKAGE, DRAM, cut=20),
        "13_gap": attempt("a", 3, 93, PACKAGE, BOARD, lacks=[("rapl.package.0", 30, 47),
                          ("nvml.board.a", 60, 71), ("nvml.board.a", 20, 22)]),
        "14_hidden_wrap": attempt("a", 3, 63, FAST, lacks=[("rapl.package.0", 20, 27)]),
        "15_ends_unread": attempt("a", 3, 63, PACKAGE, BOARD, ESTIMATE, lacks=[
                          ("rapl.package.0", 0, 9), ("nvml.board.a", 50, 70)]),
        "16_suspended": attempt("a", 3, 63, PACKAGE, BOARD, ESTIMATE, asleep=[(30, 3600)]),
        "17_killed": attempt("a", 3, 63, PACKAGE, ESTIMATE, ended=False, marks=epochs),
        "18_resumed": [
            *attempt("a", 3, 63, PACKAGE, ESTIMATE, ended=False, marks=epochs),
            *attempt("a", 70, 75, PACKAGE, ESTIMATE, code=2),
            *attempt("a", 80, 90, PACKAGE, ESTIMATE, code=1, marks=[mark(82.0, "phase", name="x")]),
            *attempt("b", 100, 150, PACKAGE, DRAM, ESTIMATE, marks=more),
        ],
        "19_begun_again": [
            *attempt("a", 3, 33, PACKAGE, ESTIMATE, code=1, marks=[mark(9.0, "epoch", epoch=1)]),
            *attempt("a", 40, 80, PACKAGE, ESTIMATE),
        ],
        "20_boards": attempt("a", 3, 63, PACKAGE, COUNTER, POWER, BOARD_B, ESTIMATE),
        "21_module": attempt("a", 3, 63, inside, MODULE, {**POWER, "boundary": "gpu_module"},
                             ESTIMATE),
        "22_node": attempt("a", 3, 93, PACKAGE, DRAM, COUNTER, POWER, NODE, ESTIMATE,
                           slow=["ipmi.node"]),
        "23_node_without_gpu": attempt("a", 3, 63, PACKAGE, *outside, slow=["ipmi.node"]),
        "24_node_stops": attempt("a", 3, 93, PACKAGE, DRAM, REDFISH,
                                 lacks=[("node.redfish", 40, 99)]),
        "25_cray": attempt("a", 3, 63, PACKAGE, CRAY, ESTIMATE),
        "26_psys": attempt("a", 3, 63, *psys, PSYS, BOARD),
        "27_estimates": attempt("a", 3, 63, ESTIMATE, MEMORY, NONE),
        "28_stated_estimates": attempt("a", 3, 63, {**ESTIMATE, "sensor_rel": 0.5}, BOARD),
        "29_nothing": attempt("a", 3, 13, NONE, {**PACKAGE, "kind": "unavailable",
                              "in_total": False, "reason": "not readable by this user"}),
        "30_no_sample": [attempt("a", 3, 13)[0]],
        "31_one_sample": [*attempt("a", 3, 13)[:2], mark(4.0, "epoch", epoch=1)],
        "32_torn": torn,
        "33_facts_and_clock": attempt("a", 3, 33, PACKAGE, BOARD, step_s=17, lines=[
            (9, {"line": "facts", "t_s": 9.0, "facts": {"sensor": "nvml", "clock_mhz": 1410}}),
            (21, {"line": "facts", "t_s": 21.0, "facts": {"sensor": "ipmi", "state": "on"}})]),
        "34_no_factor": no_factor,
        "35_factor_unknown": attempt("a", 3, 33, carbon={
            "provider": "none", "g_per_kwh": None, "reason": "rte: HTTP 500",
            "fallback_from": ["rte: HTTP 500"]}),
        "36_pue": attempt("a", 3, 33, pue={"value": 1.58, "source": "Uptime survey"}),
        "37_rte": attempt("a", 3, 93, PACKAGE, ESTIMATE, carbon=None, lines=[
            factor(5, 5, 1), factor(40, 40, 37, g_per_kwh=31.0), factor(71, 71, 67, g_per_kwh=48.5)
        ]),
        "38_stale": attempt("a", 16000, 16060, PACKAGE, ESTIMATE, pue={"value": 1.2,
                            "source": "x"}, carbon=None, lines=[factor(16004, 16004, 1630)]),
        "39_direct_and_lifecycle": attempt("a", 3, 93, PACKAGE, ESTIMATE, carbon=None, lines=[
            factor(5, 5, 1), factor(48, 48, **{**FRANCE, "fallback_from": ["rte: HTTP 500"]})]),
        "40_baseline": attempt("a", 3, 63, PACKAGE, ESTIMATE, idle_baseline=baseline),
        "41_nothing_advanced": attempt("a", 3, 9, {**ESTIMATE}, cores=0),
        "42_two_grids": [
            *attempt("a", 3, 33, marks=[mark(9.0, "epoch", epoch=1)]),
            *attempt("a", 40, 80, carbon={**FRANCE, "zone": "DEU", "g_per_kwh": 344.14}, code=3,
                     marks=[mark(41.0, "resumed")]),
        ],
        "45_cpu_share": attempt("a", 3, 63, PACKAGE, DRAM, COUNTER, ESTIMATE, MEMORY, config=cpu,
                                busy=0.31, marks=epochs),
        "46_cpu_share_node": attempt("a", 3, 63, PACKAGE, COUNTER, POWER, NODE, ESTIMATE,
                                     config=cpu, busy=0.31, slow=["ipmi.node"], ended=False),
        "47_ceems": attempt("a", 3, 93, PACKAGE, DRAM, COUNTER, NODE, ESTIMATE, config=ceems,
                            busy=0.31, memory=True, marks=epochs),
        "48_ceems_without_dram": attempt("a", 3, 63, PACKAGE, NODE, ESTIMATE, config=ceems,
                                         busy=0.31, memory=True),
        "49_ceems_without_node": attempt("a", 3, 63, PACKAGE, DRAM, ESTIMATE, config=ceems,
                                         busy=0.31, memory=True),
        "53_forecast": attempt("a", 3, 105, PACKAGE, COUNTER, ESTIMATE, marks=list_stretches(3)),
        "50_no_looks": attempt("a", 3, 33, config=cpu),
        "51_shared_module": attempt("a", 3, 63, inside, MODULE, ESTIMATE, config=cpu, busy=0.31),
        "52_two_rules": [
            *attempt("a", 3, 63, marks=[mark(9.0, "epoch", epoch=1)]),
            *attempt("a", 70, 110, config=cpu, busy=0.31, marks=[mark(71.0, "resumed")]),
        ],
    }  # fmt: skip
    for lines in single.values():
        for line in lines:
            if isinstance(line, dict) and line.get("carbon", 1) is None:
                del line["carbon"]
    return single


def build_fleets():
    """Return the journals of several meters: name -> (own lines, {attempt: {label: lines}})."""
    cpu = {"attribution": "cpu_share"}
    ceems = {"attribution": "ceems", "jobs_on_node": 3}
    reserved = {"submit_attribution": "exclusive"}
    login = attempt("login", 0, 70, ESTIMATE, MEMORY, cores=0.125)
    polish = {**FRANCE, "zone": "POL", "g_per_kwh": 610.5}
    said = [mark(20.25, "phase", name="train"), mark(30.5, "epoch", epoch=1),
            mark(50.75, "epoch", epoch=2), mark(55.0, "phase", name="data")]  # fmt: skip
    board = (PACKAGE, DRAM, COUNTER, POWER, ESTIMATE)
    both = (PACKAGE, DRAM, COUNTER, BOARD_B, NODE, ESTIMATE)
    two_hosts = {
        "t.1.node0": attempt("a", 10, 60, *board, marks=said),
        "t.1.node1": attempt("b", 12, 62, *board, carbon=polish),
    }
    overlap = {
        "f.1": attempt("a", 0, 40), "f.2": attempt("a", 20, 60), "f.3": attempt("a", 64, 70),
    }  # fmt: skip
    killed = attempt("a", 10, 30, ended=False, marks=[mark(25.0, "checkpoint", step=1)])
    again = attempt("b", 40, 60, marks=[mark(41.5, "resumed", step=1)])
    vague = {**PACKAGE, "update_period_s": None}
    late = [factor(5, 5, 1), factor(33, 33, 29, g_per_kwh=87.5)]
    inside = {**PACKAGE, "contained_in": ["nvml.module.a"]}
    own_mark = [mark(5.5, "job", log="x"), mark(None, "job", log="y")]
    fleets = {
        "60_two_hosts": (attempt("login", 0, 70, ESTIMATE, MEMORY, marks=own_mark), two_hosts),
        "61_overlap": (login, overlap),
        "62_estimates": (login, {
            "f.1": attempt("a", 0, 40, ESTIMATE, MEMORY), "f.2": attempt("a", 20, 60, ESTIMATE),
        }),
        "63_cpu_share": (login, {
            "f.1": attempt("a", 0, 40, config=cpu, busy=0.25),
            "f.2": attempt("a", 0, 40, config=cpu, busy=0.55, marks=said[1:3]),
            "f.3": attempt("b", 0, 40, config=cpu, busy=0.75),
            "f.4": attempt("b", 20, 40, config=cpu, busy=0.7, cores=1.5),
        }),
        "64_waiting": (
            attempt("login", 0, 70, PACKAGE, COUNTER, ESTIMATE, busy=0.03, cores=0.04),
            {"t.1": attempt("a", 10, 60)},
        ),
        "65_reserved": (
            attempt("login", 0, 70, PACKAGE, COUNTER, ESTIMATE, busy=0.03, config=reserved),
            {"t.1": attempt("a", 10, 60)},
        ),
        "66_works_too": (attempt("login", 0, 70, PACKAGE, COUNTER, ESTIMATE, busy=0.03),
                         {"t.node1": attempt("a", 10, 60)}),
        "67_same_host": (attempt("a", 0, 60, busy=0.5), {"t.1": attempt("a", 10, 50)}),
        "68_same_host_no_looks": (attempt("a", 0, 60), {"t.1": attempt("a", 10, 50)}),
        "69_requeued": (login, {"t.1": [*killed, *again]}),
        "70_missing": (login, {"t.1.node0": attempt("a", 10, 60)}, ["t.1.node0", "t.1.node1"]),
        "71_no_end": (login, {"t.1.node0": attempt("a", 10, 60),
                              "t.1.node1": attempt("b", 10, 55, ended=False)}),
        "72_late": (attempt("login", 0, 150, ESTIMATE), {
            "t.1.node0": attempt("a", 10, 145), "t.1.node1": attempt("b", 75, 145),
            "t.1.node2": attempt("c", 10, 80)}),
        "73_boundaries": (login, {"f.1": attempt("a", 0, 40),
                                  "f.2": attempt("b", 0, 40, PACKAGE, NODE, ESTIMATE)}),
        "74_ceems": (login, {
            "f.1": attempt("a", 0, 40, *both, config=ceems, busy=0.4, memory=True, marks=said[1:2]),
            "f.2": attempt("a", 20, 65, *both, config=ceems, busy=0.5, memory=True),
        }),
        "75_node_and_boards": (login, {
            "t.1": attempt("a", 0, 40, PACKAGE, COUNTER, NODE, slow=["ipmi.node"]),
            "t.2": attempt("a", 20, 60, PACKAGE, COUNTER, BOARD_B, NODE),
        }),
        "76_shared_node_and_boards": (login, {
            "t.1": attempt("a", 0, 40, PACKAGE, COUNTER, NODE, ESTIMATE, config=cpu, busy=0.5),
            "t.2": attempt("a", 20, 60, PACKAGE, BOARD_B, NODE, ESTIMATE, config=cpu, busy=0.6),
        }),
        "77_uncertain": (attempt("a", 0, 60, {**PACKAGE, "sensor_rel": 0.1}, ESTIMATE,
                                 config=reserved), {
            "f.1": attempt("a", 0, 40, {**PACKAGE, "sensor_rel": 0.1}),
            "f.2": attempt("b", 20, 60, vague, ESTIMATE),
        }),
        "78_resumed": (
            [*attempt("a", 0, 30, ended=False, marks=said[:1]),
             *attempt("login", 40, 110, ESTIMATE)],
            {2: {"t.1": attempt("a", 50, 100, marks=[mark(51.0, "resumed", step=4),
                                                     mark(80.5, "epoch", epoch=2)])}},
        ),
        "79_suspended": (login, {
            "f.1": attempt("a", 0, 40, asleep=[(30, 16)]), "f.2": attempt("a", 5, 25)}),
        "80_modules": (login, {
            "t.1": attempt("a", 0, 40, inside, MODULE, ESTIMATE),
            "t.2": attempt("a", 20, 60, inside, MODULE, ESTIMATE, config=cpu, busy=0.5)}),
        "81_factors": (
            attempt("login", 0, 70, ESTIMATE, carbon=None, lines=late),
            {"t.1": attempt("a", 10, 60, carbon=None, lines=[factor(12, 12, 1), *late[1:]],
                            pue={"value": 1.4, "source": "test"}),
             "t.2": attempt("a", 20, 65, carbon=None, lines=[factor(22, 22, 1), *late[1:]])},
        ),
        "82_rebooted": (login, {"t.1": [*attempt("a", 10, 30, ended=False),
                                        *attempt("a", 40, 60, boot="c")]}),
        "83_exclusive_and_shared": (login, {
            "f.1": attempt("a", 0, 40), "f.2": attempt("a", 20, 60, config=cpu, busy=0.5)}),
        "84_reset": (login, {"f.1": attempt("a", 0, 40, cut=22), "f.2": attempt("b", 5, 45, FAST)}),
        "86_forecast": (attempt("login", 0, 140, ESTIMATE), {
            "t.1": attempt("a", 10, 110, PACKAGE, COUNTER, ESTIMATE, marks=list_stretches(10))}),
        "85_unknown": (attempt("login", 0, 30, NONE), {"f.1": attempt("a", 0, 30, NONE),
                                                       "f.2": attempt("b", 0, 30)}),
    }  # fmt: skip
    for _, nodes, *_ in fleets.values():
        for lines in nodes.values():
            for line in lines if isinstance(lines, list) else ():
                if line.get("carbon", 1) is None:
                    del line["carbon"]
    for own, *_ in fleets.values():
        if own[0].get("carbon", 1) is None:
            del own[0]["carbon"]
    return fleets


def write(path, lines):
    """Write a journal: dictionaries as compact JSON, texts as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = [x if isinstance(x, str) else json.dumps(x, separators=(",", ":")) for x in lines]
    path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")


def name_stage(name, lines):
    """Give the heads the stage that the file's name says."""
    for line in lines:
        if isinstance(line, dict) and line["line"] == "head":
            line["stage"], line["name"] = int(name[:2]), name[3:]


def write_journals(folder):
    """Write all journals."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, lines in build_single().items():
        name_stage(name, lines)
        write(folder / f"{name}.journal.jsonl", lines)
    # What the command of a killed meter said last is still in its own file.
    left = [mark(None, "epoch", epoch=1)["said"], mark(None, "epoch", epoch=2)["said"]]
    said = [line["said"] for line in build_single()["17_killed"] if line["line"] == "mark"]
    write(folder / ".17_killed.marks.1.jsonl", [*said, *left])
    for name, (own, nodes, *expected) in build_fleets().items():
        name_stage(name, own)
        write(folder / f"{name}.journal.jsonl", own)
        for number, of_attempt in nodes.items() if 2 in nodes else [(1, nodes)]:
            where = folder / f"{name}.nodes" / str(number)
            for label, lines in of_attempt.items():
                name_stage(name, lines)
                write(where / f"{label}.journal.jsonl", lines)
            write(where / "expected.jsonl", [{"labels": labels} for labels in
                                             (expected or [list(of_attempt)])])  # fmt: skip
    where = folder / "70_missing.nodes" / "1"
    (where / "t.1.node1.journal.jsonl").write_text("half a li")
    with open(where / "t.1.node0.journal.jsonl", "a") as file:
        file.write('{"line":"samp')


def write_sidecars(journals, folder):
    """Let the program of f8b4a44 make the sidecars, and keep them."""
    copy = folder.with_suffix(".tmp")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(journals, copy)
    words = [sys.executable, "-m", "sv.bin.meter", "--rebuild", str(copy)]
    subprocess.run(words, check=True, cwd=os.environ["PYTHONPATH"].split(":")[0])
    folder.mkdir()
    for path in sorted(copy.glob("*.json")):
        text = json.dumps(json.loads(path.read_text()), separators=(",", ":"))
        (folder / path.name).write_text(f"{text}\n", encoding="utf-8")
    shutil.rmtree(copy)


def write_scored(folder):
    """Write embeddings of speakers that are hard to tell apart, trials, and what f8b4a44 scores."""
    shutil.rmtree(folder, ignore_errors=True)
    draw = np.random.default_rng(5)
    for name, speakers, each in (("xvectors", 24, 6), ("cohort", 20, 3)):
        keys, vectors = [], []
        for number in range(speakers):
            speaker = draw.normal(size=8)
            for take in range(each):
                keys.append(f"{name[0]}{number:02d}-{take}")
                vectors.append(speaker + 0.6 * draw.normal(size=8))
        (folder / name).mkdir(parents=True)
        ark = f"tests/net/{folder.name}/{name}/xvector.ark"
        entries = ((k, v.astype("float32")) for k, v in zip(keys, vectors, strict=True))
        write_archive(Path(ark), folder / name / "xvector.scp", entries, method="none")
        info = {"data_set": name, "precision": "fp32", "utterances": len(keys), "device": "cpu"}
        info |= {"frames": 100 * len(keys), "audio_s": 1.0 * len(keys), "untrained": False}
        (folder / name / "info.json").write_text(json.dumps(info))
        table = "".join(f"{key} {key.split('-')[0]}\n" for key in keys)
        (folder / name / "utt2spk").write_text(table)
        if name == "xvectors":
            pairs = [sorted(draw.choice(keys, 2, replace=False)) for _ in range(500)]
            pairs += [(a, b) for a in keys for b in keys if a < b and a[:3] == b[:3]]
            lines = {f"{a} {b} {'target' if a[:3] == b[:3] else 'nontarget'}\n" for a, b in pairs}
            (folder / "list").write_text("".join(sorted(lines)))
    (folder / "score.toml").write_text(
        'backends = ["cosine", "cosine_mean", "as_norm"]\ntop_n = 10\n'
        "bootstrap_replicates = 100\nbootstrap_seed = 3\n"
    )
    for backend in ("cosine", "cosine_mean", "as_norm"):
        out = folder / "scores" / f"list_{backend}"
        out.parent.mkdir(exist_ok=True)
        config = ["--config", folder / "score.toml"]
        run_old("score_trials", "--backend", backend, "--cohort", folder / "cohort", *config,
                folder / "xvectors", folder / "list", out)  # fmt: skip
        run_old("compute_statistics", *config, folder / "list", f"{out}.txt",
                folder / "xvectors" / "utt2spk", f"{out}.json")  # fmt: skip
        done = run_old("compute_metrics", "--calibrated", "true", "--format", "json",
                       folder / "list", f"{out}.txt")  # fmt: skip
        Path(f"{out}.metrics.json").write_text(done)


def write_forecasts(root):
    """Write what the sidecars of forecasts expect."""
    (root / "forecasts").mkdir(exist_ok=True)
    for name in ("53_forecast", "86_forecast"):
        out = root / "forecasts" / f"{name}.json"
        run_old("forecast", root / "sidecars" / f"{name}.json", out)


def run_old(program, *words):
    """Run a program of f8b4a44 and return what it printed."""
    # -P: the working folder holds another commit's sv.
    argv = [sys.executable, "-P", "-m", f"sv.bin.{program}", *map(str, words)]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_tables(root, folder):
    """Write the tables of the two trees that tests make, and of the one in tests/net/recipe."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        build_study(scratch / "study")
        build_tree(scratch / "four")
        shutil.copytree(root / "recipe", scratch / "recipe")
        study = ["--study", os.environ["PYTHONPATH"].split(":")[0] + "/egs/voxceleb/study"]
        options = {"study": study, "four": [], "recipe": []}
        for tree, words in options.items():
            data, exp = scratch / tree / "data", scratch / tree / "exp"
            run_old("make_results", *words, "--inference-sets", "all", data, exp)
            (folder / tree).mkdir(parents=True)
            for path in sorted((exp / "results").glob("*.md")):
                name = path.stem
                # The study's Table 3 has 300 rows of one kind, and the others have it too.
                if name in ("advice", "implied") or (tree, name) == ("study", "table3"):
                    continue
                shutil.copy(path.with_suffix(".csv"), folder / tree)
                lines = path.read_text(encoding="utf-8").splitlines()  # notes below name paths
                rows = "".join(f"{line}\n" for line in lines if line.startswith("|"))
                (folder / tree / path.name).write_text(rows, encoding="utf-8")


if __name__ == "__main__":
    assert MAX_RANGE_UJ  # of the old tests: a clone of another commit may lack it
    root = Path(sys.argv[1]).resolve()
    write_journals(root / "journals")
    write_sidecars(root / "journals", root / "sidecars")
    write_forecasts(root)
    write_scored(root / "scored")
    if (root / "recipe").is_dir():
        write_tables(root, root / "tables")
