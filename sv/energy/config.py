"""The settings of the meter: egs/<x>/conf/energy.toml."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sv.config import Minimum, build_config
from sv.errors import UsageError
from sv.files import read_toml

NETWORK = ("rte", "electricity_maps")  # providers that are asked over the network
Provider = Literal["owid", "fixed", "rte", "electricity_maps"]
MAX_G_PER_KWH = 1500.0  # of no grid: the highest yearly one is 1,306 (Turkmenistan, 2022)
URL = re.compile(r"(https?)://([^/@?#\s]+)(/[^@?#\s]*)?")
_HWMON = re.compile(r"[^/]+/(?:(power)\d+_(?:input|average)|(energy)\d+_input)")
_OWN_MACHINE = re.compile(
    r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
)  # as in web.py, an import less
WORLD = "OWID_WRL"  # OWID's code for all countries together
_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
# What earlier versions had, and what to do with it.
IDLE_BASELINE = "remove it; docs/energy.md says how to get the energy above idle"
IPMI_DEVICE = "use ipmi-dcmi or ipmitool"


@dataclass(frozen=True)
class EnergyConfig:
    """What the meter cannot find out for itself. Every assumption has a field for its source.

    Attributes:
        country: ISO 3166 code of three letters for the grid's carbon factor (OWID_WRL: the
            world); None: co2_g is null.
        g_per_kwh: A fixed carbon factor instead of the table's, with its source.
        carbon: Providers of the carbon factor, asked in this order until one answers; None:
            ``fixed`` where g_per_kwh is set, else ``owid``.
        carbon_year: Year of the table; None: the country's newest.
        carbon_refresh_s: How often the providers on the network are asked.
        rte_url: Where RTE's data sets are.
        electricity_maps_url: Where the API of Electricity Maps is.
        electricity_maps_zone: Zone as the API names it (FR, DK-DK1); None: the country's.
        electricity_maps_scope: ``lifecycle`` or ``direct`` emissions.
        electricity_maps_estimates: Whether values that the provider estimated are taken.
        electricity_maps_token_variable: Environment variable that holds the token.
        pue: Power usage effectiveness of the site: energy of the site / energy of the machines.
        period_s: Time between two samples; less where a counter would wrap unseen.
        attribution: Which part of a shared machine is the job's: exclusive (all), cpu_share or
            ceems (`sv.energy.attribution`).
        jobs_on_node: Jobs that share the machine, for ceems.
        submit_attribution: The machine of a stage's own meter, once the stage has meters elsewhere:
            cpu_share (it only waits: its part by processor time, GPU boards too) or exclusive (it
            is reserved or works too: as ``attribution`` says).
        cpu_power_w_per_core: Power of one busy logical CPU (a thread of a core that has two), for
            the estimate from CPU time, with its source; None: from the table of CPU models, else
            of the CPU's generation, else an assumption that is stated.
        dram_power_w_per_gb: Power of memory in use, for the estimate, with its source; None: a
            published figure.
        node_power: Where the power of the whole machine is read; auto: Cray's counters, else IPMI
            if the machine has it. The network is asked only by redfish.
        node_period_s: Time between two readings of the machine's power; Cray's is read each time.
        node_includes_gpu: Whether the machine's power has the GPUs' in it.
        redfish_url: The management controller, ``https://bmc.example``, with no password in it.
        redfish_chassis: Ids of the chassis that are this machine.
        redfish_power_control: MemberIds to be summed; empty: every PowerControl of the chassis.
        redfish_user_variable: Environment variable with the user; empty: no user.
        redfish_password_variable: Environment variable with the password.
        redfish_verify_tls: Whether the controller's certificate is checked.
        hwmon_sensors: ``<name>/<file>`` of the sensors whose sum is the machine's power or energy.
    """

    country: str | None = None
    g_per_kwh: Annotated[float, Minimum(0)] | None = None
    g_per_kwh_source: str | None = None
    carbon: tuple[Provider, ...] | None = None
    carbon_year: int | None = None
    carbon_refresh_s: Annotated[float, Minimum(0.1)] = 1800.0
    rte_url: str = "https://odre.opendatasoft.com/api/explore/v2.1/catalog/datasets"
    electricity_maps_url: str = "https://api.electricitymaps.com"
    electricity_maps_zone: str | None = None
    electricity_maps_scope: Literal["lifecycle", "direct"] = "lifecycle"
    electricity_maps_estimates: bool = True
    electricity_maps_token_variable: str = "EMAPS_API_TOKEN"
    pue: Annotated[float, Minimum(1)] = 1.0
    pue_source: str = "none: the machines alone, no cooling"
    period_s: float = 1.0
    attribution: Literal["exclusive", "cpu_share", "ceems"] = "exclusive"
    jobs_on_node: Annotated[int, Minimum(1)] = 1
    submit_attribution: Literal["cpu_share", "exclusive"] = "cpu_share"
    cpu_power_w_per_core: float | None = None
    cpu_power_source: str | None = None
    dram_power_w_per_gb: float | None = None
    dram_power_source: str | None = None
    node_power: Literal["auto", "none", "ipmi-dcmi", "ipmitool", "redfish", "cray", "hwmon"] = (
        "auto"
    )
    node_period_s: float = 5.0
    node_includes_gpu: bool = True
    redfish_url: str = ""
    redfish_chassis: tuple[str, ...] = ()
    redfish_power_control: tuple[str, ...] = ()
    redfish_user_variable: str = ""
    redfish_password_variable: str = ""
    redfish_verify_tls: bool = True
    hwmon_sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that would give a figure without a meaning."""
        if not 0.05 <= self.period_s <= 30.0:
            raise ValueError(f"period_s must be 0.05 to 30 seconds, not {self.period_s}")
        _check_estimate(self)
        _check_node(self)
        if self.g_per_kwh is not None and not self.g_per_kwh_source:
            raise ValueError("g_per_kwh needs g_per_kwh_source: where the figure is from")
        if self.g_per_kwh is not None and not 0 <= self.g_per_kwh <= MAX_G_PER_KWH:
            raise ValueError(f"g_per_kwh must be 0 to {MAX_G_PER_KWH:g} g, not {self.g_per_kwh}")
        _check_carbon(self)
        _check_secrets(self)


