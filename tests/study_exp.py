"""A tree as stages 0 to 7 leave it after the whole study, filled with the study's own figures.

Test data: nothing here was measured. Fifteen systems, five trial lists with paired replicates,
epochs with their energy, CommonBench extracted in fp32 and fp16.
"""

from report_tree import (
    GPU,
    MEASURED,
    write,
    write_extraction,
    write_scores,
    write_sidecar,
    write_statistics,
)

LISTS = {
    "vox1_o": "voxceleb1", "vox1_e": "voxceleb1", "vox1_h": "voxceleb1",
    "commonbench": "commonbench", "cnceleb": "cnceleb",
}  # fmt: skip
# System: parameters, GMAC of 350 frames, kWh, kg of CO2, then EER of each list.
SYSTEMS = {
    "resnet419_d": (132015616, 335.92, 895.67, 13.734, 0.68, 0.80, 1.42, 3.48, 10.37),
    "resnet200_d": (59939328, 164.46, 222.53, 3.091, 0.72, 0.82, 1.42, 3.46, 10.81),
    "resnet101_d": (36830208, 89.87, 135.27, 4.263, 0.71, 0.82, 1.45, 3.50, 11.24),
    "resnet50_d": (15635968, 50.76, 51.69, 0.982, 0.88, 0.92, 1.62, 3.81, 11.52),
    "resnet34_d": (14925056, 48.07, 46.2, 0.661, 0.99, 1.00, 1.75, 3.94, 11.83),
    "resnet18_d": (8036352, 26.19, 63.05, 0.790, 1.19, 1.19, 2.04, 4.18, 11.94),
    "resnet50_d_8222": (10437632, 80.61, 76.67, 1.127, 0.97, 0.98, 1.67, 3.81, 11.59),
    "resnet50_d_2822": (10437632, 41.06, 52.06, 0.769, 0.83, 0.93, 1.60, 3.74, 11.16),
    "resnet50_d_2282": (15847424, 41.46, 49.33, 0.728, 0.84, 0.90, 1.57, 3.71, 11.39),
    "resnet50_d_2228": (15847424, 31.27, 47.0, 0.688, 0.93, 1.03, 1.81, 4.02, 11.74),
    "resnet50_d_2662": (14734336, 45.79, 53.82, 0.796, 0.76, 0.88, 1.52, 3.66, 11.41),
    "resnet50_w4": (232410880, 811.68, 438.46, 6.98, 0.82, 0.87, 1.59, 3.92, 11.63),
    "resnet50_w2": (59582720, 202.95, 120.76, 1.66, 0.83, 0.85, 1.54, 3.84, 11.34),
    "resnet50_w0.5": (4279424, 12.70, 40.05, 0.62, 1.01, 1.06, 1.80, 3.87, 11.70),
    "resnet50_w0.25": (1255360, 3.18, 34.35, 0.47, 1.49, 1.53, 2.50, 4.45, 12.94),
}
EPOCHS = 42
CROPS = EPOCHS * 1_091_584


def build_study(root, systems=tuple(SYSTEMS), *, statistics=True):
    """Write data/ and exp/ under ``root`` for some systems of the study; give both folders."""
    data, exp = root / "data", root / "exp"
    lists = "".join(f"{trials} {data_set}\n" for trials, data_set in LISTS.items())
    write(data / "test_trials", lists)
    for stem, kwh in (("01_manifests", 0.02), ("02_augment", 0.01), ("03_fbank", 4.5)):
        write_sidecar(data / "energy" / f"{stem}.json", kwh, MEASURED)
    for name in systems:
        _write_system(exp, name, statistics)
    return data, exp


def _write_system(exp, name, statistics):
    parameters, gmac, kwh, co2_kg, *eers = SYSTEMS[name]
    epochs = [
        {"epoch": epoch, "valid_eer_percent": eers[0] * (1 + 9 * 0.85**epoch)}
        for epoch in range(EPOCHS + 1)
    ]
    network = {
        "name": name, "parameters": parameters, "parameters_with_head": parameters + 1534464,
        "gmac": gmac, "crop_frames": 350, "crops_trained": CROPS, "epochs": epochs,
    }  # fmt: skip
    write(exp / name / "model.json", network)
    duration_s = kwh * 3.6e6 / 400
    marks = [
        {
            "mark": "epoch", "payload": row, "t_s": duration_s * row["epoch"] / EPOCHS,
            "energy_kwh": kwh * row["epoch"] / EPOCHS, "energy_reason": None,
        }
        for row in epochs[1:]
    ]  # fmt: skip
    attempt = {
        "argv": ["steps/train_xvector.sh", "--model", name], "marks": marks,
        "git": {"commit": "c" * 40, "dirty": False},
    }  # fmt: skip
    energy = exp / name / "energy"
    channels = [{**MEASURED, "energy_j": kwh * 0.9e6}, {**GPU, "energy_j": kwh * 2.7e6}]
    common = {"duration_s": duration_s, "channels": channels, "attempts": [attempt]}
    write_sidecar(energy / "05_train.json", kwh, co2_g=1000 * co2_kg, model=name, **common)
    for (trials, data_set), eer_percent in zip(LISTS.items(), eers, strict=True):
        write_scores(exp, name, trials, data_set, eer_percent, det=False)
        if statistics:
            write_statistics(exp, name, trials, eer_percent, own=0.03, digest=trials)
        write_sidecar(energy / f"07_score_{trials}_cosine.json", 0.001, MEASURED, model=name)
    for precision, factor in (("fp32", 0.0387), ("fp16", 0.0245)):
        suffix = "" if precision == "fp32" else f"_{precision}"
        if precision == "fp16":
            write_scores(
                exp, name, "commonbench", "commonbench", eers[3] + 0.002, det=False,
                suffix=suffix, precision=precision,
            )  # fmt: skip
        write_extraction(exp, name, "commonbench", precision, utterances=120_000)
        path = energy / f"06_extract_commonbench{suffix}.json"
        inference_kwh = 1.2 + gmac * factor
        write_sidecar(path, inference_kwh, MEASURED, GPU, model=name, duration_s=3000.0)
