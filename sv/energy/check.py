"""Check that the figures of sidecars can be computed again and contradict nothing.

The JSON Schema (docs/energy-sidecar.schema.json) is checked by the program, sv.bin.meter --check.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sv.energy.journal import SUFFIX, read_journal
from sv.energy.sidecar import find_run, read_nodes, rebuild, sum_known
from sv.energy.total import MEASURED_KINDS
from sv.energy.units import UNITS_PER_J, j_from_count, j_from_kwh, s_from_us
from sv.errors import SvError

Fields = dict[str, Any]
SAME = 1e-9  # relative: the same sum in another order
MAX_LISTED = 5  # differences from the journal: one wrong figure changes many


def check_sidecar(path: Path, sidecar: Fields) -> list[str]:
    """Check one sidecar.

    Args:
        path: The file; its journal lies beside it.
        sidecar: Its content, valid by the schema.

    Returns:
        What is wrong, one line each, beginning with where in the sidecar; empty: nothing.
    """
    wrong = _check_journal(path, sidecar)
    for attempt in sidecar["attempts"]:
        where = f"attempts[{attempt['attempt'] - 1}]"
        for i, channel in enumerate(attempt["channels"]):
            wrong += _check_channel(channel, f"{where}.channels[{i}] ({channel['id']})")
        wrong += _check_sums(attempt, where)
        if "nodes" in attempt:
            nodes_kwh = sum_known(attempt["nodes"], "energy_kwh")
            wrong += _compare(attempt["energy_kwh"], nodes_kwh, f"{where}.energy_kwh", "its nodes")
    wrong += _check_sums(sidecar, "")
    attempts = sidecar["attempts"]
    run = attempts[find_run(attempts) :]
    for key, chosen in (("energy_kwh", run), ("energy_node_kwh", run)):
        wrong += _compare(sidecar[key], sum_known(chosen, key), key, "the run's attempts")
    all_kwh = sum_known(attempts, "energy_kwh")
    return wrong + _compare(sidecar["energy_all_kwh"], all_kwh, "energy_all_kwh", "all attempts")


def _check_journal(path: Path, sidecar: Fields) -> list[str]:
    journal = path.with_name(path.stem + SUFFIX)
    if not journal.is_file():
        return [f"no journal {journal.name} beside it: nothing can be computed again"]
    try:
        again = rebuild(read_journal(journal), read_nodes(journal))
    except SvError as error:
        return [f"{journal.name}: {error}"]
    found = find_differences(sidecar, again, "")
    if len(found) > MAX_LISTED:
        found = [*found[:MAX_LISTED], f"and {len(found) - MAX_LISTED} more differences"]
    return [f"{line} (journal)" for line in found]


def find_differences(ours: Any, again: Any, where: str) -> list[str]:
    """List where two values of JSON differ; numbers that agree to `SAME` do not."""
    if isinstance(ours, dict) and isinstance(again, dict):
        found = []
        for key in sorted(ours.keys() | again.keys()):
            place = f"{where}.{key}" if where else key
            if key not in ours or key not in again:
                found.append(f"{place}: {'not' if key not in ours else 'only'} in the sidecar")
            else:
                found += find_differences(ours[key], again[key], place)
        return found
    if isinstance(ours, list) and isinstance(again, list | tuple) and len(ours) == len(again):
        pairs = enumerate(zip(ours, again, strict=True))
        return [line for i, (a, b) in pairs for line in find_differences(a, b, f"{where}[{i}]")]
    if _is_number(ours) and _is_number(again):
        return [] if is_same(ours, again) else [f"{where}: {ours} in the sidecar, {again} computed"]
    same = ours == again or (isinstance(ours, list) and ours == list(again or ()))
    return [] if same else [f"{where}: {ours!r} in the sidecar, {again!r} computed"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_same(a: float, b: float) -> bool:
    """Tell whether two sums are the same but for rounding."""
    return math.isclose(a, b, rel_tol=SAME, abs_tol=1e-12)


def _compare(said: float | None, summed: float | None, where: str, of: str) -> list[str]:
    if said is None and summed is None:
        return []
    if said is None or summed is None or not is_same(said, summed):
        return [f"{where}: is {said}, the sum over {of} is {summed}"]
    return []


def _check_channel(channel: Fields, where: str) -> list[str]:
    wrong = []
    raw, energy_j = channel["raw"], channel["energy_j"]
    if channel["kind"] == "unavailable":
        return [] if energy_j is None else [f"{where}: unavailable, but has an energy"]
    if energy_j is not None and raw is None and "host" in channel:
        return []  # joined from several meters: only their journals can be computed again
    if energy_j is None or raw is None:
        return [f"{where}: {channel['kind']}, but has no energy or no raw readings"]
    advance = raw["last"] - raw["first"] + raw["wraps"] * (raw["max_range"] or 0)
    by_hand_j = None
    if channel["method"] == "counter_delta" and raw["resets"] == 0:
        by_hand_j = j_from_count(advance, raw["unit"])
    elif channel["method"] == "cpu_time_x_power":
        by_hand_j = s_from_us(advance) * channel["power_w_per_core"]
    if by_hand_j is not None and not is_same(energy_j, by_hand_j):
        wrong.append(f"{where}: energy_j is {energy_j}, its raw readings give {by_hand_j}")
    power_w, gap_s = channel["power_w"]["max"], channel["samples"]["max_gap_s"]
    if channel["method"] == "counter_delta" and raw["max_range"] and power_w and gap_s:
        half_wrap_s = raw["max_range"] / UNITS_PER_J[raw["unit"]] / power_w / 2
        if gap_s > half_wrap_s and "may hide a wrap" not in (channel["reason"] or ""):
            wrong.append(
                f"{where}: {gap_s:.0f} s without a reading, half a wrap takes {half_wrap_s:.0f} s"
            )
    return wrong


def _check_sums(figures: Fields, where: str) -> list[str]:
    """Check an attempt's or a whole sidecar's total, its boundary and its carbon."""
    dot = f"{where}." if where else ""
    total = {(ch.get("host"), ch["id"]): ch for ch in figures["channels"] if ch["in_total"]}
    wrong = []
    for (host, name), channel in total.items():
        # Only of one attempt: another one may have chosen another total.
        outers = channel["contained_in"] if where else []
        inside = [outer for outer in outers if (host, outer) in total]
        if inside:
            wrong.append(f"{dot}channels: {name} is summed, and so is {inside[0]}, which has it in")
    known_j = [ch["energy_j"] for ch in figures["channels"] if ch["in_total"]]
    known_j = [energy_j for energy_j in known_j if energy_j is not None]
    node_kwh = figures["energy_node_kwh"]
    node_j = None if node_kwh is None else j_from_kwh(node_kwh)
    summed_j = sum(known_j) if known_j else None
    wrong += _compare(node_j, summed_j, f"{dot}energy_node_kwh (in J)", "the channels in the total")
    if figures["attribution"]["rule"] == "exclusive":
        wrong += _compare(
            figures["energy_kwh"], node_kwh, f"{dot}energy_kwh", "the machine (rule exclusive)"
        )
    intervals = figures["carbon"]["intervals"]
    if figures["co2_g"] is not None and figures["energy_kwh"] is not None and where:
        carbon_j = sum(interval["energy_j"] for interval in intervals)
        energy_j = j_from_kwh(figures["energy_kwh"])
        if not math.isclose(carbon_j, energy_j, rel_tol=1e-6, abs_tol=1e-9):
            wrong.append(f"{dot}carbon.intervals: sum to {carbon_j} J, the energy is {energy_j} J")
    return wrong


def check_overlaps(sidecars: Sequence[tuple[Path, Fields]]) -> list[tuple[Path, str]]:
    """Find energy that two sidecars count: the same host, boot, channel and time.

    An estimate from the command's own processes overlaps with nobody else's, and a job's part of
    a shared machine is meant to be counted beside the other parts.
    """
    spans = [
        (path, span)
        for path, sidecar in sidecars
        for attempt in sidecar["attempts"]
        for span in _list_spans(attempt)
    ]
    wrong = []
    for (path, one), (other_path, other) in combinations(spans, 2):
        if one.machine != other.machine or (path == other_path and one.attempt == other.attempt):
            continue
        start_s = max(one.boot_s[0], other.boot_s[0])
        end_s = min(one.boot_s[1], other.boot_s[1])
        both = sorted(one.counted & other.counted)
        if both and end_s > start_s:
            wrong.append(
                (
                    other_path,
                    f"{other.place}: {', '.join(both)} of {end_s - start_s:.1f} s are also in "
                    f"{path}, {one.place}",
                )
            )
    return wrong


@dataclass(frozen=True)
class Span:
    """What a meter counted in whole: where it is said, of which machine, when, which channels."""

    attempt: int
    place: str
    machine: tuple[str, str]
    boot_s: tuple[float, float]
    counted: set[str]


def _list_spans(attempt: Fields) -> list[Span]:
    place = f"attempts[{attempt['attempt'] - 1}]"
    if "nodes" not in attempt:
        if attempt["attribution"]["rule"] != "exclusive":
            return []
        machine = (attempt["host"], attempt["boot_id"])
        counted = _list_counted(attempt)
        return [Span(attempt["attempt"], place, machine, attempt["boot_s"], counted)]
    return [
        Span(
            attempt["attempt"],
            f"{place}.nodes[{i}]",
            (node["host"], node["boot_id"]),
            node["boot_s"],
            set(node["channels"]),
        )
        for i, node in enumerate(attempt["nodes"])
        if node["rule"] == "exclusive"
    ]


def _list_counted(attempt: Fields) -> set[str]:
    return {
        channel["id"]
        for channel in attempt["channels"]
        if channel["in_total"] and channel["kind"] in MEASURED_KINDS
    }
