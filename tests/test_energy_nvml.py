"""GPU boards through the real pynvml and a libnvidia-ml.so.1 compiled here."""

import json
import shutil
import subprocess

import pytest

pytest.importorskip("pynvml")
CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler (cc) for a fake libnvidia-ml")

# Two boards; their counters are files of $FAKE_NVML, a missing file is "not supported".
LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char *uuids[] = {"GPU-aaaa1111-0", "GPU-bbbb2222-0"};
typedef long handle; /* 1 and 2: boards; 11: a MIG device of board 1 */
static int read_file(const char *what, handle board, unsigned long long *value) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.%ld", getenv("FAKE_NVML"), what, board - 1);
  FILE *file = fopen(path, "r");
  if (!file) return 3;
  int ok = fscanf(file, "%llu", value);
  fclose(file);
  return ok == 1 ? 0 : 999;
}
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *device) { *device = i + 1; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device) {
  *device = 11;
  return strcmp(uuid, "MIG-cccc") ? 6 : 0;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle mig, handle *device) {
  *device = mig - 10;
  return 0;
}
int nvmlDeviceGetUUID(handle board, char *text, unsigned length) {
  snprintf(text, length, "%s", uuids[board - 1]);
  return 0;
}
int nvmlDeviceGetName(handle board, char *text, unsigned length) {
  snprintf(text, length, "Fake %ld", board);
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(handle board, unsigned long long *mj) {
  return read_file("energy", board, mj);
}
int nvmlDeviceGetPowerUsage(handle board, unsigned *mw) {
  unsigned long long value = 0;
  int status = read_file("power", board, &value);
  *mw = (unsigned)value;
  return status;
}
"""
BOARD_A, BOARD_B = "nvml.board.GPU-aaaa1111-0", "nvml.board.GPU-bbbb2222-0"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(LIBRARY)
    words = [CC, "-w", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "nvml.c"]
    subprocess.run(words, check=True)
    return folder


@pytest.fixture
def meter(run_cli, library, tmp_path):
    """Run a command on two boards at 1000 mJ and 50 W; give the channels by id and stderr."""
    for i in (0, 1):
        (tmp_path / f"energy.{i}").write_text("1000")
        (tmp_path / f"power.{i}").write_text("50000")
    (tmp_path / "energy.toml").write_text("period_s = 0.05\n")

    def run(command, visible=None):
        env = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(tmp_path)}
        if visible is not None:
            env["CUDA_VISIBLE_DEVICES"] = visible
        done = run_cli(
            "sv.bin.meter", "--stage", "6", "--name", "extract", "--dir", tmp_path / "e",
            "--config", tmp_path / "energy.toml", "--sysfs", tmp_path, "--", "sh", "-c", command,
            env=env,
        )  # fmt: skip
        sidecar = json.loads((tmp_path / "e" / "06_extract.json").read_text())
        channels = {channel["id"]: channel for channel in sidecar["channels"]}
        boards = {key: value for key, value in channels.items() if key.startswith("nvml")}
        return boards, sidecar, done

    return run


def test_boards_are_separate_channels_and_summed(meter, tmp_path):
    boards, sidecar, _ = meter(f"echo 31000 >{tmp_path}/energy.0; echo 8000 >{tmp_path}/energy.1")
    assert list(boards) == [BOARD_A, BOARD_B]
    assert [board["energy_j"] for board in boards.values()] == [30.0, 7.0]
    assert {board["kind"] for board in boards.values()} == {"measured"}
    estimate_j = sidecar["channels"][-1]["energy_j"]
    assert sidecar["energy_kwh"] * 3.6e6 == pytest.approx(37 + estimate_j)
    assert sidecar["measured_fraction"] == pytest.approx(37 / (37 + estimate_j))


def test_without_a_counter_the_power_is_integrated(meter, tmp_path):
    (tmp_path / "energy.1").unlink()
    boards, sidecar, _ = meter("sleep 0.4", visible="1")
    board = boards[BOARD_B]
    assert (board["kind"], board["method"]) == ("derived", "power_integral")
    assert board["energy_j"] == pytest.approx(50 * sidecar["duration_s"], rel=0.02)
    assert board["samples"]["n"] >= 4 and board["raw"]["unit"] == "mW"


def test_a_board_without_both_is_unavailable(meter, tmp_path):
    (tmp_path / "energy.0").unlink()
    (tmp_path / "power.0").unlink()
    boards, _, _ = meter("true", visible="0")
    assert boards[BOARD_A]["kind"] == "unavailable" and boards[BOARD_A]["energy_j"] is None
    assert "Not Supported" in boards[BOARD_A]["reason"]


def test_a_reloaded_driver_is_told(meter, tmp_path):
    boards, _, _ = meter(f"echo 400 >{tmp_path}/energy.0", visible="0")
    assert boards[BOARD_A]["energy_j"] == 0.4 and "reset" in boards[BOARD_A]["reason"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0", [BOARD_A]),
        ("1,0", [BOARD_B, BOARD_A]),
        ("GPU-bbbb", [BOARD_B]),
        ("0,7,1", [BOARD_A]),  # an item that names nothing hides the rest
        ("", ["nvml"]),
        ("-1", ["nvml"]),
        ("MIG-cccc", [BOARD_A]),
        ("MIG-GPU-bbbb2222-0/1/0", [BOARD_B]),
    ],
)
def test_visible_devices(meter, visible, expected):
    boards, _, _ = meter("true", visible=visible)
    assert list(boards) == expected
    if expected == ["nvml"]:
        assert boards["nvml"]["kind"] == "unavailable"
        assert "CUDA_VISIBLE_DEVICES" in boards["nvml"]["reason"]
    if visible.startswith("MIG"):
        assert "whole parent board" in boards[expected[0]]["reason"]
