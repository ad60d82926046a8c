"""What is done to the meter's sensors, and what must come of it: a case is a machine and a command.

F1-F13 and "held" are those of an attack on this meter (commit f8b4a44, 2026-11); N are their
neighbours, which no list names. tests/bench/meter_faults.py runs them, tests/test_meter_faults.py
some of each kind.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fault_checks import (
    is_core_power,
    is_cut_well,
    is_estimated,
    is_explained,
    is_table,
    is_whole_too,
    is_within,
    rebuilds,
    remove_readings,
    replace_reading,
    says_on_stderr,
)
from faulty_machine import (
    EIO,
    GONE,
    LOST,
    Board,
    Cray,
    Ipmi,
    LastSecond,
    Redfish,
    Refreshed,
    Reset,
    Service,
    Stall,
    Zone,
    during,
    step,
)

if TYPE_CHECKING:
    from bench.meter_faults import Run

RIGHT, MARKED, HELD, EITHER = "right", "marked", "held", "either"
# vendor, family, model, name and cores of a processor
INTEL = ("GenuineIntel", 6, 143, "Intel(R) Xeon(R) Platinum 8480+", 56)
AMD = ("AuthenticAMD", 25, 1, "AMD EPYC 7763 64-Core Processor", 64)
GENOA = ("AuthenticAMD", 25, 17, "AMD EPYC", 32)  # as clouds name it
TOO_LARGE = "18446744073709551615"
WRAPS_SOON = 262_143_328_850 - 200_000_000  # 2 s later, at 100 W
NODE = "node_period_s = 0.2\n"
JOB = "env -u SV_METER_ACTIVE {python} -m sv.bin.meter --node t.1 -- sleep {seconds}"
BURN = "{python} -c 'import time\nwhile time.process_time() < 1.5: pass'"


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: As in the list of faults, then what is wrong.
        expect: held, right, marked or either.
        parts: Builds the machine's parts.
        seconds: How long the command sleeps; or a shell command, which gives its own.
        settings: Of energy.toml; a function of the parts where it needs an address.
        visible: CUDA_VISIBLE_DEVICES.
        cpuinfo: The processor that /proc/cpuinfo shows; None: this machine's.
        broken: Words of tests/broken_reader.py.
        status: Of the command.
        error: Of a figure that is right, relative.
        floor: Of a figure that is marked: the least part of the truth.
        figure: Of the attempt, which is compared with the truth.
        also: What else must be true of a run: returns what is wrong.
        pyrapl: The fake is at /sys, where pyRAPL looks.
        killed: The meter is killed: --rebuild writes the sidecar.
    """

    name: str
    expect: str
    parts: Callable[[], list]
    seconds: float = 4.0
    shell: str = "sleep {seconds}"
    settings: str | Callable[[list], str] = ""
    visible: str | None = None
    cpuinfo: tuple | None = None
    broken: tuple[str, ...] = ()
    status: int = 0
    error: float = 0.03
    floor: float = 0.0
    figure: str = "energy_kwh"
    also: Callable[["Run"], str | None] = lambda run: None
    pyrapl: bool = False
    killed: bool = False


def zone(number=0, power=None, show=None, **more):
    """Return a package with a counter of its own: no two begin or go on alike."""
    power = 100.0 + 3 * number if power is None else power
    start = {"start_uj": 200_000_000_000 + number * 5_000_000_000}
    return Zone(f"{number:x}", f"package-{number}", power, show, **{**start, **more})


