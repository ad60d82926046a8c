"""The machine's power from its management controller (BMC): the DCMI power reading of IPMI.

Two tools read it: FreeIPMI's ipmi-dcmi and ipmitool. Both need the administrator's permission. Only
the current power is used: minimum, maximum and average are over a time that the controller chooses.
"""

import re
import subprocess
from collections.abc import Callable, Mapping

from sv.energy.sensors.polled import Measurement, SensorError

TOOL_TIMEOUT_S = 5.0
COMMANDS = {
    "ipmi-dcmi": ("ipmi-dcmi", "--get-system-power-statistics"),
    "ipmitool": ("ipmitool", "dcmi", "power", "reading"),
}
# Names of the lines, as FreeIPMI 1.6 and ipmitool 1.8 write them.
CURRENT = re.compile(r"(?:Current Power|Instantaneous power reading)\s*:\s*(\d+)\s*watts", re.I)
STATE = re.compile(r"(?:Power Measurement|Power reading state is)\s*:\s*(\S.*)", re.I)
STAMP = re.compile(r"(?:Time Stamp|IPMI timestamp)\s*:\s*(\S.*)", re.I)
WINDOW = re.compile(r"(?:Statistics reporting time period|Sampling period)\s*:\s*(\S.*)", re.I)
ACTIVE = {"active", "activated"}


def parse_report(text: str) -> Measurement:
    """Parse what ipmi-dcmi or ipmitool prints of the power.

    Returns:
        The current power in watts, with the controller's own time and averaging window.

    Raises:
        SensorError: No power in it, 0 W, or the measurement is not active.
    """
    state = _find(STATE, text)
    if state is not None and state.lower().rstrip(".") not in ACTIVE:
        raise SensorError(f"the controller's power measurement is '{state}'")
    current = _find(CURRENT, text)
    if current is None or state is None:
        said = " ".join(text.split())[:200] or "nothing"
        raise SensorError(f"no power reading in what it printed: {said}")
    return Measurement(check_power_w(int(current)), _find(STAMP, text), _get_window(text))


def check_power_w(power_w: int) -> int:
    """Refuse the 0 W of a controller that has no reading: a machine that runs uses power.

    Raises:
        SensorError: It is 0.
    """
    if power_w == 0:
        raise SensorError("the controller says 0 W: it has no reading")
    return power_w


def build_tool(name: str, environ: Mapping[str, str]) -> Callable[[], Measurement] | None:
    """Build the question to one of `COMMANDS`; None if it is not installed."""
    from shutil import which  # noqa: PLC0415 - only where there is IPMI: it imports much

    words = COMMANDS[name]
    # Both are often in the administrator's folders only.
    path = f"{environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = which(words[0], path=path)
    if program is None:
        return None

    def measure() -> Measurement:
        return parse_report(_run((program, *words[1:]), {**environ, "LC_ALL": "C"}))

    return measure


def _run(words: tuple[str, ...], environ: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_TIMEOUT_S,
            check=False,  # the meter may have reaped it and its status: what it says must do
        )
    except subprocess.TimeoutExpired as error:
        raise SensorError(f"{words[0]} took over {TOOL_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise SensorError(f"{words[0]}: {error.strerror}") from error
    return done.stdout.decode("utf-8", "replace")


def _find(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match and match[1].strip()


def _get_window(text: str) -> dict[str, object]:
    window = _find(WINDOW, text)
    return {} if window is None else {"statistics_window": window}
