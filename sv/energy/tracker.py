"""The figures of the attempt that is running, sample by sample, for the live view.

They are provisional: the sidecar is computed anew from the journal, by the same rules.
"""

from typing import Any

from sv.energy.attribution import compare_looks, share, sort_channels
from sv.energy.carbon import CarbonFactor, compute_co2_g
from sv.energy.counter import Accumulator, Reading
from sv.energy.journal import Record
from sv.energy.total import choose_total, sum_energy
from sv.energy.units import kwh_from_j

Fields = dict[str, Any]


class Tracker:
    """Adds up an attempt while it runs.

    Args:
        head: The attempt's first line in the journal.
    """

    def __init__(self, head: Record) -> None:
        self._specs = [spec for spec in head["channels"] if spec["kind"] != "unavailable"]
        self._totals = {spec["id"]: Accumulator(spec, head["period_s"]) for spec in self._specs}
        self._rule = head["config"]["attribution"]
        self._jobs = head["config"]["jobs_on_node"]
        self._pue = head["pue"]["value"]
        self._start_s: float | None = None
        self._now_s = 0.0
        self._look: tuple[Record, dict[str, float], float] | None = None  # usage, J, job's J
        self._ratio: float | None = 1.0 if self._rule == "exclusive" else None
        self._factor: CarbonFactor | None = None
        self._co2_g = 0.0
        self._priced_j = 0.0  # what co2_g is of

    def add(self, t_s: float, awake_s: float, raw: dict[str, int | None]) -> None:
        """Take the readings of a sample."""
        if self._start_s is None:
            self._start_s = t_s
        self._now_s = t_s
        for channel_id, total in self._totals.items():
            value = raw.get(channel_id)
            if value is not None:
                total.add(Reading(t_s, awake_s, value))

    def look(self, usage: Record) -> None:
        """Take what job and machine have used, after `add` of the same sample."""
        if self._rule == "exclusive" or None in usage.values():
            return
        channels = self._build_channels()
        so_far = {name: total.energy_j for name, total in self._totals.items()}
        node_j = sum_energy(channels)[0] or 0.0
        if self._look is None:
            self._look = (usage, so_far, 0.0)
            return
        before, then, job_j = self._look
        summable = {spec["id"] for spec in self._specs if spec["in_total"]}
        parts = {
            role: sum(so_far[name] - then[name] for name in names)
            for role, names in sort_channels(channels, summable).items()
        }
        part_j = share(self._rule, parts, compare_looks(before, usage), self._jobs)
        whole_j = node_j - sum(then[ch["id"]] for ch in channels if ch["in_total"])
        self._ratio = part_j / whole_j if whole_j > 0 else 0.0
        self._look = (usage, so_far, job_j + part_j)

    def set_factor(self, factor: CarbonFactor) -> None:
        """Take a carbon factor: what came before it has the one before, if there was one."""
        self._price()
        if factor.g_per_kwh is not None:
            self._factor = factor

    def get_powers_w(self) -> dict[str, float | None]:
        """Give the highest power seen of each channel; None where none is known yet."""
        return {name: total.max_w for name, total in self._totals.items()}

    def summarise(self) -> Fields:
        """Give time, power, energy and carbon so far; None for what is not known (yet)."""
        channels = self._build_channels()
        measured_fraction = sum_energy(channels)[1]
        energy_j = self._compute_energy_j(channels)
        self._price()
        powers = [self._totals[ch["id"]].last_w for ch in channels if ch["in_total"]]
        known = [power for power in powers if power is not None]
        return {
            "elapsed_s": 0.0 if self._start_s is None else self._now_s - self._start_s,
            "power_w": sum(known) * self._ratio if known and self._ratio is not None else None,
            "energy_kwh": None if energy_j is None else kwh_from_j(energy_j),
            "measured_fraction": measured_fraction,
            "co2_g": self._co2_g if self._factor is not None and energy_j is not None else None,
        }

    def _compute_energy_j(self, channels: list[Fields]) -> float | None:
        node_j = sum_energy(channels)[0]
        if node_j is None or self._ratio is None:
            return None
        if self._look is None:
            return node_j * self._ratio
        _, then, job_j = self._look
        since_j = node_j - sum(then[ch["id"]] for ch in channels if ch["in_total"])
        return job_j + self._ratio * since_j

    def _price(self) -> None:
        if self._factor is None:
            return  # the first factor is also that of the time before it
        energy_j = self._compute_energy_j(self._build_channels()) or 0.0
        kwh = kwh_from_j(energy_j - self._priced_j)
        self._co2_g += compute_co2_g(kwh, self._pue, self._factor.g_per_kwh) or 0.0
        self._priced_j = energy_j

    def _build_channels(self) -> list[Fields]:
        channels = []
        for spec in self._specs:
            total = self._totals[spec["id"]]
            known = total.first is not None and total.last is not None and total.n > 1
            span_s = self._now_s - (self._start_s or 0.0)
            covered = 1.0
            if known and span_s > 0:
                slow_s = spec["update_period_s"] or 0.0
                covered = (total.last.t_s - total.first.t_s + 2 * slow_s) / span_s  # type: ignore
            channels.append(
                {
                    **spec,
                    "contained_in": list(spec["contained_in"]),
                    "kind": spec["kind"] if known else "unavailable",
                    "in_total": spec["in_total"] and known,
                    "energy_j": total.energy_j if known else None,
                    "samples": {"covered": covered},
                }
            )
        choose_total(channels)
        return channels