def mirror(count, *, power=280.0, sockets=1, die=True, **more):
    """Return zones of which all of a socket show one counter."""
    zones = []
    for i in range(count):
        socket, number = divmod(i, count // sockets)
        name = f"package-{socket}-die-{number}" if die else f"package-{i}"
        of = zones[i - number] if number else None
        zones.append(Zone(f"{i:x}", name, power, of=of, start_uj=(7 + socket) * 10**9, **more))
    return zones


def dram(number=0, power=10.0, show=None, **more):
    """Return the memory of a package."""
    start_uj = 90_000_000_000 + number * 5_000_000_000
    return Zone(f"{number}:0", "dram", power + number, show, start_uj=start_uj, **more)


def wave(period_s, begin_s=0.0):
    """Return a power of 400 W and 50 W in turn."""
    return lambda t: 400.0 if (t - begin_s) % period_s < period_s / 2 else 50.0


def use_redfish(parts):
    """Return the settings of the service among the parts."""
    url = next(part.url for part in parts if isinstance(part, Redfish))
    return (
        f'node_power = "redfish"\nnode_period_s = 0.2\nredfish_url = "{url}"\n'
        'redfish_chassis = ["1"]\n'
    )


def use_rte(parts):
    """Ask the service among the parts for the carbon factor, then the table."""
    url = next(part.url for part in parts if isinstance(part, Service))
    return f'carbon = ["rte", "owid"]\nrte_url = "{url}"\ncarbon_refresh_s = 0.5\n'


def rte(value):
    """Return a service that answers as RTE's, with one value."""
    at = time.strftime("%Y-%m-%dT%H:%M:00+00:00", time.gmtime(time.time() - 1800))
    return Service(lambda: (200, [{"taux_co2": value, "date_heure": at}]))


def list_cases() -> list[Case]:
    """List every case."""
    lost = lambda at_s: lambda t: LOST if t >= at_s else 0  # noqa: E731
    faults = [
        Case("F1 one board, lost at half", MARKED, lambda: [Board(0, status=lost(1.5))], 3,
             floor=0.4),
        Case("F1 one of two boards lost at half", MARKED,
             lambda: [Board(0), Board(1, status=lost(1.5))], 3, floor=0.7),
        Case("F2 12 CCDs of one counter, AMD", RIGHT, lambda: mirror(12), cpuinfo=AMD),
        Case("F2 12 zones of one counter, by their readings", RIGHT, lambda: mirror(12),
             cpuinfo=INTEL),
        Case("F2 4 dies of one counter, AMD", RIGHT, lambda: mirror(4), cpuinfo=AMD),
        Case("F2 2 sockets of 8 CCDs, zones 0 to f, AMD", RIGHT,
             lambda: mirror(16, sockets=2, power=230.0), cpuinfo=AMD),
        Case("F2 2 sockets of 8 dies, by their readings", RIGHT,
             lambda: mirror(16, sockets=2, power=230.0), cpuinfo=INTEL),
        Case("F3 package steps back 100 J", RIGHT, lambda: [zone(show=step(2, -100_000_000))]),
        Case("F3 package steps back 50 kJ", RIGHT,
             lambda: [zone(show=step(2, -50_000_000_000))]),
        Case("F3 pyRAPL: package steps back 100 J", RIGHT,
             lambda: [zone(show=step(2, -100_000_000))], pyrapl=True),
        Case("F3 board's counter steps back 1 kJ", RIGHT,
             lambda: [Board(0, energy=step(2, -1_000_000))]),
        Case("F3 package reset to 0", EITHER, lambda: [zone(show=Reset(2))], floor=0.9),
        Case("F3 board's counter reset to 0", EITHER, lambda: [Board(0, energy=Reset(2))],
             floor=0.9),
        Case("F3 package jumps forward 40 kJ", RIGHT,
             lambda: [zone(show=step(2, 40_000_000_000))]),
        Case("F4 board 0 lost at the start", RIGHT,
             lambda: [Board(0, status=lambda t: LOST, counted=False), Board(1)]),
        Case("F4 board 0 lost at the start, 1 visible", HELD,
             lambda: [Board(0, status=lambda t: LOST, counted=False), Board(1)], visible="1"),
        Case("F4 board 0 lost at the start, GPU-bbbb visible", HELD,
             lambda: [Board(0, status=lambda t: LOST, counted=False), Board(1)],
             visible="GPU-bbbb"),
        Case("F5 socket 1 fails from the start", MARKED,
             lambda: [zone(0), zone(1, show=lambda t, v: EIO)], floor=0.48),
        Case("F5 socket 1 for root only", MARKED, lambda: [zone(0), zone(1, mode=0o400)],
             floor=0.48, also=says_on_stderr("chmod")),
        Case("F5 socket 1 vanishes", MARKED, lambda: [zone(0), zone(1, show=during(0.5, 99, GONE))],
             5, floor=0.5),
        Case("F5 the zone vanishes at half", MARKED, lambda: [zone(show=during(2, 99, GONE))],
             floor=0.3),
        Case("F5 the file is empty from half", MARKED, lambda: [zone(show=during(2, 99, ""))],
             floor=0.3),
        Case("F5 reads fail from half", MARKED, lambda: [zone(show=during(2, 99, EIO))],
             floor=0.3),
        Case("F5 the counter stalls from half", MARKED, lambda: [zone(show=Stall(4))], 8),
        Case("F5 package frozen all the time, memory fine", MARKED,
             lambda: [zone(show=Stall(-9)), dram()], 5),
        Case("F5 counters that stay 0 (a virtual machine)", EITHER,
             lambda: [zone(i, 0.0, lambda t, v: 0) for i in (0, 1)], shell=BURN,
             also=is_estimated),
        Case("F5 board's counter stays 0", RIGHT, lambda: [Board(0, energy=lambda t, mj: 0)], 5),
        Case("F5 IPMI says 65535 W", EITHER,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: 65535)], settings=NODE),
        Case("F6 5 kW package reset to 0", EITHER, lambda: [zone(0, 5000.0, Reset(2))],
             floor=0.8),
        Case("F6 wraps hidden by a stopped meter", EITHER,
             lambda: [zone(0, 500.0, range_uj=10**9)], 7, floor=0.3,
             shell="sleep 1; kill -STOP $PPID; sleep 5; kill -CONT $PPID; sleep 1"),
        Case("F7 12 packages, zones 0 to b", HELD, lambda: [zone(i) for i in range(12)]),
        Case("F8 EPYC 7763", EITHER, list, shell=BURN, cpuinfo=AMD,
             also=is_core_power(2.1, 2.3)),
        Case("F8 an EPYC without a number: Genoa", EITHER, list, shell=BURN, cpuinfo=GENOA,
             also=is_core_power(1.8, 3.4)),
        Case("F9 counter above 2^63 from half on", MARKED,
             lambda: [zone(0), zone(1, show=during(2, 99, TOO_LARGE))], status=3, floor=0.7),
        Case("F9 counter is -5 from half on", MARKED,
             lambda: [zone(0), zone(1, show=during(2, 99, "-5"))], floor=0.7),
        Case("F9 counter is -5 from the start", MARKED,
             lambda: [zone(0), zone(1, show=lambda t, v: "-5")], floor=0.48),
        Case("F9 board's counter is 2^64 - 1 from half on", RIGHT,
             lambda: [Board(0, energy=during(2, 99, TOO_LARGE))], settings="period_s = 0.1\n",
             status=3),
        Case("F9 Redfish says 1e30 W", EITHER,
             lambda: [zone(), Redfish(shown_w=lambda t, w: "1e30")], settings=use_redfish,
             status=3),
        Case("F9 Redfish says NaN", EITHER,
             lambda: [zone(), Redfish(shown_w=lambda t, w: "NaN")], settings=use_redfish),
        Case("F9 Redfish says 1e400 now and then", EITHER,
             lambda: [zone(), Redfish(shown_w=lambda t, w: "1e400" if t % 1 < 0.3 else w)],
             settings=use_redfish),
        Case("F9 --rebuild of a folder with a reading above 2^63", HELD, lambda: [zone()], 2,
             also=rebuilds(replace_reading)),
        Case("F10 pyRAPL: socket 1 goes bad at half", MARKED,
             lambda: [zone(0), zone(1, show=during(2, 99, "bad"), in_place=True)], pyrapl=True,
             floor=0.65),
        *(
            Case(f"F11 CEEMS: {what}", HELD, lambda: [zone()], 2, also=is_explained(fields))
            for what, fields in {
                "metrics of the site's own names":
                    {"total_cpu_energy_usage_kwh": {"rapl_total": 100, "ipmi_total": 120}},
                "no metrics": {},
                "null": {"total_cpu_energy_usage_kwh": None, "total_gpu_energy_usage_kwh": None},
            }.items()
        ),
        Case("F12 RTE says 210000 g/kWh", HELD, lambda: [zone(), rte(210_000)],
             settings=use_rte, also=is_table),
        Case("F12 RTE says -40 g/kWh", HELD, lambda: [zone(), rte(-40)], settings=use_rte,
             also=is_table),
        Case("F13 IPMI fails in its first half second", EITHER,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: "driver timeout" if t < 0.5 else w)], 20,
             settings=NODE, also=lambda run: None if
             run.sidecar["boundary"] == ["node"] else "the node's figure is lost"),
        Case("F13 IPMI may not be asked", EITHER,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: "/dev/ipmi0: Permission denied")],
             settings=NODE, also=says_on_stderr("Permission denied")),
        Case("F13 board without a counter, 50 W / 400 W each second, 1 Hz", HELD,
             lambda: [Board(0, wave(2.0), energy=None)], 20, settings="period_s = 1.0\n",
             also=is_within),
        Case("F13 no max_energy_range_uj, wraps", EITHER,
             lambda: [zone(start_uj=WRAPS_SOON, range_uj=None)], floor=0.85),
        Case("F13 max_energy_range_uj is 0, wraps", EITHER,
             lambda: [zone(start_uj=WRAPS_SOON, range_uj=0)], floor=0.85),
        Case("F13 max_energy_range_uj is garbage, wraps", EITHER,
             lambda: [zone(start_uj=WRAPS_SOON, range_uj="?")], floor=0.85),
        Case("F13 samples without readings in a journal", HELD, lambda: [zone()], 2,
             also=rebuilds(remove_readings)),
        Case("F13 5 kW package wraps", EITHER, lambda: [zone(0, 5000.0, start_uj=WRAPS_SOON)],
             floor=0.8),
    ]  # fmt: skip
    held = [
        Case("held two sockets with memory, package 0 wraps", HELD,
             lambda: [zone(0, start_uj=WRAPS_SOON), dram(0), zone(1), dram(1)]),
        Case("held two dies with counters of their own", HELD,
             lambda: [Zone("0", "package-0-die-0", 100.0), dram(0),
                      Zone("1", "package-0-die-1", 120.0, start_uj=9 * 10**10), dram(1)],
             cpuinfo=INTEL),
        Case("held packages 0 and 2 with psys", HELD,
             lambda: [zone(0), Zone("1", "package-2", 110.0), Zone("2", "psys", 230.0)]),
        Case("held AMD, 65.5 kJ, package and core, wraps", HELD,
             lambda: [zone(0, 150.0, range_uj=65_532_610_987, start_uj=65_300_000_000),
                      Zone("0:0", "core", 40.0, range_uj=65_532_610_987)], cpuinfo=AMD),
        Case("held memory below psys", HELD,
             lambda: [zone(0), Zone("1", "psys", 150.0), Zone("1:0", "dram", 10.0, counted=False)]),
        Case("held reads fail for 1 s", HELD, lambda: [zone(show=during(1.5, 2.5, EIO))]),
        Case("held refreshed at 1 Hz", HELD, lambda: [zone(show=Refreshed(1))], 20, error=0.06),
        Case("held a user without rights", EITHER, lambda: [zone(counted=False, mode=0o400)],
             shell=BURN, also=lambda run: is_estimated(run) or says_on_stderr("chmod a+r")(run)),
        Case("held one board", HELD, lambda: [Board(0)]),
        Case("held board 1 of two by its index", HELD, lambda: [Board(0, counted=False), Board(1)],
             visible="1"),
        Case("held board 1 of two by its UUID", HELD, lambda: [Board(0, counted=False), Board(1)],
             visible="GPU-bbbb"),
        Case("held board without a counter", HELD, lambda: [Board(0, energy=None)]),
        Case("held board without a power", HELD, lambda: [Board(0, shown_mw=None)]),
        Case("held IPMI", HELD, lambda: [zone(), Ipmi()], settings=NODE),
        Case("held IPMI hangs", HELD, lambda: [zone(), Ipmi(shown_w=lambda t, w: "hang")],
             settings=NODE),
        Case("held IPMI dies at 1.5 s of 6", EITHER,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: "gone" if t > 1.5 else w)], 6,
             settings=NODE),
        Case("held Redfish", HELD, lambda: [zone(), Redfish()], settings=use_redfish),
        *(
            Case(f"held Redfish gives {what}", HELD,
                 lambda answer=answer: [zone(), Redfish(shown_w=lambda t, w: answer)],
                 settings=use_redfish)
            for what, answer in {
                "401": (401, b""), "null": "null", "a text": '"220"', "404": (404, b"{}"),
                "HTML": (200, b"<html>"),
            }.items()
        ),
        Case("held a meter below the meter", HELD, lambda: [zone()],
             shell="utils/meter.sh --stage 6 --name inner --dir {root}/inner -- sleep {seconds}"),
        Case("held the meter is killed", HELD, lambda: [zone()], killed=True, status=-9,
             shell="sleep 3; kill -9 $PPID; sleep 1"),
        Case("held a journal cut by up to 200 bytes", HELD, lambda: [zone()], also=is_cut_well),
        Case("held two meters at once", HELD, lambda: [zone()], 5, also=is_whole_too,
             shell="env -u SV_METER_ACTIVE -u SV_METER_NODES utils/meter.sh --stage 6 "
             "--name beside --dir {root}/beside --sysfs {root} -- sleep {seconds}"),
        Case("held cpu_share: the machine is whole, the job's part small", HELD, lambda: [zone()],
             figure="energy_node_kwh", settings='attribution = "cpu_share"\n', also=lambda run: None
             if run.sidecar["energy_kwh"] < 0.9 * run.sidecar["energy_node_kwh"] else "no part"),
        Case("held the command is killed", HELD, lambda: [zone()], status=137,
             shell="sleep 3; kill -9 $$"),
        Case("held the command is stopped for 2 s", HELD, lambda: [zone()],
             shell="(sleep 3; kill -CONT $$) & sleep 1; kill -STOP $$"),
        *(
            Case(f"held RTE says {value}", HELD, lambda value=value: [zone(), rte(value)], 3,
                 settings=use_rte, also=is_table)
            for value in (0, None)
        ),
    ]  # fmt: skip
    return [*faults, *held, *list_neighbours()]


