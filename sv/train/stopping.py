"""Why a training may end before its last epoch: a signal, an energy budget, a bound on its steps.

A signal and the budget are looked at between two micro-batches: the half-made batch is dropped, and
the checkpoint is of the step before. Several processes agree at each look on what each of them
wanted at the look before, on the host alone. The energy is that of the running attempt, read from
the live figures of its meter.
"""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sv.energy.units import j_from_kwh, kwh_from_j
from sv.errors import UsageError
from sv.train.group import Group

READ_S = 1.0  # the meter samples about once a second; read more often it says the same
FIRST_S = 10.0  # a meter without a figure after this time has no sensor
STALE_S = 60.0  # a meter without a new figure for this long no longer runs


@dataclass(frozen=True)
class Energy:
    """Energy since the attempt began; ``elapsed_s`` is the time of the meter's sample."""

    energy_j: float
    measured_j: float  # the part that is not estimated
    elapsed_s: float


class EnergyReader:
    """Reads the meter's live figures, at most once a second.

    Args:
        read_live: Returns the figures as a mapping, or None if there are none yet; None without
            a meter.
    """

    def __init__(self, read_live: Callable[[], Mapping[str, Any] | None] | None) -> None:
        self._read_live = read_live or (lambda: None)
        self.has_meter = read_live is not None
        self._last: Energy | None = None
        self._read_at: float | None = None

    def read(self) -> Energy | None:
        """Return the energy so far; None if it is not known."""
        now = time.monotonic()
        if self._read_at is not None and now - self._read_at < READ_S:
            return self._last
        self._read_at, self._last, live = now, None, self._read_live() or {}
        kwh, elapsed_s = live.get("energy_kwh"), live.get("elapsed_s")
        if kwh is not None and elapsed_s is not None:
            energy_j = j_from_kwh(kwh)
            measured_j = energy_j * (live.get("measured_fraction") or 0.0)
            self._last = Energy(energy_j, measured_j, elapsed_s)
        return self._last


@dataclass(unsafe_hash=True)
class Stop(Exception):  # noqa: N818 - not an error, a request
    """Raised between two micro-batches or utterances: the reason, its exit status, how to continue.

    ``budget_kwh`` is the budget that was used up, None where that is not the reason.
    """

    reason: str
    status: int
    advice: str = "the same command resumes from there"
    budget_kwh: float | None = None


class StopConditions:
    """What ends a training early.

    Args:
        read_live: See `EnergyReader`.
        max_kwh: Energy of the attempt at which to end; None: no budget.
        max_steps: Steps of this run after which to end; None: no bound.
    """

    def __init__(
        self,
        read_live: Callable[[], Mapping[str, Any] | None] | None = None,
        *,
        max_kwh: float | None = None,
        max_steps: int | None = None,
    ) -> None:
        self.energy, self._max_kwh, self.max_steps = EnergyReader(read_live), max_kwh, max_steps
        self._signal: signal.Signals | None = None
        self._elapsed_s, self._changed_at = -1.0, 0.0  # the newest sample, and when it was read
        self._over: Stop | None = None  # the budget is used up
        self._vote: Callable[[], int] | None = None  # of all processes, at the last look
        self._looked_s = 0.0
        self.longest_s = 0.0  # between two looks

    def request_stop(self, number: int, frame: object = None) -> None:
        """Request a stop at the next checkpoint; a signal handler."""
        self._signal = signal.Signals(number)

    @property
    def signal_status(self) -> int:
        """The exit status of the signal that requested a stop, 0: none did."""
        return 128 + self._signal if self._signal is not None else 0

    def require_energy(self) -> None:
        """Check that a budget can be kept, before anything is computed.

        Raises:
            UsageError: There is a budget and the energy is not known.
        """
        if self._max_kwh is None:
            return
        deadline = time.monotonic() + (FIRST_S if self.energy.has_meter else 0)
        while self.energy.read() is None and time.monotonic() < deadline:
            if self.signal_status:
                return  # it ends anyway
            time.sleep(0.1)
        if self.energy.read() is None:
            raise UsageError(
                "--max-kwh: no meter reports the energy of this training, so no budget can be "
                "kept; run it through run.sh or utils/meter.sh with a sensor or an estimate "
                "switched on"
            )
        self._changed_at = time.monotonic()

    def find_status(self) -> int:
        """Return the exit status with which this process requests a stop, 0: it does not."""
        if self._max_kwh is not None and self._over is None:
            self._over = self._check_energy(self._max_kwh)
        return self.signal_status or (self._over.status if self._over else 0)

    def begin(self) -> None:
        """Begin to look, after other work."""
        self._vote, self._looked_s = None, time.monotonic()

    def look(self, group: Group) -> None:
        """Stop, if it is time, between two micro-batches; a collective call.

        One process stops at once. Of several none waits for what the others want now: they agree
        on the votes of the look before, which have arrived meanwhile.

        Raises:
            Stop: It is time.
        """
        now = time.monotonic()
        self.longest_s, self._looked_s = max(self.longest_s, now - self._looked_s), now
        vote, self._vote = self._vote, group.vote(self.find_status())
        if group.size == 1:
            vote = self._vote
        if vote is not None and (status := vote()):
            raise self.explain(status)

    def check_steps(self, steps: int) -> None:
        """Stop after the bound of ``steps`` steps of this run.

        Raises:
            Stop: It is reached.
        """
        if self.max_steps is not None and steps >= self.max_steps:
            raise Stop(f"stopped after {steps} steps (--max-steps)", 0)

    def explain(self, status: int) -> Stop:
        """Return the reason for a stop with this status, which may be another process's."""
        if status > 128:  # noqa: PLR2004 - a shell's status of a signal begins there
            return Stop(f"stopped by {signal.Signals(status - 128).name}", status)
        return self._over or Stop("stopped by the first process", status)

    def _check_energy(self, max_kwh: float) -> Stop | None:
        energy, now = self.energy.read(), time.monotonic()
        limit = f"(--max-kwh {max_kwh:g})"
        if energy is not None and energy.elapsed_s != self._elapsed_s:
            self._elapsed_s, self._changed_at = energy.elapsed_s, now
        if energy is not None and (kwh := kwh_from_j(energy.energy_j)) >= max_kwh:
            return Stop(
                f"stopped at the budget: {kwh:.4g} kWh in this attempt {limit}",
                1,
                "rerun the same command to resume, with a higher --max-kwh to get further",
                max_kwh,
            )
        if now - self._changed_at > STALE_S:
            return Stop(
                f"stopped: no energy from the meter for {STALE_S:.0f} s {limit}",
                1,
                "look at the meter's messages, then rerun the same command to resume",
            )
        return None
