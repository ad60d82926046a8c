"""GPU boards through the real pynvml and a libnvidia-ml.so.1 compiled here."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import environment

from sv.energy.sensors import nvml
from sv.energy.sensors.nvml import NvmlReader

pytest.importorskip("pynvml")
CC = shutil.which("cc")
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler (cc) for a fake libnvidia-ml")

# Two boards; their counters are files of $FAKE_NVML, a missing file is "not supported".
LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char *uuids[] = {"GPU-aaaa1111-0", "GPU-bbbb2222-0"};
typedef long handle; /* 1 and 2: boards; 11 and 21: MIG devices of board 1 */
static int read_file(const char *what, handle board, unsigned long long *value) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.%ld", getenv("FAKE_NVML"), what, board - 1);
  FILE *file = fopen(path, "r");
  if (!file) return 3;
  int ok = fscanf(file, "%llu", value);
  fclose(file);
  return ok == 1 ? 0 : 999;
}
int nvmlInitWithFlags(unsigned flags) {
  unsigned long long status;
  return read_file("init", 1, &status) ? 0 : (int)status;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
static int fail(const char *what, handle board) { /* with the status in the file, if it is there */
  unsigned long long status;
  return read_file(what, board, &status) ? 0 : (int)status;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *device) {
  *device = i + 1;
  return fail("handle", *device);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device) {
  *device = strcmp(uuid, "MIG-dddd") ? 11 : 21;
  return *device == 11 && strcmp(uuid, "MIG-cccc") ? 6 : 0;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle mig, handle *device) {
  *device = mig % 10;
  return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(handle board, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle board, unsigned i, handle *device) {
  *device = 10 * (i + 1) + board;
  return i < 2 ? 0 : 6;
}
int nvmlDeviceGetUUID(handle board, char *text, unsigned length) {
  static char *parts[] = {"", "MIG-cccc", "MIG-dddd"};
  snprintf(text, length, "%s", board > 10 ? parts[board / 10] : uuids[board - 1]);
  return fail("uuid", board);
}
int nvmlDeviceGetName(handle board, char *text, unsigned length) {
  snprintf(text, length, "Fake %ld", board);
  return fail("name", board);
}
int nvmlDeviceGetTotalEnergyConsumption(handle board, unsigned long long *mj) {
  return read_file("energy", board, mj);
}
typedef struct {
  unsigned field, scope;
  long long timestamp, latency;
  unsigned type, status;
  union { double d; unsigned ui; unsigned long long ull; } value;
} field_value;
int nvmlDeviceGetFieldValues(handle board, int count, field_value *values) {
  static const char *names[] = {"instant", "module"};
  for (int i = 0; i < count; i++) {
    unsigned long long mw = 0;
    values[i].status = 3;
    if (values[i].field == 186 && values[i].scope < 2)
      values[i].status = read_file(names[values[i].scope], board, &mw);
    values[i].type = values[i].status ? 99 : 1;
    values[i].value.ui = (unsigned)mw;
  }
  return 0;
}
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process;
int nvmlDeviceGetComputeRunningProcesses_v3(handle board, unsigned *count, process *found) {
  unsigned long long pid;
  if (read_file("pid", board, &pid)) { *count = 0; return 0; }
  if (!found) { *count = 1; return 7; }
  *count = 1;
  memset(found, 0, sizeof *found);
  found->pid = (unsigned)pid;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(handle board, int *major, int *minor) {
  unsigned long long value = 0; /* 70 is 7.0 */
  int status = read_file("capability", board, &value);
  *major = (int)value / 10, *minor = (int)value % 10;
  return status;
}
int nvmlDeviceGetEnforcedPowerLimit(handle board, unsigned *mw) { *mw = 700000; return 0; }
int nvmlDeviceGetPowerManagementLimitConstraints(handle board, unsigned *low, unsigned *high) {
  unsigned long long mw;
  int status = read_file("limit", board, &mw);
  *low = 100000;
  *high = (unsigned)mw;
  return status;
}
int nvmlDeviceGetMigMode(handle board, unsigned *now, unsigned *pending) {
  unsigned long long mode;
  *now = *pending = read_file("mig", board, &mode) == 0;
  return 0;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  snprintf(text, length, "999.1");
  return 0;
}
int nvmlDeviceGetPowerUsage(handle board, unsigned *mw) {
  unsigned long long value = 0;
  int status = read_file("power", board, &value);
  *mw = (unsigned)value;
  return status;
}
"""
POWER_A, POWER_B = "nvml.power.GPU-aaaa1111-0", "nvml.power.GPU-bbbb2222-0"
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
        lines = (tmp_path / "e" / "06_extract.journal.jsonl").read_text().splitlines()
        specs = {spec["id"]: spec for spec in json.loads(lines[0])["channels"]}
        run.specs = {key: specs[key] for key in boards}
        return boards, sidecar, done

    return run


