"""The part of a shared machine's energy that is a job's.

Rules (`sv.energy.config.ATTRIBUTIONS`):
- ``exclusive``: all of it. Right where nobody else uses the machine.
- ``cpu_share``: by processor time, job / machine.
- ``ceems``: as CEEMS does. Of the machine's power P without its GPUs: 0.9 P by processor time and,
  where RAPL counts both, by memory, in the proportion of RAPL's package and dram; 0.1 P in equal
  parts for each job. Without a node channel package by processor time, dram by memory. The 90/10
  split is CEEMS's assumption, not a measurement (its recording rules, v0.10, 2025).

GPU boards are the job's own and never shared. An estimate from the job's own processes is its own
already. Shares are taken from one look at the job to the next, because they change.
"""

from array import array
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from sv.energy.samples import AttemptLines
from sv.energy.total import MEASURED_KINDS
from sv.energy.units import s_from_us

Fields = dict[str, Any]
BY_USE, BY_JOBS = 0.9, 0.1  # CEEMS, see above
GPU = ("gpu_board", "gpu_module")
TOO_FEW_LOOKS = "fewer than two looks at the use of the machine"


def attribute(
    channels: list[Fields], so_far: Mapping[str, array], lines: AttemptLines
) -> tuple[array, array | None, Fields]:
    """Give a machine's energy and the job's part of it, sample by sample.

    Args:
        channels: Of the attempt, with their place in the total.
        so_far: Channel -> joules so far at each sample.
        lines: The attempt: its config has the rule, its samples the usage.

    Returns:
        Joules of the machine so far; of the job so far (None: not known); and the sidecar's
        ``attribution``: the rule, its inputs and why there is no figure.
    """
    config = lines.head.get("config") or {}
    rule, jobs = config.get("attribution", "exclusive"), config.get("jobs_on_node", 1)
    roles = sort_channels(channels, {ch["id"] for ch in lines.head["channels"] if ch["in_total"]})
    node_j = _add([ch["id"] for ch in channels if ch["in_total"]], so_far)
    looks = list_looks(lines)
    found = {"rule": rule, "inputs": sum_inputs(looks, jobs), "reason": None}
    if rule == "exclusive" or not node_j:
        return node_j, node_j, found
    if len(looks) < 2:
        return node_j, None, {**found, "reason": TOO_FEW_LOOKS}
    ratios = []
    for (a, before), (b, now) in pairwise(looks):
        parts = {
            role: sum(so_far[name][b] - so_far[name][a] for name in names)
            for role, names in roles.items()
        }
        whole_j = node_j[b] - node_j[a]
        job_part_j = share(rule, parts, compare_looks(before, now), jobs)
        ratios.append(job_part_j / whole_j if whole_j > 0 else 0.0)
    job_j, window = array("d", [0.0]), 0
    for i in range(1, len(node_j)):
        # Before the first and after the last look (a full disk, a killed meter): as beside it.
        while window < len(ratios) - 1 and i > looks[window + 1][0]:
            window += 1
        job_j.append(job_j[-1] + ratios[window] * (node_j[i] - node_j[i - 1]))
    return node_j, job_j, found


def list_looks(lines: AttemptLines) -> list[tuple[int, Fields]]:
    """Give what job and machine had used, by the sample at which it was read; none half read."""
    specs = lines.head["channels"]
    cpu_time = next((spec["id"] for spec in specs if spec["method"] == "cpu_time_x_power"), None)
    looks = [(i, {**use, "job_cpu_us": lines.get(cpu_time, i)}) for i, use in lines.usage.items()]
    return [(i, use) for i, use in looks if None not in use.values()]


def sort_channels(channels: list[Fields], summable: set[str]) -> dict[str, list[str]]:
    """Sort the channels of the total and those inside it by how the rules treat them."""
    roles: dict[str, list[str]] = {
        role: [] for role in ("node", "gpu_inside", "gpu", "cpu", "dram", "own")
    }
    by_node = any(ch["boundary"] == "node" and ch["in_total"] for ch in channels)
    for channel in channels:
        boundary, name = channel["boundary"], channel["id"]
        if channel["energy_j"] is None or not (channel["in_total"] or by_node):
            continue
        if channel["kind"] not in MEASURED_KINDS:
            if channel["in_total"]:
                roles["own"].append(name)
        elif channel["in_total"] and boundary in GPU:
            roles["gpu"].append(name)
        elif name not in summable:
            continue  # a cross-check
        elif boundary in GPU and not _is_inside_gpu(channel, channels):
            roles["gpu_inside"].append(name)
        elif boundary == "node" and channel["in_total"]:
            roles["node"].append(name)
        elif boundary in ("cpu_package", "dram"):
            roles["cpu" if boundary == "cpu_package" else "dram"].append(name)
    return roles


