"""Sums of channels: what may be added, and which part of it was measured.

A channel that another one contains is never added to it. The total is the machine (``node``)
where that was measured; else the outermost measured channels, with estimates only for what
nothing measured covers. The rest stays in the sidecar as a breakdown.
"""

from typing import Any

from sv.energy.channel_figures import MIN_COVERED

Fields = dict[str, Any]
MEASURED_KINDS = ("measured", "derived")  # derived: the integral of a measured power
# Boundary -> what a measured channel of it makes an estimate of unnecessary.
COVERS = {"node": {"cpu_package", "dram"}, "gpu_module": {"cpu_package"}}


def choose_total(channels: list[Fields]) -> None:
    """Decide what is in the total; what is left out gets the reason.

    Args:
        channels: Of one attempt, with their energies. ``in_total`` and ``reason`` are
            changed in place.
    """
    measured = [ch for ch in channels if ch["kind"] in MEASURED_KINDS]
    for channel in measured:
        if channel["in_total"] and channel["samples"]["covered"] < MIN_COVERED:
            inner = [ch for ch in channels if channel["id"] in ch["contained_in"]]
            if any(ch["energy_j"] is not None for ch in inner):  # else it is all there is
                _leave_out(channel, "too much of the attempt has no reading of it for a total")
    outermost = {channel["id"] for channel in measured if channel["in_total"]}
    for channel in channels:
        outer = next((i for i in channel["contained_in"] if i in outermost), None)
        if channel["in_total"] and outer is not None:
            _leave_out(channel, f"contained in {outer}, which is in the total")
    covered = {channel["boundary"] for channel in measured if channel["in_total"]}
    covered |= {inner for boundary in covered for inner in COVERS.get(boundary, ())}
    for channel in channels:
        boundary = channel["boundary"]
        if channel["kind"] == "estimated" and channel["in_total"] and boundary in covered:
            _leave_out(channel, f"a measured {boundary} channel is in the total")


def _leave_out(channel: Fields, reason: str) -> None:
    channel["in_total"] = False
    channel["reason"] = "; ".join(filter(None, (channel["reason"], reason)))


def list_boundaries(channels: list[Fields]) -> list[str]:
    """List the boundaries of the channels in the total, sorted."""
    return sorted({ch["boundary"] for ch in channels if ch["in_total"]})


def sum_energy(channels: list[Fields]) -> tuple[float | None, float | None, str | None]:
    """Add up the channels that are in the total.

    Returns:
        Joules, the measured part of it (0 to 1), and why either is None or incomplete.
    """
    chosen = [ch for ch in channels if ch["in_total"] and ch["energy_j"] is not None]
    if not chosen:
        return None, None, "no channel has an energy; each has its reason"
    energy_j = sum(channel["energy_j"] for channel in chosen)
    measured_j = sum(ch["energy_j"] for ch in chosen if ch["kind"] in MEASURED_KINDS)
    if energy_j == 0:
        return energy_j, None, "no channel advanced between the first and the last sample"
    return energy_j, measured_j / energy_j, None


def sum_channels(attempts: list[Fields]) -> list[Fields]:
    """Add up the same channels of several attempts.

    Channels are the same if they agree in host, id, kind and in_total; so the sum over those in the
    total is the sum over the attempts. ``raw`` stays only where one attempt has the channel;
    else it is in attempts[].channels.
    """
    groups: dict[tuple[str | None, str, str, bool], list[tuple[int, Fields]]] = {}
    for attempt in attempts:
        for channel in attempt["channels"]:
            key = (channel.get("host"), channel["id"], channel["kind"], channel["in_total"])
            groups.setdefault(key, []).append((attempt["attempt"], channel))
    return [
        {**sum_group([ch for _, ch in group]), "attempts": [number for number, _ in group]}
        for group in groups.values()
    ]


def sum_group(channels: list[Fields]) -> Fields:
    """Add up what several attempts, or several meters, say of one channel."""
    known_j = [channel["energy_j"] for channel in channels if channel["energy_j"] is not None]
    reasons = dict.fromkeys(ch["reason"] for ch in channels if ch["reason"] is not None)
    alone = len(channels) == 1
    return {
        **channels[-1],
        "energy_j": sum(known_j) if known_j else None,
        "u_energy_j": channels[0]["u_energy_j"] if alone else _sum_uncertainties(channels),
        "reason": "; ".join(reasons) or None,
        "raw": channels[0]["raw"] if alone else None,
        "power_w": channels[0]["power_w"] if alone else None,
        "samples": {
            "n": sum(channel["samples"]["n"] for channel in channels),
            "failed": sum(channel["samples"]["failed"] for channel in channels),
            "max_gap_s": _find(max, channels, "max_gap_s"),
            "covered": _find(min, channels, "covered"),
        },
    }


def _find(choose: Any, channels: list[Fields], key: str) -> float | None:
    known = [ch["samples"][key] for ch in channels if ch["samples"][key] is not None]
    return choose(known, default=None)


def _sum_uncertainties(channels: list[Fields]) -> Fields | None:
    parts = [channel["u_energy_j"] for channel in channels if channel["u_energy_j"] is not None]
    if not parts:
        return None
    summed = dict(parts[-1])
    for key in ("edge", "resolution", "gap_fill", "sensor", "total"):
        values = [part[key] for part in parts]
        summed[key] = None if None in values else sum(values)
    reasons = dict.fromkeys(part["reason"] for part in parts if part["reason"])
    return {**summed, "reason": "; ".join(reasons) or None}