def read_energy_config(path: Path) -> EnergyConfig:
    """Read an energy.toml.

    Raises:
        UsageError: It is missing, not TOML, or a key or a value is not valid.
    """
    return build_energy_config(read_toml(path), str(path))


def build_energy_config(values: Mapping[str, Any], where: str) -> EnergyConfig:
    """Build the settings from a mapping; ``where`` begins every error message.

    Raises:
        UsageError: A key or a value is not valid.
    """
    known = dict(values)
    if known.pop("idle_baseline", None) is not None:
        raise UsageError(f"{where}: idle_baseline is no longer read: {IDLE_BASELINE}")
    if known.get("node_power") == "ipmi-device":
        raise UsageError(f"{where}: node_power 'ipmi-device' is no longer read: {IPMI_DEVICE}")
    return build_config(known, EnergyConfig, where=where)


def list_providers(config: EnergyConfig) -> tuple[str, ...]:
    """Return the providers of the carbon factor in the order in which they are asked."""
    if config.carbon is not None:
        return config.carbon
    return ("owid",) if config.g_per_kwh is None else ("fixed",)


def _check_carbon(config: EnergyConfig) -> None:
    providers = list_providers(config)
    if not providers or len(set(providers)) != len(providers):
        raise ValueError("carbon must name each provider once, and at least one")
    if ("fixed" in providers) != (config.g_per_kwh is not None):
        raise ValueError("carbon names 'fixed' if and only if g_per_kwh is set")
    for name in providers[:-1]:
        if name not in NETWORK:
            raise ValueError(f"carbon: '{name}' always answers; name it last")
    zone = config.electricity_maps_zone
    if zone is not None and not re.fullmatch(r"[A-Z0-9]+(-[A-Z0-9]+)*", zone):
        raise ValueError(f"electricity_maps_zone must be like FR or DK-DK1, not '{zone}'")


def _check_secrets(config: EnergyConfig) -> None:
    """Refuse a secret among the settings, which are all in the journal, or one sent in clear."""
    for name, needs_https in (
        ("rte_url", False),
        ("electricity_maps_url", True),
        ("redfish_url", bool(config.redfish_user_variable)),
    ):
        value = getattr(config, name)
        url = URL.fullmatch(value)
        if value and url is None:
            raise ValueError(f"{name} must be http(s)://host/path, without a user or a query")
        if url and needs_https and url[1] == "http" and not _OWN_MACHINE.fullmatch(url[2]):
            raise ValueError(f"{name} must begin with https: a token or a password goes with it")
    for name in (
        "electricity_maps_token_variable", "redfish_user_variable", "redfish_password_variable",
    ):  # fmt: skip
        value = getattr(config, name)
        if (value or "token" in name) and not _VARIABLE.fullmatch(value):
            what = name.removesuffix("_variable").rpartition("_")[2]
            raise ValueError(
                f"{name} must be the name of an environment variable in capitals, not the {what} "
                "itself"
            )


def _check_estimate(config: EnergyConfig) -> None:
    for name, source in (
        ("cpu_power_w_per_core", "cpu_power_source"),
        ("dram_power_w_per_gb", "dram_power_source"),
    ):
        value = getattr(config, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be over 0, not {value}")
        if (value is None) != (getattr(config, source) is None):
            raise ValueError(f"{name} and {source}: set both or none")


def _check_node(config: EnergyConfig) -> None:
    if not 0.05 <= config.node_period_s <= 60.0:
        raise ValueError(f"node_period_s must be 0.05 to 60 seconds, not {config.node_period_s}")
    if config.node_power == "redfish":
        if not config.redfish_url:
            raise ValueError('node_power "redfish" needs redfish_url = "https://..."')
        if not config.redfish_chassis:
            raise ValueError('node_power "redfish" needs redfish_chassis: which chassis to sum')
        if bool(config.redfish_user_variable) != bool(config.redfish_password_variable):
            raise ValueError("redfish_user_variable, redfish_password_variable: set both or none")
    if config.node_power == "hwmon":
        names = [_HWMON.fullmatch(sensor) for sensor in config.hwmon_sensors]
        if None in names or len({name and (name[1] or name[2]) for name in names}) != 1:
            raise ValueError(
                'node_power "hwmon" needs hwmon_sensors, all power or all energy: '
                '["power_meter/power1_average", ...]'
            )
