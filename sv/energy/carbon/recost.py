"""New grams from old energy: a sidecar's energy at another carbon factor.

A sidecar stays what its journal says: the new figure goes into a file of its own,
``recost/<NN>_<name>.<provider>[-<zone>][-<year>].json`` beside it. No energy is changed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sv.energy.carbon import electricity_maps, rte
from sv.energy.carbon.factor import CarbonFactor
from sv.energy.carbon.intervals import apply_factors
from sv.energy.carbon.providers import ask_providers, check_providers
from sv.energy.carbon.utc import parse_utc
from sv.energy.config import NETWORK, EnergyConfig, list_providers
from sv.energy.journal import SUFFIX
from sv.energy.series import read_energy_series
from sv.energy.sidecar import SCHEMA as SIDECAR_SCHEMA
from sv.energy.summary import format_figure
from sv.energy.units import j_from_kwh
from sv.errors import SvError
from sv.files import read_json, write_json

SCHEMA = "energy-recost/1"
SAME = 1e-6  # relative: the journal gives the energy of its sidecar
Fields = dict[str, Any]


def recost(path: Path, config: EnergyConfig, environ: Mapping[str, str]) -> tuple[Path, Fields]:
    """Write the emissions of one sidecar at the factor of the config's one provider.

    Args:
        path: The sidecar. A factor that varies needs its journal beside it.
        config: ``carbon`` names one provider.
        environ: Has the token of Electricity Maps.

    Returns:
        The file that was written and what is in it.

    Raises:
        SvError: It is no sidecar, its journal is missing or says another energy, or the
            provider did not answer. No other provider is asked instead.
        UsageError: The provider cannot know the country or the year.
    """
    sidecar = read_json(path)
    if not isinstance(sidecar, dict) or sidecar.get("schema") != SIDECAR_SCHEMA:
        raise SvError(f"{path}: not a sidecar of the meter ('{SIDECAR_SCHEMA}')")
    check_providers(config)
    pue = sidecar["pue"]["value"]
    (provider,) = list_providers(config)
    if sidecar["energy_kwh"] is None:
        points = []
    elif provider in NETWORK:
        points = _read_points(path, sidecar)
    else:
        last = sidecar["attempts"][-1]
        end_s = parse_utc(last["started_utc"]) + last["duration_s"]
        start_s = parse_utc(sidecar["started_utc"])
        points = [(start_s, 0.0), (max(end_s, start_s), j_from_kwh(sidecar["energy_kwh"]))]
    factors = _ask(provider, config, environ, points)
    carbon = apply_factors(points, factors, pue)
    known = sidecar["co2_g"] and carbon["co2_g"] is not None
    result = {
        "schema": SCHEMA,
        "sidecar": path.name,
        "sidecar_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "stage": sidecar["stage"],
        "name": sidecar["name"],
        "model": sidecar["model"],
        "energy_kwh": sidecar["energy_kwh"],
        "measured_fraction": sidecar["measured_fraction"],
        "pue": sidecar["pue"],
        "old": {
            "co2_g": sidecar["co2_g"],
            "carbon": {
                key: value
                for key, value in sidecar["carbon"].items()
                if key not in ("intervals", "parts", "co2_g")
            },
        },
        "co2_g": carbon["co2_g"],
        "carbon": carbon,
        "ratio": carbon["co2_g"] / sidecar["co2_g"] if known else None,
    }
    words = [carbon["provider"], carbon["zone"], carbon["year"]]
    label = "-".join(str(word) for word in words if word is not None)
    written = path.parent / "recost" / f"{path.stem}.{label}.json"
    write_json(written, result)
    return written, result


def _read_points(path: Path, sidecar: Fields) -> list[tuple[float, float]]:
    journal = path.with_name(path.stem + SUFFIX)
    if not journal.is_file():
        raise SvError(f"no such file {journal}: a factor that varies needs the journal beside it")
    points = read_energy_series(journal)
    if not points:
        raise SvError(f"{journal}: no energy in it, and the sidecar has one")
    energy_j, series_j = j_from_kwh(sidecar["energy_kwh"]), points[-1][1] - points[0][1]
    if abs(series_j - energy_j) > SAME * max(energy_j, series_j):
        raise SvError(
            f"{journal} gives {series_j:.6g} J and {path.name} {energy_j:.6g} J; write the sidecar "
            f"again: python3 -m sv.bin.meter --rebuild {path.parent}"
        )
    return points


def _ask(
    provider: str,
    config: EnergyConfig,
    environ: Mapping[str, str],
    points: list[tuple[float, float]],
) -> list[CarbonFactor]:
    if provider not in NETWORK:
        factor = ask_providers(config, environ, 0.0)
        if factor.g_per_kwh is None:
            raise SvError(f"{provider}: {factor.reason}")
        return [factor]
    if not points:
        return [CarbonFactor(provider, reason="the energy is not known")]
    span = (points[0][0], points[-1][0])
    try:
        if provider == "rte":
            return rte.fetch_history(config, *span)
        return electricity_maps.fetch_history(config, environ, *span)
    except SvError as error:
        raise type(error)(f"{provider}: {error}") from error


def format_table(results: list[tuple[Path, Fields]]) -> str:
    """Format a row a sidecar: energy, old grams, new grams, and what each factor stands for."""
    rows = [("sidecar", "kWh", "old g", "new g", "new/old", "old factor", "new factor")]
    for path, result in results:
        old, new = result["old"], result["carbon"]
        rows.append(
            (
                str(path.parent.parent / result["sidecar"]),
                *(
                    "-" if figure is None else format_figure(figure)
                    for figure in (
                        result["energy_kwh"], old["co2_g"], result["co2_g"], result["ratio"],
                    )
                ),
                _describe_factor(old["carbon"]),
                _describe_factor(new),
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _describe_factor(carbon: Fields) -> str:
    if carbon["g_per_kwh"] is None:
        return f"unknown ({carbon['reason']})"
    facts = [carbon[key] for key in ("provider", "zone", "year", "scope", "basis")]
    words = " ".join(str(fact) for fact in facts if fact is not None)
    return f"{format_figure(carbon['g_per_kwh'])} g/kWh ({words})"
