"""Carbon factors as they come while a stage runs.

Providers on the network are asked in a thread of their own, so that a slow one delays no sample;
without one in the config there is no thread and nothing is asked.
"""

import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from queue import Empty, SimpleQueue

from sv.energy.carbon.factor import CarbonFactor
from sv.energy.carbon.providers import ask_providers, check_providers, give_up, uses_network
from sv.energy.config import EnergyConfig


class FactorFeed:
    """The factors of one attempt.

    Args:
        config: Settings.
        environ: Has the token of Electricity Maps, which is kept nowhere else.

    Raises:
        UsageError: No provider could answer this config (`check_providers`).
    """

    def __init__(self, config: EnergyConfig, environ: Mapping[str, str]) -> None:
        check_providers(config)
        self._config, self._environ = config, environ
        self._factors: SimpleQueue[CarbonFactor] = SimpleQueue()
        self._network = uses_network(config)
        self._answered, self._ended = threading.Event(), threading.Event()
        if not self._network:
            self._factors.put(ask_providers(config, {}, time.time()))

    def start(self) -> None:
        """Begin to ask the network, if the config says so; called once the command runs."""
        if not self._network:
            return
        # A new thread has its maker's mask: a signal must reach the meter, never this thread.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            threading.Thread(target=self._ask_repeatedly, name="carbon", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def drain(self) -> list[CarbonFactor]:
        """Give the factors that came since the last call; never waits."""
        factors = []
        while True:
            try:
                factors.append(self._factors.get_nowait())
            except Empty:
                return factors

    def finish(self, timeout_s: float) -> list[CarbonFactor]:
        """Wait for the first answer, at most ``timeout_s``, and give what is left.

        Without an answer by then it is the factor that needs no network, or one that says why
        there is none.
        """
        if self._network and not self._answered.wait(timeout_s):
            why = f"no answer before the stage had ended and {timeout_s:g} s were over"
            self._factors.put(give_up(self._config, time.time(), why))
        self._ended.set()
        return self.drain()

    def _ask_repeatedly(self) -> None:
        last = None
        while not self._ended.is_set():
            factor = ask_providers(self._config, self._environ, time.time())
            # The same observation again is not news; nor is the same failure.
            said = replace(factor, valid_from_utc=None)
            if said != last:
                self._factors.put(factor)
                last = said
            self._answered.set()
            self._ended.wait(self._config.carbon_refresh_s)