def test_boards_are_separate_channels_and_summed(meter, tmp_path):
    boards, sidecar, _ = meter(f"echo 31000 >{tmp_path}/energy.0; echo 8000 >{tmp_path}/energy.1")
    assert list(boards) == [BOARD_A, POWER_A, BOARD_B, POWER_B]
    assert [boards[key]["energy_j"] for key in (BOARD_A, BOARD_B)] == [30.0, 7.0]
    assert {boards[key]["kind"] for key in (BOARD_A, BOARD_B)} == {"measured"}
    estimates = [ch for ch in sidecar["channels"] if ch["kind"] == "estimated"]
    estimate_j = sum(channel["energy_j"] for channel in estimates)
    assert sidecar["energy_kwh"] * 3.6e6 == pytest.approx(37 + estimate_j)
    assert sidecar["measured_fraction"] == pytest.approx(37 / (37 + estimate_j))


def test_without_a_counter_the_power_is_integrated(meter, tmp_path):
    (tmp_path / "energy.1").unlink()
    boards, sidecar, _ = meter("sleep 0.4", visible="1")
    board = boards[BOARD_B]
    assert (board["kind"], board["method"]) == ("derived", "power_integral")
    assert board["energy_j"] == pytest.approx(50 * sidecar["duration_s"], rel=0.02)
    assert board["samples"]["n"] >= 4 and board["raw"]["unit"] == "mW"


def test_the_counter_is_checked_against_the_instantaneous_power(meter, tmp_path):
    (tmp_path / "instant.0").write_text("60000")
    boards, sidecar, _ = meter("sleep 0.4", visible="0")
    check = boards[POWER_A]
    assert check["energy_j"] == pytest.approx(60 * sidecar["duration_s"], rel=0.02)
    assert not check["in_total"] and check["contained_in"] == [BOARD_A]
    assert "POWER_INSTANT" in check["source"] and "cross-check" in check["reason"]
    spec = meter.specs[BOARD_A]
    assert (spec["update_period_s"], spec["resolution"], spec["sensor_rel"]) == (0.1, 1, 0.05)
    assert spec["sensor_rel_basis"].startswith("assumed")


def test_a_module_has_the_cpu_inside(meter, tmp_path):
    """Only the module's scope answers: Grace-Hopper, driver by driver."""
    (tmp_path / "module.0").write_text("500000")
    (tmp_path / "energy.0").unlink()
    boards, sidecar, _ = meter("sleep 0.4", visible="0")
    module = boards["nvml.module.GPU-aaaa1111-0"]
    assert module["boundary"] == "gpu_module" and "processor on it is inside" in module["reason"]
    assert module["energy_j"] == pytest.approx(500 * sidecar["duration_s"], rel=0.02)
    inside = {ch["id"]: ch for ch in sidecar["channels"] if ch["kind"] == "estimated"}
    assert not inside["cpu_time"]["in_total"] and not inside["dram_time"]["in_total"]
    assert inside["cpu_time"]["contained_in"] == ["nvml.module.GPU-aaaa1111-0"]
    assert sidecar["energy_kwh"] == pytest.approx(module["energy_j"] / 3.6e6)


def test_a_module_beside_its_board_is_not_summed(meter, tmp_path):
    (tmp_path / "instant.0").write_text("60000")
    (tmp_path / "module.0").write_text("500000")
    boards, sidecar, _ = meter(f"echo 31000 >{tmp_path}/energy.0", visible="0")
    module = "nvml.module.GPU-aaaa1111-0"
    assert boards[module]["boundary"] == "gpu_module" and not boards[module]["in_total"]
    assert boards[BOARD_A]["energy_j"] == 30 and boards[BOARD_A]["in_total"]
    assert boards[BOARD_A]["contained_in"] == [module]


