"""What lies beside the sidecars, as notes of a table."""

import json
from types import SimpleNamespace

import pytest

from sv.errors import SvError
from sv.report.tables.companions import companion_notes


@pytest.fixture
def results(tmp_path):
    """A recipe with one system."""
    (tmp_path / "exp/m/energy/recost").mkdir(parents=True)
    system = SimpleNamespace(name="m", directory=tmp_path / "exp/m")
    return SimpleNamespace(systems=[system], data=tmp_path / "data")


def write(path, schema, **fields):
    path.write_text(json.dumps({"schema": schema, **fields}))


def test_no_companion_no_note(results):
    assert companion_notes(results) == []


def test_companions_are_notes_with_their_ratio(results):
    folder = results.systems[0].directory
    write(
        folder / "energy/ceems.json", "energy-imported/1", imported={"energy_kwh": 2.0},
        source={"system": "CEEMS", "job": "12", "cluster": "slurm-0"}, ours={"energy_kwh": 1.8},
        ratio={"energy_kwh": None}, ratio_reason="CEEMS counts GPUs that our figure lacks",
    )  # fmt: skip
    expected = {"energy_kwh": 10.0, "energy_kwh_low": 8.0, "energy_kwh_high": 12.0}
    forecast = {"expected": expected, "extrapolation": "125 times the steps"}
    write(folder / "forecast.json", "energy-forecast/1", **forecast, outcome=None)
    write(
        folder / "energy/recost/05_train.rte-FRA.json", "energy-recost/1", sidecar="05_train.json",
        carbon={"provider": "rte", "scope": "direct"}, co2_g=12.0, ratio=0.25,
    )  # fmt: skip
    imported, before, anew = (note.text for note in companion_notes(results))
    assert "CEEMS counts 2.000 kWh for job 12 of slurm-0" in imported
    assert "not known (CEEMS counts GPUs" in imported and "our meter 1.800 kWh" in imported
    assert "10.00 kWh (8.000 kWh to 12.00 kWh)" in before and "has not ended" in before
    assert anew.startswith("m: 05_train.json costed anew: 12.00 gCO2e (rte, direct), 0.25 times")
    outcome = {"energy_kwh": 9.0, "ratio": {"energy_kwh": 0.9}}
    write(folder / "forecast.json", "energy-forecast/1", **forecast, outcome=outcome)
    assert "9.000 kWh came, 0.90 times the forecast" in companion_notes(results)[1].text


def test_a_file_of_another_kind_is_an_error(results):
    write(results.systems[0].directory / "forecast.json", "energy-forecast/9")
    with pytest.raises(SvError, match=r"forecast\.json: schema is 'energy-forecast/9'"):
        companion_notes(results)
