"""Sidecars for tests that read them: every field has a value, a test names those that matter."""

from dataclasses import replace

from sv.energy.record import (
    SCHEMA,
    Attempt,
    Attribution,
    AttributionInputs,
    Carbon,
    Channel,
    Mark,
    Meter,
    Pue,
    Samples,
    Sidecar,
)

SAMPLES = Samples(n=100, failed=0, max_gap_s=1.0, covered=1.0)
EXCLUSIVE = Attribution("exclusive", AttributionInputs(jobs_on_node=1), None)
CARBON = Carbon(
    provider="owid", zone="FRA", year=2024, scope="lifecycle", basis="production", g_per_kwh=50.0,
    source="a table", reason=None, co2_g=None, intervals=(),
)  # fmt: skip
CHANNEL = Channel(
    id="rapl.package.0", boundary="cpu_package", kind="measured", method="counter_delta",
    source="intel-rapl:0", in_total=True, reason=None, power_w_per_core=None, contained_in=(),
    energy_j=3.6e6, u_energy_j=None, raw=None, power_w=None, samples=SAMPLES,
)  # fmt: skip
METER = Meter(
    label=None, start=1, host="node1", boot_id="b", status="complete", exit_code=0,
    started_utc="2026-01-01T00:00:00.000Z", boot_s=(0.0, 100.0), duration_s=100.0, counted_s=100.0,
    energy_kwh=1.0, rule="exclusive", channels=("rapl.package.0",), reason=None,
)  # fmt: skip
ATTEMPT = Attempt(
    attempt=1, status="complete", exit_code=0, resumed=False, host="node1", boot_id="b",
    started_utc="2026-01-01T00:00:00.000Z", boot_s=(0.0, 100.0), duration_s=100.0, suspended_s=0.0,
    clock_step_s=0.0, argv=("true",), git={}, energy_kwh=1.0, energy_node_kwh=1.0,
    uncertainty_kwh=0.1, uncertainty_reason=None, measured_fraction=1.0, boundary=("cpu_package",),
    attribution=EXCLUSIVE, reason=None, co2_g=None, carbon=CARBON, pue=Pue(1.0, "none"),
    period_s=1.0, max_gap_s=1.0, meter_cpu_s=0.1, metadata=(), channels=(CHANNEL,), crosschecks=(),
    marks=(), phases=(), meters=(METER,),
)  # fmt: skip


def make_channel(boundary="cpu_package", energy_j=3.6e6, **more):
    """Return a channel."""
    return replace(CHANNEL, boundary=boundary, energy_j=energy_j, **more)


def make_mark(mark, t_s, energy_kwh, **payload):
    """Return a mark."""
    return Mark(mark, t_s, energy_kwh, None, payload)


def make_attempt(number=1, energy_kwh=1.0, **more):
    """Return an attempt of one meter."""
    meter = replace(METER, energy_kwh=energy_kwh)
    filled = {"energy_node_kwh": energy_kwh, "meters": (meter,), **more}
    return replace(ATTEMPT, attempt=number, energy_kwh=energy_kwh, **filled)


def make_sidecar(*attempts, **more):
    """Return the sidecar of a stage whose result the last attempt made; of that are its figures."""
    attempts = attempts or (make_attempt(),)
    last = attempts[-1]
    known_kwh = [a.energy_kwh for a in attempts if a.energy_kwh is not None]
    same = (
        "status", "exit_code", "host", "started_utc", "duration_s", "energy_kwh", "energy_node_kwh",
        "uncertainty_kwh", "uncertainty_reason", "measured_fraction", "boundary", "attribution",
        "reason", "co2_g", "carbon", "pue", "channels", "crosschecks", "phases",
    )  # fmt: skip
    values = {
        "schema": SCHEMA, "stage": 5, "name": "train", "model": "m", "torn_lines": 0,
        "energy_all_kwh": sum(known_kwh) if known_kwh else None, "co2_all_g": last.co2_g,
        "run_attempts": (last.attempt,), "attempts": attempts,
    }  # fmt: skip
    return Sidecar(**{**values, **{key: getattr(last, key) for key in same}, **more})
