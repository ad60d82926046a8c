"""Why a training may end before its last epoch: a signal, a budget, a bound on its steps.

All three are looked at between two steps, so that a checkpoint can be saved first. Of several
processes each votes with its results of a step, and all end after the same one.
"""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sv.errors import UsageError
from sv.train.gauge import EnergyGauge

FIRST_S = 10.0  # a meter has said something by then, or nothing will come
STALE_S = 60.0  # a meter that has said nothing new for so long is not there any more


# Exit statuses with which a process may wish to end; the first that has a vote counts.
STATUSES = (128 + signal.SIGTERM, 128 + signal.SIGINT, 1)


@dataclass(frozen=True)
class Stop:
    """The reason in words, the exit status that goes with it, and how to go on."""

    reason: str
    status: int
    advice: str = "the same command goes on from there"


class TrainingStopped(Exception):  # noqa: N818 - no error, a request
    """Raised between two steps or utterances; carries a `Stop`."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


def vote(status: int) -> list[float]:
    """Give a process's votes, one for each of `STATUSES`; none if ``status`` is 0."""
    return [float(status == known) for known in STATUSES]


def count_votes(votes: Sequence[float]) -> int:
    """Give the status that is agreed on where the votes of all processes are summed; 0: none."""
    return next((status for status, n in zip(STATUSES, votes, strict=True) if n > 0), 0)


class Limits:
    """What ends a training early.

    Args:
        gauge: Tells the attempt's energy.
        max_kwh: Energy of the attempt at which to end; None: no budget.
        max_steps: Steps of this run after which to end; None: no bound.
    """

    def __init__(
        self, gauge: EnergyGauge, *, max_kwh: float | None = None, max_steps: int | None = None
    ) -> None:
        self._gauge, self._max_kwh, self.max_steps = gauge, max_kwh, max_steps
        self._signal: signal.Signals | None = None
        self._elapsed_s, self._heard_at = -1.0, 0.0
        self._over: Stop | None = None  # the budget is used up
        self._agreed: tuple[int, int] | None = None  # the step with which it was, and the status

    def request_stop(self, number: int, frame: object = None) -> None:
        """Ask for an end at the next checkpoint; a signal handler."""
        self._signal = signal.Signals(number)

    @property
    def signal_status(self) -> int:
        """The exit status of the signal that asked for an end, 0: none did."""
        return 128 + self._signal if self._signal is not None else 0

    def require_energy(self) -> None:
        """Make sure that a budget can be kept, before anything is computed.

        Raises:
            UsageError: There is a budget and the energy is not known.
        """
        if self._max_kwh is None:
            return
        deadline = time.monotonic() + FIRST_S
        while self._gauge.read() is None and self._gauge.has_meter:
            if self.signal_status:
                return  # it ends all the same
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if self._gauge.read() is None:
            raise UsageError(
                "--max-kwh: no meter tells the energy of this training, so no budget can be kept; "
                "run it through run.sh or utils/meter.sh with a sensor or an estimate switched on"
            )
        self._heard_at = time.monotonic()

    def look(self) -> int:
        """Give the exit status with which this process wishes to end, 0: it does not."""
        if self._max_kwh is not None and self._over is None:
            self._over = self._check_energy(self._max_kwh)
        return self.signal_status or (self._over.status if self._over else 0)

    def note(self, step: int, status: int) -> None:
        """Note that the processes' results of a step ask for an end; status 0: they do not."""
        if status and self._agreed is None:
            self._agreed = step, status

    def check(self, steps: int, step: int) -> None:
        """Look whether to end after ``steps`` steps of this run.

        Args:
            steps: Of this run.
            step: The last one whose results every process has read: one that has read more waits
                for the others, so that all end here.

        Raises:
            TrainingStopped: It is time.
        """
        if self._agreed is not None and self._agreed[0] <= step:
            raise TrainingStopped(self.explain(self._agreed[1]))
        if self.max_steps is not None and steps >= self.max_steps:
            raise TrainingStopped(Stop(f"stopped after {steps} steps (--max-steps)", 0))

    def explain(self, status: int) -> Stop:
        """Give the reason for an end with this status, which may be another process's."""
        if status > 128:  # noqa: PLR2004 - the shell's number for signal 0
            return Stop(f"stopped by {signal.Signals(status - 128).name}", status)
        return self._over or Stop("stopped by the first process", status)

    def _check_energy(self, max_kwh: float) -> Stop | None:
        energy, now = self._gauge.read(), time.monotonic()
        if energy is not None and energy.elapsed_s != self._elapsed_s:
            self._elapsed_s, self._heard_at = energy.elapsed_s, now
        if energy is not None and energy.energy_kwh >= max_kwh:
            reason = (
                f"stopped at {energy.energy_kwh:.4g} kWh of this attempt (--max-kwh {max_kwh:g})"
            )
            advice = "rerun the same command to go on, with a higher --max-kwh to come further"
            return Stop(reason, 1, advice)
        if now - self._heard_at > STALE_S:
            reason = (
                f"stopped: no energy from the meter for {STALE_S:.0f} s (--max-kwh {max_kwh:g})"
            )
            advice = "look at the meter's messages, then rerun the same command to go on"
            return Stop(reason, 1, advice)
        return None
