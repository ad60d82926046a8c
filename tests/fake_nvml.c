/* A libnvidia-ml.so.1 whose boards are files of $FAKE_NVML: `<what>.<board>` holds a number, or
   `!<code>`, the NVML error that the call gives; a missing file is "not supported". `status.<board>`
   is what every call about the board gives, `count` how many there are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef long handle; /* 1, 2, ...: boards */
typedef unsigned long long number;

static int read_file(const char *what, handle board, number *value) {
  char path[4096], text[64];
  int status = 0;
  snprintf(path, sizeof path, "%s/%s.%ld", getenv("FAKE_NVML"), what, board - 1);
  FILE *file = fopen(path, "r");
  if (!file) return 3;
  if (!fgets(text, sizeof text, file)) status = 999;
  else if (text[0] == '!') status = atoi(text + 1);
  else if (sscanf(text, "%llu", value) != 1) status = 999;
  fclose(file);
  return status;
}

static int ask(const char *what, handle board, number *value) {
  number code = 0;
  int status = read_file("status", board, &code);
  return status && status != 3 ? status : read_file(what, board, value);
}

static int tell(handle board) { /* what needs no file of its own */
  number code = 0;
  int status = read_file("status", board, &code);
  return status == 3 ? 0 : status;
}

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) {
  number value = 0;
  char path[4096];
  snprintf(path, sizeof path, "%s/count", getenv("FAKE_NVML"));
  FILE *file = fopen(path, "r");
  if (!file || fscanf(file, "%llu", &value) != 1) return 999;
  fclose(file);
  *count = (unsigned)value;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *device) {
  *device = i + 1;
  return tell(*device);
}
int nvmlDeviceGetUUID(handle board, char *text, unsigned length) {
  int letter = 'a' + (int)board - 1, digit = '0' + (int)board;
  snprintf(text, length, "GPU-%c%c%c%c%c%c%c%c-0", letter, letter, letter, letter, digit, digit,
           digit, digit);
  return tell(board);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device) {
  unsigned count;
  char known[64];
  if (nvmlDeviceGetCount_v2(&count)) return 999;
  for (*device = 1; *device <= (handle)count; ++*device) {
    int status = nvmlDeviceGetUUID(*device, known, sizeof known);
    if (!strcmp(known, uuid)) return status;
  }
  return 6;
}
int nvmlDeviceGetName(handle board, char *text, unsigned length) {
  snprintf(text, length, "Fake %ld", board);
  return tell(board);
}
int nvmlDeviceGetTotalEnergyConsumption(handle board, number *mj) {
  return ask("energy", board, mj);
}
int nvmlDeviceGetPowerUsage(handle board, unsigned *mw) {
  number value = 0;
  int status = ask("power", board, &value);
  *mw = (unsigned)value;
  return status;
}
int nvmlDeviceGetEnforcedPowerLimit(handle board, unsigned *mw) {
  *mw = 700000;
  return tell(board);
}
int nvmlDeviceGetMigMode(handle board, unsigned *now, unsigned *pending) {
  *now = *pending = 0;
  return tell(board);
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  snprintf(text, length, "999.1");
  return 0;
}
typedef struct {
  unsigned field, scope;
  long long timestamp, latency;
  unsigned type, status;
  union { double d; unsigned ui; number ull; } value;
} field_value;
int nvmlDeviceGetFieldValues(handle board, int count, field_value *values) {
  int status = tell(board);
  for (int i = 0; i < count; i++) {
    number mw = 0;
    values[i].status = 3;
    if (values[i].field == 186 && values[i].scope == 0)
      values[i].status = ask("instant", board, &mw);
    values[i].type = values[i].status ? 99 : 1;
    values[i].value.ui = (unsigned)mw;
  }
  return status;
}
typedef struct { unsigned pid; number memory; unsigned gi, ci; } process;
int nvmlDeviceGetComputeRunningProcesses_v3(handle board, unsigned *count, process *found) {
  *count = 0;
  return tell(board);
}