def _is_inside_gpu(channel: Fields, channels: list[Fields]) -> bool:
    return any(ch["id"] in channel["contained_in"] and ch["boundary"] in GPU for ch in channels)


def share(rule: str, parts: Mapping[str, float], use: Mapping[str, float], jobs: int) -> float:
    """Give the job's joules of a window.

    Args:
        rule: cpu_share or ceems.
        parts: Role (`sort_channels`) -> joules.
        use: ``cpu`` and ``memory``: the job's part of what the machine used, 0 to 1.
        jobs: Jobs on the machine.
    """
    cpu, memory = use["cpu"], use["memory"]
    own_j = parts["gpu"] + parts["own"]
    if parts["node"] <= 0:
        by_memory = memory if rule == "ceems" else cpu
        return own_j + parts["cpu"] * cpu + parts["dram"] * by_memory
    host_j = max(0.0, parts["node"] - parts["gpu_inside"])
    own_j += parts["gpu_inside"]
    if rule == "cpu_share":
        return own_j + host_j * cpu
    return own_j + host_j * weigh_use(parts["cpu"], parts["dram"], use, jobs)


def weigh_use(cpu_j: float, dram_j: float, use: Mapping[str, float], jobs: int) -> float:
    """Give the part of a machine without its GPUs that CEEMS's rule gives to a job."""
    used = use["cpu"]
    if cpu_j > 0 and dram_j > 0:
        by_cpu = cpu_j / (cpu_j + dram_j)
        used = by_cpu * use["cpu"] + (1 - by_cpu) * use["memory"]
    return BY_USE * used + BY_JOBS / jobs


def compare_looks(before: Fields, now: Fields) -> dict[str, float]:
    """Give the job's part of processor time and of memory between two looks, 0 to 1."""
    job = now["job_cpu_us"] - before["job_cpu_us"]
    node = now["node_cpu_us"] - before["node_cpu_us"]
    held = before.get("job_bytes", 0) + now.get("job_bytes", 0)
    node_held = before.get("node_bytes", 0) + now.get("node_bytes", 0)
    # Ticks of 10 ms, and memory that several processes share, can make a part of more than 1.
    return {
        "cpu": min(1.0, job / node) if node > 0 else 0.0,
        "memory": min(1.0, held / node_held) if node_held > 0 else 0.0,
    }


def sum_inputs(looks: list[tuple[int, Fields]], jobs: int) -> Fields:
    """Give the sidecar's ``attribution.inputs`` from the looks of an attempt."""
    if len(looks) < 2:
        return {"jobs_on_node": jobs}
    first, last = looks[0][1], looks[-1][1]
    inputs: Fields = {
        "cpu_s_job": s_from_us(last["job_cpu_us"] - first["job_cpu_us"]),
        "cpu_s_node": s_from_us(last["node_cpu_us"] - first["node_cpu_us"]),
        "jobs_on_node": jobs,
        "looks": len(looks),
    }
    for key in ("job_bytes", "node_bytes"):
        held = [use[key] for _, use in looks if key in use]
        if held:
            inputs[f"mean_{key}"] = round(sum(held) / len(held))
    return inputs


def _add(names: list[str], so_far: Mapping[str, array]) -> array:
    known = [so_far[name] for name in names if len(so_far[name])]
    if not known:
        return array("d")
    return array("d", (sum(values) for values in zip(*known, strict=True)))


def join_attributions(attempts: list[Fields]) -> Fields:
    """Join the attributions of a run's attempts; processor time is added up.

    Returns:
        As of one attempt; the rule is ``mixed`` where they differ.
    """
    found = [attempt["attribution"] for attempt in attempts]
    if len(found) == 1:
        return found[0]
    rules = {one["rule"] for one in found}
    inputs = dict(found[-1]["inputs"])
    for key in ("cpu_s_job", "cpu_s_node", "looks"):
        values = [one["inputs"][key] for one in found if key in one["inputs"]]
        if values:
            inputs[key] = sum(values)
    reasons = dict.fromkeys(one["reason"] for one in found if one["reason"])
    rule = rules.pop() if len(rules) == 1 else "mixed"
    return {"rule": rule, "inputs": inputs, "reason": "; ".join(reasons) or None}
