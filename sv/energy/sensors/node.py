"""The power of the whole machine: Cray's counters, IPMI, Redfish or hwmon, as the config says.

By default only sensors of the machine itself are tried: nothing is asked over the network and
nothing runs with other rights than the meter's own. All but Cray's counters are slow: they are
asked by a thread at their own period (`PolledReader`), and the meter never waits for them.
"""

import base64
import math
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sv.energy.config import EnergyConfig
from sv.energy.sensors.readers import (
    THROWN,
    ChannelSpec,
    Reader,
    build_unavailable,
    check_reading,
    describe,
    get_max_power_w,
    read_word,
)
from sv.energy.units import UNITS_PER_W

ANY_IPMI = "ipmi"  # node_power = "auto" on a machine with IPMI: the first tool that answers
# An IPMI that the config does not name and that has not answered for so long is asked less often:
# each time after twice as long, up to a minute.
PATIENT_S = 15.0
RARELY_S = 60.0
UNCERTAINTY = {  # of the sensor itself, k = 2, with its basis
    ANY_IPMI: (0.05, "assumed: IPMI DCMI states none; power supplies' meters have 1 to 5 %"),
    "hwmon": (0.1, "assumed: what the config's sensors feed is the user's word"),
    "cray": (0.05, "assumed: the maker states none for this counter"),
}


def open_node(config: EnergyConfig, sysfs: Path, environ: Mapping[str, str]) -> list[Reader]:
    """Open the sensor of the machine's power.

    Returns:
        One reader; none where the config wants none, or where it says auto and there is nothing.
        What is known at once not to work is an unavailable channel.
    """
    chosen, cray = config.node_power, sysfs / "cray" / "pm_counters" / "energy"
    if chosen == "auto":
        has_ipmi = any((sysfs / "class" / "ipmi").glob("ipmi*"))
        chosen = "cray" if cray.exists() else ANY_IPMI if has_ipmi else "none"
    if chosen == "none":
        return []
    period_s, method, unit, resolution = config.node_period_s, "power_integral", "W", 1
    sensor_rel, basis = UNCERTAINTY.get(chosen, UNCERTAINTY[ANY_IPMI])
    try:
        if chosen == "cray":
            source, measure = f"Cray pm_counters {cray}", build_cray(cray)
            method, unit = "counter_delta", "J"
            scan_hz = re.match(r"[1-9]\d*", read_word(cray.with_name("raw_scan_hz")) or "")
            period_s = 1 / int(scan_hz[0] if scan_hz else SCAN_HZ)
        elif chosen == "redfish":
            source = f"Redfish {config.redfish_url}, chassis {', '.join(config.redfish_chassis)}"
            measure, unit = build_redfish(config, environ), "mW"
            resolution = UNITS_PER_W["mW"]  # controllers report whole watts
        elif chosen == "hwmon":
            source = f"hwmon {' + '.join(config.hwmon_sensors)}"
            measure, unit = build_hwmon(config.hwmon_sensors, sysfs), "uW"
            if "/energy" in config.hwmon_sensors[0]:
                method, unit = "counter_delta", "uJ"
        else:
            measure, tools = build_ipmi(chosen, environ)
            source = f"IPMI DCMI power reading, {' or '.join(tools)}"
    except SensorError as error:
        return [Reader([build_unavailable(f"node.{chosen}", "node", chosen, str(error))])]
    channel = ChannelSpec(
        id=f"node.{chosen}",
        boundary="node",
        kind="measured" if method == "counter_delta" else "derived",
        method=method,
        source=source,
        unit=unit,
        update_period_s=period_s,
        resolution=resolution,
        sensor_rel=sensor_rel,
        sensor_rel_basis=basis,
    )
    polled_s = None if chosen == "cray" else period_s
    return [PolledReader(channel, measure, polled_s, named=chosen != ANY_IPMI)]


# A slow sensor


