"""Why a training may end before its last epoch: a signal, a budget, a bound on its steps.

All three are looked at between two steps, so that a checkpoint can be saved first.
"""

import signal
import time
from dataclasses import dataclass

from sv.errors import UsageError
from sv.train.gauge import EnergyGauge

FIRST_S = 10.0  # a meter has said something by then, or nothing will come
STALE_S = 60.0  # a meter that has said nothing new for so long is not there any more


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

    def request_stop(self, number: int, frame: object = None) -> None:
        """Ask for an end at the next checkpoint; a signal handler."""
        self._signal = signal.Signals(number)

    def require_energy(self) -> None:
        """Make sure that a budget can be kept, before anything is computed.

        Raises:
            UsageError: There is a budget and the energy is not known.
        """
        if self._max_kwh is None:
            return
        deadline = time.monotonic() + FIRST_S
        while self._gauge.read() is None and self._gauge.has_meter:
            if time.monotonic() > deadline:
                break
            self.check_signal()
            time.sleep(0.1)
        if self._gauge.read() is None:
            raise UsageError(
                "--max-kwh: no meter tells the energy of this training, so no budget can be kept; "
                "run it through run.sh or utils/meter.sh with a sensor or an estimate switched on"
            )
        self._heard_at = time.monotonic()

    def check_signal(self) -> None:
        """Look whether a signal asked for an end.

        Raises:
            TrainingStopped: One did.
        """
        if self._signal is not None:
            raise TrainingStopped(Stop(f"stopped by {self._signal.name}", 128 + self._signal))

    def check(self, steps: int) -> None:
        """Look whether to end after ``steps`` steps of this run.

        Raises:
            TrainingStopped: It is time.
        """
        self.check_signal()
        if self._max_kwh is not None:
            self._check_energy(self._max_kwh)
        if self.max_steps is not None and steps >= self.max_steps:
            raise TrainingStopped(Stop(f"stopped after {steps} steps (--max-steps)", 0))

    def _check_energy(self, max_kwh: float) -> None:
        energy, now = self._gauge.read(), time.monotonic()
        if energy is not None and energy.elapsed_s != self._elapsed_s:
            self._elapsed_s, self._heard_at = energy.elapsed_s, now
        if energy is not None and energy.energy_kwh >= max_kwh:
            reason = (
                f"stopped at {energy.energy_kwh:.4g} kWh of this attempt (--max-kwh {max_kwh:g})"
            )
            advice = "rerun the same command to go on, with a higher --max-kwh to come further"
            raise TrainingStopped(Stop(reason, 1, advice))
        if now - self._heard_at > STALE_S:
            reason = (
                f"stopped: no energy from the meter for {STALE_S:.0f} s (--max-kwh {max_kwh:g})"
            )
            advice = "look at the meter's messages, then rerun the same command to go on"
            raise TrainingStopped(Stop(reason, 1, advice))