def list_neighbours() -> list[Case]:
    """List the cases of the same kinds that no list names."""
    lost = lambda at_s: lambda t: LOST if t >= at_s else 0  # noqa: E731
    # call, error, from when on, whether the board is lost, least part of what it and a package used
    breaks = [
        ("nvmlInit", "RuntimeError", 0, True, 0.9),
        ("nvmlDeviceGetCount", "SystemError", 0, True, 0.9),
        ("nvmlDeviceGetUUID", "OverflowError", 0, False, 0.24),
        ("nvmlDeviceGetFieldValues", "SystemError", 0, False, 0.9),
        ("nvmlDeviceGetTotalEnergyConsumption", "OverflowError", 2, False, 0.9),
        ("nvmlDeviceGetName", "RuntimeError", 2, False, 0.9),
        ("nvmlDeviceGetComputeRunningProcesses", "OverflowError", 0, False, 0.9),
        ("nvml.NvmlReader.__init__", "SystemError", 0, True, 0.9),
        ("nvml.NvmlReader.start", "RuntimeError", 0, False, 0.9),
        ("nvml.NvmlReader.read", "SystemError", 2, False, 0.4),
        ("nvml.NvmlReader.read", "MemoryError", 0, False, 0.24),
        ("nvml.NvmlReader.read_metadata", "OverflowError", 0, False, 0.9),
        ("nvml.NvmlReader.close", "RuntimeError", 0, False, 0.9),
        ("nvmlDeviceGetPowerUsage", "SystemExit", 2, False, 0.9),
        ("nvmlDeviceGetTotalEnergyConsumption", "SystemExit", 2, False, 0.5),
        ("readers.Reader.read", "OverflowError", 2, False, 0.4),
        ("estimate.EstimateReader.read", "OSError", 2, False, 0.9),
        ("estimate.EstimateReader.__init__", "ValueError", 0, False, 0.9),
    ]
    return [
        Case("N jumps forward 5 kJ", RIGHT, lambda: [zone(show=step(2, 5_000_000_000))]),
        Case("N steps back 1 J", EITHER, lambda: [zone(show=step(2, -1_000_000))]),
        Case("N steps back 40 J", RIGHT, lambda: [zone(show=step(2, -40_000_000))]),
        Case("N steps back 100 J, 1 Hz", RIGHT, lambda: [zone(show=step(4, -100_000_000))], 9,
             settings="period_s = 1.0\n"),
        Case("N jumps forward 5 kJ, 1 Hz", RIGHT, lambda: [zone(show=step(4, 5_000_000_000))], 9,
             settings="period_s = 1.0\n"),
        Case("N reset at 1 Hz", EITHER, lambda: [zone(show=Reset(4.4))], 9, floor=0.97,
             settings="period_s = 1.0\n"),
        Case("N steps back after the load changed", EITHER,
             lambda: [zone(power=lambda t: 30.0 if t < 3 else 300.0, show=step(4, -100_000_000))],
             8, floor=0.85),
        Case("N steps back 100 J every second", EITHER,
             lambda: [zone(show=lambda t, v: v - 100_000_000 * max(0, int(t)))], 6),
        Case("N a counter that glitches to 0 once", EITHER,
             lambda: [zone(show=during(2, 2.25, 0))], floor=0.9),
        Case("N a counter that glitches to its range once", EITHER,
             lambda: [zone(show=during(2, 2.25, 262_143_328_849))], floor=0.9),
        Case("N steps back before the first second ends", EITHER,
             lambda: [zone(show=step(0.3, -100_000_000))], floor=0.8),
        Case("N board's counter steps back 1 kJ, without a power", RIGHT,
             lambda: [Board(0, energy=step(2, -1_000_000), shown_mw=None)]),
        Case("N board without a counter, 50 W / 400 W, for 5 s at 1 Hz", HELD,
             lambda: [Board(0, wave(1.94), energy=None)], 5,
             settings="period_s = 1.0\n", error=0.3, also=is_within),
        Case("N board's counter jumps 100 kJ", RIGHT,
             lambda: [Board(0, energy=step(2, 100_000_000))]),
        *(
            Case(f"N held for {seconds} s", HELD, lambda: [zone(), dram(), Board(0)], seconds,
                 settings="period_s = 1.0\n", error=0.1) for seconds in (0.1, 0.5, 1)
        ),
        Case("N held by the default settings", HELD,
             lambda: [zone(), dram(), Board(0), Ipmi(500.0)], 14, settings="period_s = 1.0\n"),
        Case("N a load that comes and goes", HELD,
             lambda: [zone(power=lambda t: 20.0 if t % 3 < 2 else 400.0), dram(power=0.3),
                      Board(0, lambda t: 30.0 if t % 3 < 2 else 700.0)], 9,
             settings="period_s = 1.0\n"),
        Case("N a power that is a mean of its last second", HELD,
             lambda: [Board(0, wave(1.7), shown_mw=LastSecond())], 9),
        Case("N the meter is stopped for 2 s", HELD, lambda: [zone(), Board(0)], 5,
             shell="sleep 1; kill -STOP $PPID; sleep 2; kill -CONT $PPID; sleep 2"),
        Case("N a board's waves of 1.03 s, 1 Hz", HELD, lambda: [Board(0, wave(1.03))], 35,
             settings="period_s = 1.0\n"),
        Case("N a board's waves of 1 s, 1 Hz, sampled when low", HELD,
             lambda: [Board(0, wave(1.0, 0.4))], 35, settings="period_s = 1.0\n", floor=0.95),
        Case("N three packages of one counter, Intel", RIGHT,
             lambda: mirror(3, die=False), cpuinfo=INTEL),
        Case("N two packages of one counter that wraps", RIGHT,
             lambda: [first := zone(0, 280.0, start_uj=WRAPS_SOON), zone(1, of=first)],
             cpuinfo=INTEL),
        Case("N two packages that begin alike", HELD,
             lambda: [zone(0), zone(1, 104.0, start_uj=200_000_400_000)], 6),
        Case("N two packages that begin at 0", HELD,
             lambda: [zone(0, start_uj=0), zone(1, 104.0, start_uj=0)], 6),
        Case("N mirrored packages with memory of their own", RIGHT,
             lambda: [*mirror(2, die=False), dram(0), dram(1, 12.0)], cpuinfo=INTEL),
        Case("N mirrors of which one is lost at half", RIGHT,
             lambda: [zone(0, 280.0), zone(1, 280.0, during(2, 99, EIO), counted=False,
                                           start_uj=200_000_000_000)],
             cpuinfo=INTEL),
        Case("N stalls for 5 s, then catches up", HELD, lambda: [zone(show=Stall(3, 8))], 11),
        Case("N a counter refreshed every 4 s", EITHER, lambda: [zone(show=Refreshed(4))], 24,
             error=0.2),
        Case("N stalls for 5 s, then goes on", EITHER,
             lambda: [zone(show=Stall(3, 8, catch_up=False))], 11),
        Case("N stalls at half of one socket of two", MARKED,
             lambda: [zone(0), zone(1, show=Stall(4))], 8, floor=0.7),
        Case("N frozen all the time of one socket of two", MARKED,
             lambda: [zone(0), zone(1, show=Stall(-9))], 6, floor=0.48),
        Case("N memory frozen, the package live", MARKED,
             lambda: [zone(), dram(show=Stall(-9))], 6, floor=0.85),
        Case("N memory stalls at half", MARKED, lambda: [zone(), dram(show=Stall(4))], 8,
             floor=0.9),
        Case("N a socket goes and comes back", EITHER,
             lambda: [zone(0), zone(1, show=during(2, 4, GONE))], 6),
        Case("N a board lost at 30 % of two", MARKED,
             lambda: [Board(0), Board(1, status=lost(1.8))], 6, floor=0.6),
        Case("N a board lost for a second", EITHER,
             lambda: [Board(0, status=lambda t: LOST if 2 <= t < 3 else 0)], 5),
        Case("N board's counter stalls at half", EITHER, lambda: [Board(0, energy=Stall(3))], 7),
        Case("N board's counter stalls for its last 2 s", EITHER,
             lambda: [Board(0, energy=Stall(5))], 7),
        Case("N board's counter at a quarter of its power", RIGHT,
             lambda: [Board(0, energy=lambda t, mj: mj // 4)], 7),
        Case("N board's counter at 5 times its power", RIGHT,
             lambda: [Board(0, energy=lambda t, mj: 5 * mj)], 7),
        Case("N board's counter 20 % above its power", MARKED,
             lambda: [Board(0, 250.0, shown_mw=lambda t, mw: mw * 5 // 6)], 7, floor=0.8),
        *(
            Case(f"N board without a counter says {mw:#x} mW every second second", EITHER,
                 lambda mw=mw: [Board(0, energy=None,
                                      shown_mw=lambda t, right: mw if t % 2 > 1.5 else right)], 6)
            for mw in (0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
        ),
        Case("N board without a counter says 0x7fffffff mW always", MARKED,
             lambda: [zone(), Board(0, energy=None, shown_mw=lambda t, mw: 0x7FFFFFFF)],
             floor=0.24),
        *(
            Case(f"N board with a counter says {mw:#x} mW", EITHER,
                 lambda mw=mw: [Board(0, shown_mw=lambda t, _: mw)], 7, floor=0.95)
            for mw in (0, 0x7FFFFFFF)
        ),
        Case("N IPMI says 200 W and 65535 W in turn", EITHER,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: 65535 if t % 1 > 0.5 else w)], 6,
             settings=NODE),
        Case("N IPMI says a tenth of the packages", RIGHT,
             lambda: [zone(0), zone(1), Ipmi(220.0, shown_w=lambda t, w: 20)], 6, settings=NODE),
        Case("N IPMI says less than the boards", RIGHT,
             lambda: [zone(), Board(0), Ipmi(450.0, shown_w=lambda t, w: 250)], 6, settings=NODE),
        Case("N IPMI feeds the boards of other jobs", HELD,
             lambda: [zone(0, 60.0), Ipmi(3000.0)], 6, settings=NODE),
        Case("N IPMI says 15 kW with a package of 100 W", EITHER,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: 15_000)], settings=NODE),
        Case("N IPMI silent from 2 to 4 s of 6", HELD,
             lambda: [zone(), Ipmi(shown_w=lambda t, w: "gone" if 2 <= t < 4 else w)], 6,
             settings=NODE, also=lambda run: None if
             "node" not in run.sidecar["boundary"] else "the node is the total"),
        Case("N a board without a counter silent from 2 to 4 s of 6", RIGHT,
             lambda: [Board(0, energy=None, status=lambda t: LOST if 2 <= t < 4 else 0)], 6),
        Case("N IPMI's thread cannot be started", EITHER, lambda: [zone(), Ipmi()],
             broken=("node.PolledReader.start", "RuntimeError", "0"), settings=NODE, status=3),
        Case("N Cray", HELD, lambda: [zone(), Cray()]),
        Case("N Cray jumps 1 MJ", RIGHT, lambda: [zone(), Cray(show=step(2, 10**6))]),
        Case("N Cray steps back 10 kJ", RIGHT, lambda: [zone(), Cray(show=step(2, -10_000))]),
        Case("N Cray stalls at half", EITHER, lambda: [zone(), Cray(show=Stall(4))], 8, floor=0.45),
        Case("N Cray frozen all the time", EITHER, lambda: [zone(), Cray(show=Stall(-9))], 6),
        Case("N IPMI says 32767 W", EITHER, lambda: [zone(), Ipmi(shown_w=lambda t, w: 32_767)],
             settings=NODE),
        Case("N Redfish answers nested lists from half on", EITHER,
             lambda: [zone(), Redfish(shown_w=lambda t, w: w if t < 2 else
                                      (200, b"[" * 200_000))], settings=use_redfish, status=3),
        Case("N Redfish answers true", HELD,
             lambda: [zone(), Redfish(shown_w=lambda t, w: "true")], settings=use_redfish),
        Case("N counter is a float", EITHER, lambda: [zone(0), zone(1, show=lambda t, v: "1e5")],
             status=3, floor=0.48),
        Case("N counter has other digits than ASCII's", MARKED,
             lambda: [zone(0), zone(1, show=lambda t, v: "٣٤٥")], status=3, floor=0.48),
        Case("N pyRAPL: two sockets", HELD, lambda: [zone(0), zone(1)], pyrapl=True),
        Case("N pyRAPL: a jump of 40 kJ", RIGHT, lambda: [zone(show=step(2, 40_000_000_000))],
             pyrapl=True),
        Case("N pyRAPL: two packages of one counter", RIGHT,
             lambda: [first := zone(0, 280.0), zone(1, of=first)], pyrapl=True, cpuinfo=INTEL),
        Case("N pyRAPL: two sockets, one bad from the start", MARKED,
             lambda: [zone(0), zone(1, show=lambda t, v: "bad")], pyrapl=True, floor=0.48),
        *(
            Case(f"N a job's meter too: {what}", expect, parts, 4, floor=floor, shell=JOB,
                 settings='submit_attribution = "exclusive"\n')
            for what, expect, parts, floor in (
                ("two sockets", HELD, lambda: [zone(0), dram(0), zone(1)], 0),
                ("a board", HELD, lambda: [Board(0)], 0),
                ("three packages of one counter", RIGHT, lambda: mirror(3, die=False), 0),
                ("a step back", RIGHT, lambda: [zone(show=step(2, -100_000_000))], 0),
                ("a jump", RIGHT, lambda: [zone(show=step(2, 40_000_000_000))], 0),
                ("a socket that fails", MARKED, lambda: [zone(0), zone(1, show=lambda t, v: EIO)],
                 0.45),
                ("a board's counter at 5 times its power", RIGHT,
                 lambda: [Board(0, energy=lambda t, mj: 5 * mj)], 0),
                ("a board lost at half", MARKED, lambda: [Board(0), Board(1, status=lost(2))], 0.6),
                ("a frozen package", MARKED, lambda: [zone(0), zone(1, show=Stall(-9))], 0.45),
            )
        ),
        *(
            Case(f"N {call} throws {error} {'at half' if at else 'from the start'}", EITHER,
                 lambda is_lost=is_lost: [zone(), Board(0, counted=not is_lost)],
                 broken=(call, error, str(at)), status=3, floor=floor)
            for call, error, at, is_lost, floor in breaks
        ),
    ]  # fmt: skip
