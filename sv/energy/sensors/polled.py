"""A sensor that takes its time: asked by a thread at its own period, each reading given once.

A tool that asks a management controller takes up to a second; the meter must not wait for it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sv.energy.sensors.channel import Channel, Reader


class SensorError(Exception):
    """A sensor gave no reading; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """One answer of a slow sensor.

    Attributes:
        value: In the unit of its channel.
        stamp: When the sensor measured, as it says itself; None if it does not.
        facts: What else the answer says, for the sidecar.
    """

    value: int
    stamp: str | None = None
    facts: dict[str, object] | None = None


class PolledReader(Reader):
    """Reads one channel in the background.

    Args:
        channel: The channel.
        measure: Asks the sensor; `SensorError` if it does not answer. Called by one thread only.
        period_s: Time between the beginnings of two questions.
        give_up: After so many failures without any answer, ask no more; None: ask for ever.
    """

    def __init__(
        self,
        channel: Channel,
        measure: Callable[[], Measurement],
        period_s: float,
        *,
        give_up: int | None = None,
    ) -> None:
        self.channels = [channel]
        self._id = channel.id
        self._measure = measure
        self._period_s = period_s
        self._give_up = give_up
        self._lock = threading.Lock()  # guards all that follows
        self._fresh: int | None = None
        self._stamp: str | None = None
        self._stamps_move = False
        self._counts = {"readings": 0, "stale": 0, "failed": 0}
        self._last_error: str | None = None
        self._facts: dict[str, object] = {}
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name=f"sensor {self._id}", daemon=True).start()

    def read(self) -> dict[str, int | None]:
        """Give the reading that came since the last call, else None."""
        with self._lock:
            value, self._fresh = self._fresh, None
        return {self._id: value}

    def read_facts(self) -> dict[str, object]:
        """Give what the sensor said of itself, how often it answered, and its last failure."""
        with self._lock:
            facts = {**self._facts, **self._counts, "last_error": self._last_error}
        return {self._id: facts}

    def close(self) -> None:
        """Stop asking; a question on its way is not waited for."""
        self._closing.set()

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._closing.is_set():
            self._ask()
            with self._lock:
                silent = self._counts["readings"] == 0
                if silent and self._counts["failed"] == self._give_up:
                    return
            next_s = max(time.monotonic(), next_s + self._period_s)
            self._closing.wait(next_s - time.monotonic())

    def _ask(self) -> None:
        try:
            answer = self._measure()
        except SensorError as error:
            with self._lock:
                self._counts["failed"] += 1
                self._last_error = str(error)
            return
        with self._lock:
            self._facts.update(answer.facts or {})
            same = answer.stamp is not None and answer.stamp == self._stamp
            if same and self._stamps_move:
                # An old answer again. Controllers whose stamp never moves have no clock.
                self._counts["stale"] += 1
                return
            if answer.stamp is not None and self._stamp is not None and not same:
                self._stamps_move = True
            self._stamp = answer.stamp
            self._fresh = answer.value
            self._counts["readings"] += 1
