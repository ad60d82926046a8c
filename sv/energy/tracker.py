"""The figures of a running stage, sample by sample, by the same rules as the sidecar.

They are provisional: the sidecar is computed anew from the journal. The meter loads this module
once its command runs, so that no command waits for it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sv.energy.attribution import (
    claim_parts,
    compare_looks,
    find_cpu_time,
    share,
    sort_channels,
)
from sv.energy.channels import HELD_PERIODS, add_figures, describe_channel
from sv.energy.factors import compute_co2_g
from sv.energy.journal import Record
from sv.energy.record import Channel, Samples
from sv.energy.samples import Accumulator, Reading, is_possible
from sv.energy.units import kwh_from_j
from sv.energy.witnesses import (
    choose_total,
    compare_boards,
    count_measured,
    drop_copies,
    sum_energy,
)


class Tracker:
    """Adds up an attempt of one meter while it runs.

    After the last look at the use of a shared machine the job has the same part of the machine's
    energy as in the last window between two looks.

    Args:
        head: The attempt's first line in the journal.
    """

    def __init__(self, head: Record) -> None:
        absent = [spec for spec in head["channels"] if spec["kind"] == "unavailable"]
        self._absent = [describe_channel(spec) for spec in absent]
        self._specs = [spec for spec in head["channels"] if spec["kind"] != "unavailable"]
        self._totals = {
            spec["id"]: Accumulator(spec, max(head["period_s"], spec["update_period_s"] or 0.0))
            for spec in self._specs
        }
        self._cpu_time = find_cpu_time(self._specs)
        self._rule = head["config"]["attribution"]
        self._jobs = head["config"]["jobs_on_node"]
        self._pue = head["pue"]["value"]
        self._period_s = head["period_s"]
        self._start_s: float | None = None
        self._now_s = 0.0
        self._look: tuple[Record, dict[str, float], float] | None = None  # usage, J, job's J
        self._ratio: float | None = 1.0 if self._rule == "exclusive" else None
        self._g_per_kwh: float | None = None
        self._co2_g = 0.0
        self._priced_j = 0.0  # what co2_g is of

    def take(self, line: Record) -> None:
        """Take the next line, as `sv.energy.journal.read_journal` returns it."""
        if line["line"] == "sample":
            self._add(line)
        elif line["line"] == "factor":
            self._price()  # what came before it has the factor before, if there was one
            g_per_kwh = line["factor"]["g_per_kwh"]
            self._g_per_kwh = self._g_per_kwh if g_per_kwh is None else g_per_kwh

    def _add(self, line: Record) -> None:
        self._now_s = line["t_s"]
        if self._start_s is None:
            self._start_s = self._now_s
        for spec in self._specs:
            value = line["raw"].get(spec["id"])
            if value is not None and is_possible(spec, value):
                self._totals[spec["id"]].add(Reading(self._now_s, line["awake_s"], value))
        if "usage" in line and self._rule != "exclusive":
            usage = {**line["usage"], "job_cpu_us": line["raw"].get(self._cpu_time)}
            if None not in usage.values():
                self._look_at(usage)

    def _look_at(self, usage: Record) -> None:
        """Share what was used since the last look by what job and machine have used."""
        listed = self._list_channels()
        channels = choose_total(listed)
        so_far = {name: total.energy_j for name, total in self._totals.items()}
        if self._look is None:
            self._look = (usage, so_far, 0.0)
            return
        before, then, job_j = self._look
        summable = {channel.id for channel in compare_boards(listed) if channel.in_total}
        used_j = {
            role: sum(so_far[name] - then[name] for name in names)
            for role, names in sort_channels(channels, summable).items()
        }
        use = compare_looks(before, usage)
        claim = claim_parts(self._rule, use, used_j["cpu"], used_j["dram"], self._jobs)
        part_j = sum(share(used_j, claim).values())
        whole_j = self._sum_since(channels, then)
        self._ratio = part_j / whole_j if whole_j > 0 else 0.0
        self._look = (usage, so_far, job_j + part_j)

    def get_powers_w(self) -> dict[str, float | None]:
        """Return the highest power seen of each channel; None where none is known yet."""
        return {name: total.max_w for name, total in self._totals.items()}

    def summarise(self) -> dict[str, Any]:
        """Return time, power, energy and carbon so far; None for what is not known (yet)."""
        channels = self._build_channels()
        energy_j = self._compute_energy_j(channels)
        measured_j = None if energy_j is None else count_measured(channels, energy_j)
        self._price()
        powers = [self._totals[channel.id].last_w for channel in channels if channel.in_total]
        known = [power for power in powers if power is not None]
        return {
            "elapsed_s": 0.0 if self._start_s is None else self._now_s - self._start_s,
            "power_w": sum(known) * self._ratio if known and self._ratio is not None else None,
            "energy_kwh": None if energy_j is None else kwh_from_j(energy_j),
            "measured_fraction": measured_j / energy_j if energy_j else None,
            "co2_g": self._co2_g if self._g_per_kwh is not None and energy_j is not None else None,
        }

    def _compute_energy_j(self, channels: list[Channel]) -> float | None:
        node_j = sum_energy(channels)[0]
        if node_j is None or self._ratio is None:
            return None
        if self._look is None:
            return node_j * self._ratio
        _, then, job_j = self._look
        return job_j + self._ratio * self._sum_since(channels, then)

    def _sum_since(self, channels: list[Channel], then: Mapping[str, float]) -> float:
        before_j = sum(then[channel.id] for channel in channels if channel.in_total)
        return (sum_energy(channels)[0] or 0.0) - before_j

    def _price(self) -> None:
        if self._g_per_kwh is None:
            return  # the first factor is also that of the time before it
        energy_j = self._compute_energy_j(self._build_channels()) or 0.0
        kwh = kwh_from_j(energy_j - self._priced_j)
        self._co2_g += compute_co2_g(kwh, self._pue, self._g_per_kwh) or 0.0
        self._priced_j = energy_j

    def _build_channels(self) -> list[Channel]:
        return choose_total(self._list_channels())

    def _list_channels(self) -> list[Channel]:
        channels: list[Channel] = []
        for spec in self._specs:
            channel, total = describe_channel(spec), self._totals[spec["id"]]
            start_s, end_s = self._start_s or 0.0, self._now_s
            if total.first and total.last:  # a slow sensor's next reading may be on its way
                held_s = HELD_PERIODS * max(self._period_s, spec["update_period_s"] or 0.0)
                start_s = total.first.t_s if total.first.t_s - start_s <= held_s else start_s
                end_s = total.last.t_s if end_s - total.last.t_s <= held_s else end_s
            channel = replace(channel, samples=Samples(total.n, 0, None, None))
            channels.append(add_figures(channel, spec, total, (start_s, end_s)))
        return drop_copies([*channels, *self._absent])
