"""The one line that the meter prints at the end of a stage."""

from pathlib import Path

from sv.energy.record import Carbon, Sidecar


def format_summary(sidecar: Sidecar, path: Path) -> str:
    """Format ``stage 5 train: 0.0123 kWh (estimated), 0.5 gCO2e, 312 s -> <path>``."""
    parts = [_format_energy(sidecar)]
    if sidecar.co2_g is not None:
        fallback = _format_fallback(sidecar.carbon)
        parts.append(f"{format_figure(sidecar.co2_g)} gCO2e{fallback}")
    parts.append(f"{format_figure(sidecar.duration_s)} s")
    if sidecar.status != "complete":
        parts.append(f"{sidecar.status} with status {sidecar.exit_code}")
    return f"stage {sidecar.stage} {sidecar.name}: {', '.join(parts)} -> {path}"


def _format_energy(sidecar: Sidecar) -> str:
    if sidecar.energy_kwh is None:
        return f"energy unknown ({sidecar.reason})"
    fraction = sidecar.measured_fraction
    if fraction is None:
        how = "nothing advanced"
    elif fraction in (0.0, 1.0):
        how = "measured" if fraction else "estimated"
    else:
        how = f"{fraction:.0%} measured"
    return f"{format_figure(sidecar.energy_kwh)} kWh ({how})"


def _format_fallback(carbon: Carbon) -> str:
    failed = carbon.fallback_from
    return f" (at {carbon.provider}, because {'; '.join(failed)})" if failed else ""


def format_figure(value: float) -> str:
    """Format with three figures, without an exponent for what a person writes without one."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
