"""Bold figures and marks of ties, on systems of the study; what may not be compared is not bold."""

import json

from report_tree import GERMANY, GPU, MEASURED, read_markdown, write_all_tables, write_sidecar
from study_exp import build_study

SYSTEMS = ("resnet419_d", "resnet200_d", "resnet50_d", "resnet50_w0.25")
AVERAGE, ENERGY, CO2 = "Average EER (%)", "Energy (kWh)", "CO2 (kg)"


def find_bold(directory, name="table1"):
    """Give the labels of the rows whose figure is bold, by column."""
    table = json.loads((directory / f"{name}.json").read_text())
    bold = {
        column["key"]: [
            row["label"] for row in table["rows"] if row["cells"][column["key"]]["best"]
        ]
        for column in table["columns"]
    }
    return {key: rows for key, rows in bold.items() if rows}


def test_the_lowest_of_each_column_is_bold(tmp_path):
    directory = write_all_tables(*build_study(tmp_path, SYSTEMS))
    bold = find_bold(directory)
    assert bold["eer_percent"] == bold["min_dcf"] == ["resnet419_d"]
    assert bold["energy_kwh"] == bold["co2_kg"] == ["resnet50_w0.25"]
    # Printed alike, bold alike: nobody can tell 1.42 from 1.42.
    assert bold["eer_percent_vox1_h"] == ["resnet419_d", "resnet200_d"]
    assert not {"parameters", "parameters_with_head", "duration_s"} & set(bold)
    rows = {row["System"]: row for row in read_markdown(directory / "table1.md")}
    assert rows["resnet419_d"][AVERAGE] == "**3.35**"
    assert rows["resnet50_w0.25"][ENERGY] == "**34.35**"
    text = (directory / "table1.md").read_text()
    assert "- Bold: the best, which is the lowest, of its column." in text
    assert "is bold: the figures" not in text
    # Of each test set, over both precisions.
    bold = find_bold(directory, "table2")
    assert bold["energy_kwh"] == ["resnet50_w0.25 commonbench fp16"]
    assert bold["eer_percent"][1:-1] == ["resnet200_d commonbench fp32"]


def test_ties_of_a_precision_are_marked(tmp_path):
    data, exp = build_study(tmp_path, SYSTEMS)

    def read_eers():
        rows = read_markdown(write_all_tables(data, exp, sets=("commonbench",)) / "table2.md")
        assert len(rows) == 8
        return {(row["System"], row["Precision"]): row["EER (%)"] for row in rows}

    eers = read_eers()
    assert eers["resnet200_d", "FP32"] == "**3.460**"
    assert eers["resnet200_d", "FP16"] == "3.462"  # no replicates of its own: nothing is said
    scores = exp / "resnet200_d" / "scores"
    boot = json.loads((scores / "commonbench_cosine.boot.json").read_text())
    eer_percent = json.loads((scores / "commonbench_cosine_fp16.json").read_text())["eer_percent"]
    own = {**boot, "of_eer_percent": eer_percent}
    (scores / "commonbench_cosine_fp16.boot.json").write_text(json.dumps(own))
    assert read_eers()["resnet200_d", "FP16"] == "3.462≈"


def test_energies_that_mean_different_things_are_not_compared(tmp_path):
    data, exp = build_study(tmp_path, SYSTEMS)
    path = exp / "resnet50_w0.25" / "energy" / "05_train.json"
    # Another grid: the energies may be compared, the CO2 not.
    write_sidecar(path, 34.35, MEASURED, GPU, carbon=GERMANY)
    bold = find_bold(write_all_tables(data, exp))
    assert bold["energy_kwh"] == ["resnet50_w0.25"] and "co2_kg" not in bold
    text = (exp / "results" / "table1.md").read_text()
    assert "- No CO2 is bold: the figures have different CO2 factors." in text
    # Without the boards: neither.
    write_sidecar(path, 34.35, MEASURED)
    bold = find_bold(write_all_tables(data, exp))
    assert "energy_kwh" not in bold and "co2_kg" not in bold
    text = (exp / "results" / "table1.md").read_text()
    assert "No energy and no CO2 is bold: the figures cover different parts of the machines" in text
    # One that was estimated.
    estimated = {**GPU, "kind": "estimated"}
    write_sidecar(path, 34.35, MEASURED, estimated, fraction=0.2)
    write_all_tables(data, exp)
    text = (exp / "results" / "table1.md").read_text()
    assert "is bold: the figures are measured in some rows and estimated in others." in text
    # An incomplete one is a lower bound and takes no part.
    write_sidecar(path, 34.35, MEASURED, GPU, status="interrupted")
    assert find_bold(write_all_tables(data, exp))["energy_kwh"] == ["resnet50_d"]


def test_one_system_is_not_the_best_of_one(tmp_path):
    directory = write_all_tables(*build_study(tmp_path, ("resnet50_d",)), sets=("voxceleb1",))
    assert find_bold(directory) == find_bold(directory, "table2") == {}
    assert "Bold" not in (directory / "table1.md").read_text()
