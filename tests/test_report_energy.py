"""What Table 3 says of an energy's quality: uncertainty, energy above idle, a job's part."""

from report_tree import GPU, MEASURED, build_tree, read_csv, write_all_tables, write_sidecar

NODE = {**MEASURED, "id": "ipmi.node", "boundary": "node", "source": "ipmitool"}
NO_BOARD = {**GPU, "kind": "unavailable", "in_total": False, "reason": "no driver"}


def test_table_3_shows_uncertainty_and_energy_above_idle(tmp_path):
    data, exp = build_tree(tmp_path)
    energy = exp / "resnet50_d" / "energy"
    write_sidecar(
        energy / "05_train.json", 51.69, NODE, NO_BOARD, energy_node_kwh=80.0,
        attribution={"rule": "cpu_share", "inputs": {}, "reason": None}, uncertainty_kwh=2.5,
        energy_above_idle_kwh=-0.25, boundary=["node"],
    )  # fmt: skip
    tables = write_all_tables(data, exp)
    rows = {(row["name"], row["system"]): row for row in read_csv(tables / "table3.csv")}
    train = rows["train", "resnet50_d"]
    assert float(train["uncertainty_kwh"]) == 2.5
    assert float(train["energy_above_idle_kwh"]) == -0.25
    assert (train["attribution"], train["boundary"]) == ("cpu_share", "node")
    assert float(train["energy_node_kwh"]) == 80.0
    text = (tables / "table3.md").read_text()
    assert "± (kWh, k = 2)" in text and "Above idle (kWh)" in text
    # Rows that cover something else are named below the table, and the job's part is called so.
    assert "Energy covers different parts between rows, which must not be compared" in text
    assert "node, of which the job's part by the rule cpu_share (05_train resnet50_d)" in text
    other = rows["train", "resnet50_d_2822"]
    assert other["uncertainty_kwh"] == other["energy_above_idle_kwh"] == ""
