"""A figure that calls itself measured is measured: a case or two of each kind of fault.

All kinds with all their neighbours: python3 tests/bench/meter_faults.py.
"""

import shutil

import pytest
from bench.meter_faults import format_run, run_cases
from faulty_machine import build_nvml

AT_ONCE = 16  # most of a case is a command that sleeps
CHOSEN = (
    "F1 one of two boards lost at half",
    "F2 12 zones of one counter, by their readings",
    "F3 package steps back 100 J",
    "F3 package jumps forward 40 kJ",
    "F4 board 0 lost at the start",
    "F5 socket 1 fails from the start",
    "F5 package frozen all the time, memory fine",
    "F5 counters that stay 0 (a virtual machine)",
    "F5 board's counter stays 0",
    "F5 IPMI says 65535 W",
    "F6 wraps hidden by a stopped meter",
    "F7 12 packages, zones 0 to b",
    "F9 board's counter is 2^64 - 1 from half on",
    "F9 Redfish says NaN",
    "F10 pyRAPL: socket 1 goes bad at half",
    "F12 RTE says 210000 g/kWh",
    "N board without a counter, 50 W / 400 W, for 5 s at 1 Hz",
    "N nvml.NvmlReader.read throws SystemError at half",
    "N two packages that begin alike",
    "held two sockets with memory, package 0 wraps",
    "held IPMI dies at 1.5 s of 6",
)

pytest.importorskip("pynvml")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All chosen cases, run side by side."""
    library = tmp_path_factory.mktemp("nvml")
    library.chmod(0o755)
    build_nvml(library)
    return {run.name: run for run in run_cases(CHOSEN, AT_ONCE, library)}


@pytest.mark.parametrize("name", CHOSEN)
def test_faults(runs, name):
    run = runs[name]
    if run.skipped:
        pytest.skip(run.skipped)
    assert not run.wrong, format_run(run)