class SensorError(Exception):
    """A sensor gave no reading; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """One answer of a slow sensor.

    Attributes:
        value: In the unit of its channel.
        stamp: When the sensor measured, as it says itself; None if it does not.
        metadata: What else the answer says, for the sidecar.
    """

    value: int
    stamp: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)


Measure = Callable[[], Measurement]


class PolledReader(Reader):
    """Reads one channel; each reading is returned once.

    Args:
        channel: The channel.
        measure: Asks the sensor; `SensorError` if it does not answer. Called by one thread only.
        period_s: Time between the beginnings of two questions, which a thread asks; None: the
            sensor is fast, has a clock, and is asked at each sample.
        named: The config names the sensor: it is asked as often even if it never answers.
    """

    def __init__(
        self,
        channel: ChannelSpec,
        measure: Measure,
        period_s: float | None,
        *,
        named: bool = True,
    ) -> None:
        super().__init__([channel])
        self._id, self._measure = channel.id, measure
        self._period_s, self._named = period_s, named
        self._method, self._unit = channel.method, channel.unit or "W"
        self._max_power_w = get_max_power_w(channel.boundary, channel.max_power_w)
        self._fresh: deque[int] = deque(maxlen=1)  # put there by the thread, taken by the meter
        self._stamp: str | None = None
        self._stamps_move = period_s is None
        # Only the thread writes it, and copying a dict of strings is one step for the interpreter.
        self._metadata: dict[str, Any] = {
            "readings": 0, "stale": 0, "failed": 0, "last_error": None
        }  # fmt: skip
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        if self._period_s is not None:
            run, name = self._poll, f"sensor {self._id}"
            threading.Thread(target=run, args=(self._period_s,), name=name, daemon=True).start()

    def read(self) -> dict[str, int | None]:
        """Return the reading that came since the last call, else None."""
        if self._period_s is None:
            self._ask()
        return {self._id: self._fresh.pop() if self._fresh else None}

    def read_metadata(self) -> dict[str, object]:
        """Return what the sensor says of itself, how often it answered, and its last failure."""
        return {self._id: self._metadata.copy()}

    def close(self) -> None:
        """Stop asking; a question on its way is not waited for."""
        self._closing.set()

    def _poll(self, period_s: float) -> None:
        begin_s = next_s = time.monotonic()
        wait_s = period_s
        while not self._closing.is_set():
            self._ask()
            if self._named or self._metadata["readings"]:
                wait_s = period_s
            elif time.monotonic() - begin_s >= PATIENT_S:
                wait_s = max(period_s, min(RARELY_S, 2 * wait_s))
            next_s = max(time.monotonic(), next_s + wait_s)
            self._closing.wait(next_s - time.monotonic())

    def _ask(self) -> None:
        try:
            answer = self._measure()
            self._check(answer.value)
        except THROWN as error:  # whatever it is: the sensor is asked again
            self._metadata["failed"] += 1
            self._metadata["last_error"] = describe(error)
            return
        self._metadata.update(answer.metadata)
        if None not in (answer.stamp, self._stamp) and answer.stamp != self._stamp:
            self._stamps_move = True
        elif self._stamps_move and answer.stamp is not None and answer.stamp == self._stamp:
            # An old answer again. Controllers whose stamp never moves have no clock.
            self._metadata["stale"] += 1
            return
        self._stamp = answer.stamp
        self._fresh.append(answer.value)
        self._metadata["readings"] += 1

    def _check(self, value: int) -> None:
        power_w = value / UNITS_PER_W[self._unit] if self._method == "power_integral" else None
        if power_w is not None and not 0 < power_w <= self._max_power_w:
            raise SensorError(f"it says {power_w:g} W, which no machine that runs draws")
        check_reading(value)


# Cray pm_counters: files of the kernel, refreshed ten times a second

CRAY_ENERGY = r"(\d+) J(?: (\d+) us)?"
SCAN_HZ = 10  # HPE Cray EX documentation; raw_scan_hz says it where it is there


def build_cray(file: Path) -> Measure:
    """Build the reading of ``energy`` of pm_counters: ``<count> J <microseconds> us``."""

    def measure() -> Measurement:
        match = re.fullmatch(CRAY_ENERGY, file.read_text(encoding="ascii").strip())
        if match is None:
            raise SensorError(f"{file} has no count of joules")
        return Measurement(int(match[1]), match[2])

    return measure


# IPMI: the management controller's (BMC) DCMI power reading, through FreeIPMI's ipmi-dcmi or
# ipmitool. Both need the administrator's permission. Only the current power is used: minimum,
# maximum and average are over a time that the controller chooses.

IPMI_TIMEOUT_S = 5.0
IPMI_TOOLS = {
    "ipmi-dcmi": "ipmi-dcmi --get-system-power-statistics",
    "ipmitool": "ipmitool dcmi power reading",
}
# Names of the lines, as FreeIPMI 1.6 and ipmitool 1.8 write them.
CURRENT = r"(?:Current Power|Instantaneous power reading)\s*:\s*(\d+)\s*watts"
STATE = r"(?:Power Measurement|Power reading state is)\s*:\s*(\S.*)"
# ipmitool 1.8.19 has no line break between the time and the sampling period.
STAMP = r"(?:Time Stamp|IPMI timestamp)\s*:\s*(\S.*?)\s*(?:Sampling period.*)?$"
ACTIVE = {"active", "activated"}


def build_ipmi(chosen: str, environ: Mapping[str, str]) -> tuple[Measure, list[str]]:
    """Build the question to the first tool that answers, from then on first to that one.

    Args:
        chosen: A key of `IPMI_TOOLS`, or `ANY_IPMI`.
        environ: Has the PATH.

    Returns:
        A function that returns the power in W; and the tools' command lines.

    Raises:
        SensorError: There is none.
    """
    from shutil import which  # noqa: PLC0415 - only where there is IPMI: it imports much

    # Both are often in the administrator's folders only.
    path = f"{environ.get('PATH', '')}:/usr/sbin:/sbin"
    wanted = list(IPMI_TOOLS) if chosen == ANY_IPMI else [chosen]
    programs = {IPMI_TOOLS[name]: which(name, path=path) for name in wanted}
    left = {command: program for command, program in programs.items() if program}
    if not left:
        raise SensorError(f"to ask IPMI takes {' or '.join(wanted)}, which is not on the PATH")

    def measure() -> Measurement:
        nonlocal left
        failures = []
        for command, program in left.items():
            try:
                answer = parse_report(_run_tool([program, *command.split()[1:]], environ))
            except SensorError as error:
                failures.append(f"{command}: {error}")
                continue
            left = {command: program} | left
            return replace(answer, metadata={"way": command})
        raise SensorError("; ".join(failures))

    return measure, list(left)


def _run_tool(words: list[str], environ: Mapping[str, str]) -> str:
    name = Path(words[0]).name
    try:
        done = subprocess.run(
            words,
            env={**environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=IPMI_TIMEOUT_S,
            check=False,  # the meter may have reaped it and its status: its output must do
        )
    except subprocess.TimeoutExpired as error:
        raise SensorError(f"{name} took over {IPMI_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise SensorError(f"{name}: {error.strerror}") from error
    return done.stdout.decode("utf-8", "replace")


def parse_report(text: str) -> Measurement:
    """Parse what ipmi-dcmi or ipmitool prints of the power.

    Returns:
        The current power in watts, with the controller's own time.

    Raises:
        SensorError: No power in it, or the measurement is not active.
    """
    state, current = _find_line(STATE, text), _find_line(CURRENT, text)
    if state is not None and state.lower().rstrip(".") not in ACTIVE:
        raise SensorError(f"the controller's power measurement is '{state}'")
    if current is None or state is None:
        printed = " ".join(text.split())[:200] or "nothing"
        raise SensorError(f"no power reading in what it printed: {printed}")
    return Measurement(int(current), _find_line(STAMP, text))


def _find_line(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.IGNORECASE | re.MULTILINE)
    return match and match[1].strip()


# hwmon: sensors of the board. Only the maker knows what a rail feeds, so only the sensors that the
# config names are read, and their sum is taken for the whole machine.


def build_hwmon(names: tuple[str, ...], sysfs: Path) -> Measure:
    """Build the reading of the sum of sensors.

    Args:
        names: ``<name>/<file>`` as in ``power_meter/power1_average``; ``<name>`` is what the
            sensor's own file ``name`` says, or its folder (``hwmon3``) where two say the same.
        sysfs: Root of sysfs.

    Returns:
        A function that returns the sum in uW (power) or uJ (energy).

    Raises:
        SensorError: A sensor is not there, or its name is not one sensor's alone.
    """
    files = [_find_hwmon(name, sysfs) for name in names]

    def measure() -> Measurement:
        total = 0
        for file in files:
            try:
                total += check_reading(int(file.read_text(encoding="ascii")))
            except OSError as error:
                raise SensorError(f"{file}: {error.strerror}") from error
            except ValueError as error:
                raise SensorError(f"{file}: {error}") from error
        return Measurement(total)

    return measure


def _find_hwmon(name: str, sysfs: Path) -> Path:
    wanted, _, file_name = name.partition("/")
    folders = sorted((sysfs / "class" / "hwmon").glob("hwmon*"))
    names = {folder: read_word(folder / "name") or "unnamed" for folder in folders}
    found = [
        folder / file_name
        for folder, known in names.items()
        if wanted in (folder.name, known) and (folder / file_name).exists()
    ]
    if len(found) != 1:
        known = ", ".join(f"{folder.name} is {known}" for folder, known in names.items()) or "none"
        problem = "is not there" if not found else "is more than one sensor's: name the folder"
        raise SensorError(f"hwmon_sensors: {name} {problem} (sensors: {known})")
    return found[0]


# Redfish: the management controller over HTTP. Only by configuration: it is a question over the
# network, with a password. User and password come from the environment and are written nowhere; no
# redirection is followed and no proxy used, so that they reach the controller alone.

REDFISH_TIMEOUT_S = 5.0


def build_redfish(config: EnergyConfig, environ: Mapping[str, str]) -> Measure:
    """Build the question to the controller of ``config.redfish_url``.

    Returns:
        A function that returns the power of the configured chassis in mW.

    Raises:
        SensorError: A variable that the config names is not set.
    """
    from sv.energy.web import FetchError, fetch_json  # noqa: PLC0415 - an HTTP client

    headers, secrets = {"OData-Version": "4.0"}, {}
    if config.redfish_user_variable:
        names = (config.redfish_user_variable, config.redfish_password_variable)
        if missing := [name for name in names if not environ.get(name)]:
            raise SensorError(f"the environment variable {missing[0]} is not set")
        token = base64.b64encode(":".join(environ[name] for name in names).encode()).decode()
        secrets["Authorization"] = f"Basic {token}"
    root = config.redfish_url.rstrip("/")

    def measure() -> Measurement:
        power_mw, members = 0.0, []
        for chassis in config.redfish_chassis:
            url = f"{root}/redfish/v1/Chassis/{quote(chassis, safe='')}/Power"
            try:
                answer = fetch_json(
                    url, headers=headers, secrets=secrets, timeout_s=REDFISH_TIMEOUT_S,
                    use_proxy=False, verify_tls=config.redfish_verify_tls,
                )  # fmt: skip
            except FetchError as error:
                raise SensorError(f"{url}: {error}") from error
            for name, power_w in choose_powers(answer, config.redfish_power_control):
                members.append(f"{chassis}: {name}")
                power_mw += power_w * UNITS_PER_W["mW"]
        return Measurement(round(power_mw), metadata={"summed": members})

    return measure


def choose_powers(answer: Any, wanted: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return name and watts of the PowerControl members of one chassis.

    Args:
        answer: The chassis's Power resource.
        wanted: MemberIds to take; empty: all. Some makers list the whole machine and its
            processors side by side, which must not be added.

    Raises:
        SensorError: A member that is wanted has no figure, or there is none at all.
    """
    members = answer.get("PowerControl") if isinstance(answer, dict) else None
    chosen = []
    for i, member in enumerate(members if isinstance(members, list) else []):
        if not isinstance(member, dict):
            continue
        member_id = str(member.get("MemberId", i))
        if wanted and member_id not in wanted:
            continue
        power_w = member.get("PowerConsumedWatts")
        is_number = isinstance(power_w, int | float) and not isinstance(power_w, bool)
        if not (is_number and 0 <= power_w < math.inf):
            raise SensorError(f"PowerControl {member_id} has no PowerConsumedWatts now")
        chosen.append((f"{member_id} {member.get('Name', '')}".strip(), float(power_w)))
    if not chosen or (wanted and len(chosen) != len(wanted)):
        raise SensorError("the chassis lacks a PowerControl member that is to be summed")
    return chosen