def test_who_else_is_on_the_board_and_mig(library, tmp_path):
    (tmp_path / "power.0").write_text("50000")
    (tmp_path / "power.1").write_text("50000")
    (tmp_path / "mig.1").write_text("1")
    (tmp_path / "pid.0").write_text("4242")
    code = (
        "import json, os, pathlib\n"
        "from sv.energy.sensors.nvml import NvmlReader\n"
        "reader = NvmlReader(None, False)\n"
        "pathlib.Path(os.environ['FAKE_NVML'], 'pid.1').write_text(str(os.getpid()))\n"
        "print(json.dumps(reader.read_metadata()['nvml']))\n"
        "print(json.dumps([channel.reason for channel in reader.channels]))\n"
    )
    env = environment(LD_LIBRARY_PATH=str(library), FAKE_NVML=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    facts, reasons = map(json.loads, done.stdout.splitlines())
    assert facts["driver"] == "999.1"
    first, second = facts["boards"].values()
    assert first == {"name": "Fake 1", "power_limit_mw": 700000, "other_pids": [4242], "mig": False}
    assert second["other_pids"] == [] and second["mig"]
    assert reasons == [None, "MIG: the energy is that of the whole parent board"]


def test_a_board_without_both_is_unavailable(meter, tmp_path):
    (tmp_path / "energy.0").unlink()
    (tmp_path / "power.0").unlink()
    boards, _, _ = meter("true", visible="0")
    assert boards[BOARD_A]["kind"] == "unavailable" and boards[BOARD_A]["energy_j"] is None
    assert "Not Supported" in boards[BOARD_A]["reason"]


LOST, UNKNOWN, NO_PERMISSION = 15, 999, 4  # nvmlReturn_t


@pytest.mark.parametrize(
    ("call", "status"), [("handle", LOST), ("handle", UNKNOWN), ("uuid", LOST), ("name", LOST)]
)
@pytest.mark.parametrize("visible", [None, "1", "GPU-bbbb", "0,1", "GPU-aaaa,GPU-bbbb"])
def test_a_board_that_is_lost_costs_no_other_its_figure(meter, tmp_path, call, status, visible):
    (tmp_path / f"{call}.0").write_text(str(status))
    if call != "handle":  # a lost board gives no figure either
        (tmp_path / "energy.0").unlink()
        (tmp_path / "power.0").unlink()
    boards, sidecar, _ = meter(f"echo 8000 >{tmp_path}/energy.1", visible=visible)
    dead = BOARD_A if call == "name" else "nvml.board.0"
    names = [BOARD_B] if visible in ("1", "GPU-bbbb") else [dead, BOARD_B]
    assert [name for name in boards if "power" not in name] == names
    assert boards[BOARD_B]["energy_j"] == 7.0 and boards[BOARD_B]["in_total"]
    if dead in boards:
        assert boards[dead]["kind"] == "unavailable" and boards[dead]["reason"]
    else:
        assert sidecar["reason"] is None


def test_a_board_without_its_uuid_is_counted_by_its_number(meter, tmp_path):
    (tmp_path / "uuid.0").write_text(str(UNKNOWN))
    boards, _, _ = meter(f"echo 8000 >{tmp_path}/energy.0", visible="GPU-aaaa1111-0")
    assert boards["nvml.board.0"]["energy_j"] == 7.0


def test_a_board_that_may_not_be_opened_is_none_of_the_jobs(meter, tmp_path):
    """CUDA does not count it: its index 0 is the next one."""
    (tmp_path / "handle.0").write_text(str(NO_PERMISSION))
    for visible in (None, "0"):
        boards, _, _ = meter("true", visible=visible)
        assert [name for name in boards if "power" not in name] == [BOARD_B]


def test_a_board_that_is_lost_while_the_command_runs(meter, tmp_path):
    lose = " ".join(f"{tmp_path}/{name}.0" for name in ("energy", "power"))
    boards, sidecar, done = meter(
        f"echo 31000 >{tmp_path}/energy.0; sleep 0.3; rm {lose}; echo {LOST} >{tmp_path}/name.0; "
        f"echo 8000 >{tmp_path}/energy.1; sleep 0.3"
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert boards[BOARD_A]["energy_j"] == 30.0 and boards[BOARD_B]["energy_j"] == 7.0
    facts = sidecar["attempts"][0]["metadata"][-1]
    assert facts[BOARD_A]["failed"] >= 2 and "Not Supported" in facts[BOARD_A]["last_error"]
    assert BOARD_B not in facts


MISMATCH, NOT_LOADED = 18, 9


@pytest.mark.parametrize(
    ("status", "visible", "lost"),
    [
        (MISMATCH, None, True), (MISMATCH, "0", True), (MISMATCH, "GPU-aaaa", True),
        (MISMATCH, "", False), (MISMATCH, "NoDevFiles", False), (NOT_LOADED, None, False),
    ],
)  # fmt: skip
def test_boards_that_nvml_cannot_name_are_told_where_the_command_may_use_them(
    meter, tmp_path, status, visible, lost
):
    (tmp_path / "init.0").write_text(str(status))
    boards, sidecar, _ = meter("true", visible=visible)
    (name,) = boards
    assert (name, boards[name]["kind"]) == ("nvml.board.unknown" if lost else "nvml", "unavailable")
    assert "NVML does not answer" in boards[name]["reason"]
    told = "nvml.board.unknown: no figure, so gpu_board is partial"
    assert sidecar["reason"] == (told if lost else None)


def test_a_container_with_a_board_and_without_its_library(monkeypatch, tmp_path):
    def open_channel():
        (channel,) = NvmlReader(None, False).channels
        return channel

    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml.so.none")
    monkeypatch.setattr(nvml, "DEVICES", tmp_path)
    assert open_channel().id == "nvml" and "no NVIDIA driver" in open_channel().reason
    (tmp_path / "nvidia0").touch()
    assert open_channel().id == "nvml.board.unknown"
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in open_channel().reason


def test_a_machine_without_the_package_of_nvml(library, tmp_path):
    code = (
        "import sys; sys.modules['pynvml'] = None\n"
        "from sv.energy.sensors.nvml import NvmlReader\n"
        "print(*(channel.id for v in (None, '') for channel in NvmlReader(v, False).channels))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(LD_LIBRARY_PATH=str(library)),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "nvml.board.unknown nvml\n"


@pytest.mark.parametrize(("visible", "own"), [("1", [BOARD_B]), ("", [])])
def test_boards_that_the_command_may_not_use_are_shown_and_no_channels(meter, visible, own):
    boards, sidecar, _ = meter("true", visible=visible)
    assert [name for name in boards if name.startswith("nvml.board")] == own
    facts = sidecar["attempts"][0]["metadata"][0]["nvml"]
    assert facts["other_boards"]["GPU-aaaa1111-0"] == "Fake 1"


def test_the_most_that_a_board_can_draw(meter, tmp_path):
    (tmp_path / "limit.0").write_text("700000")
    (tmp_path / "limit.1").write_text("4000000000")
    meter("true")
    assert [meter.specs[name]["max_power_w"] for name in (BOARD_A, BOARD_B)] == [1400.0, 2000.0]


def test_a_counter_that_says_all_ones_is_none(meter, tmp_path):
    (tmp_path / "energy.0").write_text(str(2**64 - 1))
    boards, sidecar, _ = meter("sleep 0.4", visible="0")
    assert boards[BOARD_A]["method"] == "power_integral"
    assert boards[BOARD_A]["energy_j"] == pytest.approx(50 * sidecar["duration_s"], rel=0.02)


def test_a_power_without_a_counter_is_read_five_times_a_second(meter, tmp_path):
    (tmp_path / "energy.toml").write_text("period_s = 1.0\n")
    boards, _, _ = meter("sleep 1.1", visible="0")
    assert boards[BOARD_A]["samples"]["n"] <= 4
    (tmp_path / "energy.0").unlink()
    boards, _, _ = meter("sleep 1.1", visible="0")
    assert boards[BOARD_A]["samples"]["n"] >= 6


def test_a_reloaded_driver_is_told(meter, tmp_path):
    boards, _, _ = meter(f"echo 400 >{tmp_path}/energy.0", visible="0")
    assert boards[BOARD_A]["energy_j"] == 0.4 and boards[BOARD_A]["raw"]["resets"] == 1
    assert boards[BOARD_A]["doubt"].startswith("1 steps")


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
    assert [key for key in boards if "power" not in key] == expected
    if expected == ["nvml"]:
        assert boards["nvml"]["kind"] == "unavailable"
        assert "CUDA_VISIBLE_DEVICES" in boards["nvml"]["reason"]
    if visible.startswith("MIG"):
        assert "whole parent board" in boards[expected[0]]["reason"]
