"""The sensors of a machine's power that are asked in the background: IPMI, Redfish, hwmon."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.energy.sensors import ipmi
from sv.energy.sensors.channel import Channel, Reader, SilentReader, unavailable
from sv.energy.sensors.hwmon import build_hwmon
from sv.energy.sensors.polled import Measurement, PolledReader, SensorError
from sv.energy.units import UNITS_PER_W

Measure = Callable[[], Measurement]
ANY_IPMI = "ipmi"  # nobody has asked for it: the first way that answers
IPMI_UNCERTAINTY = (0.05, "assumed: IPMI DCMI states none; power supplies' meters have 1 to 5 %")
HWMON_UNCERTAINTY = (0.1, "assumed: what the config's sensors feed is the user's word")
GIVE_UP = 3  # questions to an IPMI that nobody has asked for
NO_TOOL = (
    "the machine has IPMI, but ipmi-dcmi and ipmitool are not installed; ask the administrator"
)


def open_polled(
    chosen: str, config: EnergyConfig, sysfs: Path, environ: Mapping[str, str]
) -> Reader:
    """Open one of the config's ``NODE_POWER`` that is asked in the background, or `ANY_IPMI`.

    Returns:
        Its reader; what is known at once not to work is an unavailable channel.
    """
    method, unit, resolution = "power_integral", "W", 1
    uncertainty = IPMI_UNCERTAINTY
    try:
        if chosen == "redfish":
            # Its imports take longer than a stage may be delayed by what it does not use.
            from sv.energy.sensors.redfish import build_redfish  # noqa: PLC0415

            resolution = UNITS_PER_W["mW"]  # controllers give whole watts
            source = f"Redfish {config.redfish_url}, chassis {', '.join(config.redfish_chassis)}"
            measure, unit = build_redfish(config, environ), "mW"
        elif chosen == "hwmon":
            source = f"hwmon {' + '.join(config.hwmon_sensors)}"
            measure, unit, uncertainty = (
                build_hwmon(config.hwmon_sensors, sysfs),
                "uW",
                HWMON_UNCERTAINTY,
            )
            if "/energy" in config.hwmon_sensors[0]:
                method, unit = "counter_delta", "uJ"
        else:
            source, measure = _choose_ipmi(chosen, environ)
    except SensorError as error:
        return SilentReader([unavailable(f"node.{chosen}", "node", chosen, str(error))])
    sensor_rel, basis = uncertainty
    channel = Channel(
        id=f"node.{chosen}",
        boundary="node",
        kind="measured" if method == "counter_delta" else "derived",
        method=method,
        source=source,
        unit=unit,
        update_period_s=config.node_period_s,
        resolution=resolution,
        sensor_rel=sensor_rel,
        sensor_rel_basis=basis,
    )
    give_up = GIVE_UP if chosen == ANY_IPMI else None
    return PolledReader(channel, measure, config.node_period_s, give_up=give_up)


def _choose_ipmi(chosen: str, environ: Mapping[str, str]) -> tuple[str, Measure]:
    """Give the source and the question of one way to IPMI, or of all that there are."""
    ways: dict[str, Measure] = {}
    for name in ipmi.COMMANDS:
        if chosen in (ANY_IPMI, name):
            tool = ipmi.build_tool(name, environ)
            if tool is not None:
                ways[" ".join(ipmi.COMMANDS[name])] = tool
            elif chosen == name:
                raise SensorError(f"{name} is not on the PATH")
    if not ways:
        raise SensorError(NO_TOOL)
    return f"IPMI DCMI power reading, {' or '.join(ways)}", FirstThatAnswers(ways)


class FirstThatAnswers:
    """Asks one way after the other until one answers, and from then on that one."""

    def __init__(self, ways: dict[str, Measure]) -> None:
        self._ways = ways

    def __call__(self) -> Measurement:
        """Ask.

        Raises:
            SensorError: None answers; the message has every reason.
        """
        failures = []
        for name, measure in self._ways.items():
            try:
                answer = measure()
            except SensorError as error:
                failures.append(f"{name}: {error}")
                continue
            self._ways = {name: measure}
            return Measurement(answer.value, answer.stamp, {**(answer.facts or {}), "way": name})
        raise SensorError("; ".join(failures))
