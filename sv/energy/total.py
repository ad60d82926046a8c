"""Sums of channels: what may be added, and which part of it was measured."""

from typing import Any

Fields = dict[str, Any]
MEASURED_KINDS = ("measured", "derived")  # derived: the integral of a measured power


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

    Channels are the same if they agree in id, kind and in_total; so the sum over those in the
    total is the sum over the attempts. ``raw`` stays only where one attempt has the channel;
    else it is in attempts[].channels.
    """
    groups: dict[tuple[str, str, bool], list[tuple[int, Fields]]] = {}
    for attempt in attempts:
        for channel in attempt["channels"]:
            key = (channel["id"], channel["kind"], channel["in_total"])
            groups.setdefault(key, []).append((attempt["attempt"], channel))
    return [_sum_group(group) for group in groups.values()]


def _sum_group(group: list[tuple[int, Fields]]) -> Fields:
    channels = [channel for _, channel in group]
    known_j = [channel["energy_j"] for channel in channels if channel["energy_j"] is not None]
    gaps_s = [gap for ch in channels if (gap := ch["samples"]["max_gap_s"]) is not None]
    reasons = dict.fromkeys(ch["reason"] for ch in channels if ch["reason"] is not None)
    return {
        **channels[-1],
        "energy_j": sum(known_j) if known_j else None,
        "reason": "; ".join(reasons) or None,
        "raw": channels[0]["raw"] if len(channels) == 1 else None,
        "samples": {
            "n": sum(channel["samples"]["n"] for channel in channels),
            "failed": sum(channel["samples"]["failed"] for channel in channels),
            "max_gap_s": max(gaps_s, default=None),
        },
        "attempts": [number for number, _ in group],
    }
