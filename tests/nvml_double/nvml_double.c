// Copyright (c) 2026, mlops.fleet contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A simulated GPU at the lowest level: a libnvidia-ml.so.1 whose answers come from a scenario file (README.md has the
// format). Unmodified clients of NVML load it as they load NVIDIA's library. Signatures, struct layouts, version words
// and error texts follow pynvml.py of nvidia-ml-py (NVIDIA's own binding). Tests only; it talks to no hardware.
//
// Order of checks, as in the real library: symbol known to this driver -> initialized -> arguments -> handle -> device state.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define VERSION_WORD(type, n) ((unsigned)sizeof(type) | (n) << 24)

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, CORRUPTED_INFOROM = 14, OUT_OF_MEMORY = 20,
    ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999,
};
enum { MAX_GPUS = 64, MAX_LINKS = 36, MAX_KEY = 64, MAX_TEXT = 4096, MAX_LIST = 256 };

static const struct { int code; const char *name, *text; } errors[] = {
    {0, "SUCCESS", "Success"}, {1, "UNINITIALIZED", "Uninitialized"}, {2, "INVALID_ARGUMENT", "Invalid Argument"},
    {3, "NOT_SUPPORTED", "Not Supported"}, {4, "NO_PERMISSION", "Insufficient Permissions"},
    {5, "ALREADY_INITIALIZED", "Already Initialized"}, {6, "NOT_FOUND", "Not Found"},
    {7, "INSUFFICIENT_SIZE", "Insufficient Size"}, {8, "INSUFFICIENT_POWER", "Insufficient External Power"},
    {9, "DRIVER_NOT_LOADED", "Driver Not Loaded"}, {10, "TIMEOUT", "Timeout"}, {11, "IRQ_ISSUE", "Interrupt Request Issue"},
    {12, "LIBRARY_NOT_FOUND", "NVML Shared Library Not Found"}, {13, "FUNCTION_NOT_FOUND", "Function Not Found"},
    {14, "CORRUPTED_INFOROM", "Corrupted infoROM"}, {15, "GPU_IS_LOST", "GPU is lost"},
    {16, "RESET_REQUIRED", "GPU requires restart"}, {17, "OPERATING_SYSTEM", "The operating system has blocked the request."},
    {18, "LIB_RM_VERSION_MISMATCH", "RM has detected an NVML/RM version mismatch."}, {19, "IN_USE", "In use"},
    {20, "MEMORY", "Insufficient Memory"}, {21, "NO_DATA", "No data"}, {22, "VGPU_ECC_NOT_SUPPORTED", "vGPU ECC not supported"},
    {23, "INSUFFICIENT_RESOURCES", "Insufficient Resources"}, {24, "FREQ_NOT_SUPPORTED", "Frequency not supported"},
    {25, "ARGUMENT_VERSION_MISMATCH", "Argument version mismatch"}, {26, "DEPRECATED", "Deprecated"},
    {27, "NOT_READY", "Not ready"}, {28, "GPU_NOT_FOUND", "GPU not found"}, {29, "INVALID_STATE", "Invalid state"},
    {30, "RESET_TYPE_NOT_SUPPORTED", "Reset type not supported"}, {999, "UNKNOWN", "Unknown Error"},
};

// First driver branch (of those worth simulating) whose library has the symbol; one not listed is in all of them. 470, 525 and
// 535 were compared with the symbols of NVIDIA's libraries, the newer ones with the nvidia-ml-py release of that branch.
static const struct { const char *symbol; int branch; } since[] = {
    {"nvmlDeviceGetComputeRunningProcesses_v3", 525}, {"nvmlDeviceGetGraphicsRunningProcesses_v3", 525},
    {"nvmlDeviceGetMPSComputeRunningProcesses_v3", 525}, {"nvmlDeviceGetMemoryInfo_v2", 525}, {"nvmlDeviceGetNumFans", 525},
    {"nvmlDeviceGetGspFirmwareVersion", 525}, {"nvmlDeviceGetGspFirmwareMode", 525}, {"nvmlDeviceGetMemoryBusWidth", 525},
    {"nvmlDeviceGetNumGpuCores", 525}, {"nvmlDeviceGetGpuMaxPcieLinkGeneration", 525}, {"nvmlDeviceGetPcieLinkMaxSpeed", 525},
    {"nvmlDeviceGetPcieSpeed", 525}, {"nvmlDeviceGetDefaultEccMode", 525}, {"nvmlDeviceGetGpuFabricInfo", 525},
    {"nvmlDeviceGetCurrentClocksEventReasons", 535}, {"nvmlDeviceGetSupportedClocksEventReasons", 535},
    {"nvmlDeviceGetRunningProcessDetailList", 535}, {"nvmlDeviceGetConfComputeMemSizeInfo", 535},
    {"nvmlDeviceGetSramEccErrorStatus", 535}, {"nvmlDeviceGetModuleId", 535}, {"nvmlDeviceGetGpuFabricInfoV", 570},
    {"nvmlDeviceGetTemperatureV", 570}, {"nvmlDeviceGetMarginTemperature", 570}, {"nvmlDeviceGetDriverModel_v2", 570},
    {"nvmlSystemGetDriverBranch", 570}, {"nvmlDeviceGetRepairStatus", 590},
    {"nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts", 590}, {"nvmlDeviceGetRemappedRows_v2", 615},
};
// `fields` is NVML_FI_MAX of the nvidia-ml-py release of the branch.
static const struct { int branch; const char *version; unsigned fields; } branches[] = {
    {470, "470.256.02", 161}, {525, "525.147.05", 197}, {535, "535.309.01", 197}, {570, "570.172.08", 269}, {590, "590.48.01", 289},
};

// Keys a scenario may use (fnmatch with extended patterns). Any other key is a mistake in the scenario, and nvmlInit then
// fails loudly: a misspelt fault must not look like a healthy GPU.
static const char *const system_keys[] = {
    "init", "all", "count", "driver_version", "driver_branch", "driver_profile", "absent", "nvml_version", "cuda_version", "process.+([0-9])",
};
#define CLOCKS "@(graphics|sm|memory|video)"
#define LINKS "nvlink.?(+([0-9]).)"
static const char *const gpu_keys[] = {
    "handle", "all", "name", "uuid", "serial", "board_part", "vbios", "minor", "index", "brand", "architecture", "compute_capability",
    "board_id", "multi_gpu_board", "module_id", "cores", "bus_width", "virtualization", "events.supported",
    "pci.@(bus_id|device_id|subsystem_id)", "temp.@(gpu|margin)", "temp.threshold.@(shutdown|slowdown|mem_max|gpu_max)",
    "temp.threshold.@(acoustic_min|acoustic_curr|acoustic_max|gps_curr)", "fan?(.count|.[0-9])",
    "power.@(usage|limit|enforced_limit|default_limit|min_limit|max_limit|management)", "energy", "util.@(gpu|memory|encoder|decoder)",
    "memory.@(total|reserved|used)", "bar1.@(total|used)", "confidential.@(protected_kib|unprotected_kib)",
    "clock.?(max.|app.)" CLOCKS, "clocks.?(supported_)reasons", "violation.+([0-9])", "pstate", "persistence",
    "display.@(mode|active)", "compute_mode", "mig.@(mode|pending|max)", "ecc.@(mode|pending|default)",
    "ecc.@(volatile|aggregate).@(corrected|uncorrected)",
    "ecc.@(volatile|aggregate).@(corrected|uncorrected).@(l1_cache|l2_cache|dram|register_file|texture_memory|texture_shm|cbu|sram)",
    "sram.@(aggregate|volatile).@(parity|secded|corrected)", "sram.bucket.@(l2|sm|pcie|mcu|other)", "sram.@(threshold_exceeded|unique)",
    "remap.@(corrected|uncorrected|pending|failure|histogram|inactive_corrected|inactive_uncorrected)", "retired.@(sbe|dbe|pending)",
    "repair.@(channel|tpc)", "nvlink.links", LINKS "@(state|version|capabilities|remote.type|remote.bus_id)",
    LINKS "error.@(replay|recovery|crc_flit|crc_data|ecc_data)", "pcie.@(gen|gen_max|gen_max_gpu|width|width_max|replay|tx|rx|speed|speed_max)",
    "fabric.@(state|status|clique|cluster|health_mask|health_summary)", "field.+([0-9])?(.+([0-9]))",
    "procs.@(compute|graphics|mps|utilization)", "inforom.@(image|oem|ecc|power|den|valid|checksum)", "gsp.@(version|mode|default)",
};

// ---- the scenario -----------------------------------------------------------------------------------------------------

struct entry {
    char *key, *steps;  // "a;b;!ERROR": `steps` points at the current one
    bool slept;         // the delay of this step was already served (size query of a two-call read)
};
struct section {
    struct entry *entries;
    size_t used, room;
};
typedef struct gpu { struct section keys; } *nvmlDevice_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct section sys, defaults;
static struct gpu gpus[MAX_GPUS];  // static, so that a handle outlives a reload
static unsigned gpu_count, init_count;
static int branch;  // of the simulated driver; a very high one without a driver_profile
static bool loaded, broken, present;

static void complain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("nvml_double: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

static int error_code(const char *name) {  // "GPU_IS_LOST" or "15" -> 15; -1 when there is none
    char *end;
    long number = strtol(name, &end, 10);
    for (size_t i = 0; i < COUNT(errors); i++)
        if (*end == '\0' && end != name ? errors[i].code == number : !strcmp(errors[i].name, name)) return errors[i].code;
    return -1;
}

static struct entry *find(struct section *section, const char *key) {
    for (size_t i = section->used; i-- > 0;)
        if (!strcmp(section->entries[i].key, key)) return &section->entries[i];
    return NULL;
}

static void set(struct section *section, const char *key, const char *steps) {
    struct entry *entry = find(section, key);
    if (!entry) {
        if (section->used == section->room) {
            section->room = section->room ? section->room * 2 : 64;
            section->entries = realloc(section->entries, section->room * sizeof *entry);
            if (!section->entries) abort();
        }
        entry = &section->entries[section->used++];
        entry->key = strdup(key);
    } else {
        free(entry->steps);
    }
    entry->steps = strdup(steps);
    entry->slept = false;
    if (!entry->key || !entry->steps) abort();
}

static void empty(struct section *section) {
    for (size_t i = 0; i < section->used; i++) {
        free(section->entries[i].key);
        free(section->entries[i].steps);
    }
    free(section->entries);
    *section = (struct section){0};
}

static char *trim(char *text) {
    text += strspn(text, " \t\r\n");
    size_t length = strlen(text);
    while (length && strchr(" \t\r\n", text[length - 1])) text[--length] = '\0';
    return text;
}

static bool steps_ok(const char *steps) {  // every !ERROR and every @delay in the list can be understood
    char copy[MAX_TEXT], *rest = copy, *step;
    snprintf(copy, sizeof copy, "%s", steps);
    while ((step = strsep(&rest, ";"))) {
        step = trim(step);
        if (*step == '@') {
            char *end;
            if (strtod(step + 1, &end) < 0 || end == step + 1 || (*end && *end != ' ')) return false;
            step = trim(end);
        }
        if (*step == '!' && error_code(step + 1) < 0) return false;
    }
    return true;
}

// A function of this library, by whose name a call can be refused or delayed.
static bool exported(const char *name) {
    Dl_info self;
    void *library = dladdr(&init_count, &self) ? dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    bool there = library && dlsym(library, name) && strcmp(name, "nvmlErrorString") != 0;
    if (library) dlclose(library);
    return there;
}

static bool known(const struct section *where, const char *key) {
    bool system = where == &sys;
    if (!fnmatch("nvml[A-Z]*", key, 0))
        return exported(key) && (system || fnmatch("nvml@(System|Event|Init|Shutdown|DeviceGetCount|DeviceGetHandleBy)*", key, FNM_EXTMATCH));
    for (size_t i = 0; i < (system ? COUNT(system_keys) : COUNT(gpu_keys)); i++)
        if (!fnmatch(system ? system_keys[i] : gpu_keys[i], key, FNM_EXTMATCH)) return true;
    return false;
}

static const char *check_absent(char *names) {
    for (char *save = NULL, *name = strtok_r(names, ", ", &save); name; name = strtok_r(NULL, ", ", &save))
        if (!exported(name)) return "absent names a function that this library does not have";
    return NULL;
}

// One line of the file. `where` is the section being filled, NULL before the first one. Returns what is wrong, or NULL.
static const char *parse_line(char *line, struct section **where) {
    unsigned number;
    int end = 0;
    line = trim(line);
    if (*line == '\0' || *line == '#') return NULL;
    if (!strcmp(line, "[system]")) return *where = &sys, NULL;
    if (!strcmp(line, "[gpu]")) return *where = &defaults, NULL;
    if (sscanf(line, "[gpu %u]%n", &number, &end) == 1 && end && !line[end]) {
        if (number >= MAX_GPUS) return "GPU number too high (0 to 63)";
        if (number >= gpu_count) gpu_count = number + 1;
        return *where = &gpus[number].keys, NULL;
    }
    char *value = strchr(line, '=');
    if (!value) return "neither a section nor key = value";
    *value++ = '\0';
    char *key = trim(line);
    value = trim(value);
    if (!*where) return "a key before the first section";
    if (strlen(key) >= MAX_KEY) return "key too long";
    if (!known(*where, key)) return "unknown key";
    if (!steps_ok(value)) return "unknown error name or bad delay";
    set(*where, key, value);
    return strcmp(key, "absent") ? NULL : check_absent(value);
}

// Reads the scenario named by NVML_DOUBLE_SCENARIO, else the system-wide one. An empty name means: none at all.
static void load(void) {
    const char *named = getenv("NVML_DOUBLE_SCENARIO"), *path = named ? named : "/etc/nvml-double/scenario.ini";
    struct section *where = NULL;
    char line[MAX_TEXT];
    empty(&sys), empty(&defaults);
    for (int i = 0; i < MAX_GPUS; i++) empty(&gpus[i].keys);
    gpu_count = 0, broken = present = false, loaded = true, branch = INT32_MAX;
    FILE *file = *path ? fopen(path, "re") : NULL;
    if (!file) {
        if (*path && named) complain("%s: %s", path, strerror(errno));
        return;
    }
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        const char *wrong = strchr(line, '\n') || feof(file) ? parse_line(line, &where) : "line too long";
        if (wrong) complain("%s:%d: %s", path, number, wrong), broken = true;
    }
    fclose(file);
    present = true;
    struct entry *profile = find(&sys, "driver_profile"), *count = find(&sys, "count");
    if (profile) branch = atoi(profile->steps);
    unsigned long wanted = count ? strtoul(count->steps, NULL, 10) : 0;
    if (wanted > gpu_count) gpu_count = wanted < MAX_GPUS ? (unsigned)wanted : MAX_GPUS;
    for (unsigned i = 0; i < gpu_count; i++)
        for (size_t k = 0; k < defaults.used; k++)
            if (!find(&gpus[i].keys, defaults.entries[k].key)) set(&gpus[i].keys, defaults.entries[k].key, defaults.entries[k].steps);
}

// Not interruptible, like an ioctl stuck in the driver: a signal handler runs only after the whole delay.
static void stall(double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
}

static void step_on(struct entry *entry) {
    char *next = strchr(entry->steps, ';');
    entry->slept = false;
    if (next) memmove(entry->steps, next + 1, strlen(next + 1) + 1);
}

// Copies the current step of a key into `text` (MAX_TEXT bytes), serves its delay and moves to the next step unless `peek`.
// Returns the step's !ERROR, NOT_SUPPORTED for a key that is not in the scenario, or SUCCESS.
static int fetch(struct section *section, const char *key, char *text, bool peek) {
    double delay = 0;
    pthread_mutex_lock(&lock);
    struct entry *entry = find(section, key);
    if (!entry) {
        pthread_mutex_unlock(&lock);
        return NOT_SUPPORTED;
    }
    char copy[MAX_TEXT];
    snprintf(copy, sizeof copy, "%.*s", (int)strcspn(entry->steps, ";"), entry->steps);
    char *step = trim(copy);
    if (*step == '@') {
        char *end;
        delay = strtod(step + 1, &end);
        step = trim(end);
        if (entry->slept) delay = 0;
        entry->slept = true;
    }
    if (!peek || *step == '!') step_on(entry);
    pthread_mutex_unlock(&lock);  // nothing of the scenario is touched after this: another thread may reload it meanwhile
    if (delay > 0) stall(delay);
    memcpy(text, step, strlen(step) + 1);
    return *step == '!' ? error_code(step + 1) : SUCCESS;
}

static void consume(struct section *section, const char *key) {
    pthread_mutex_lock(&lock);
    struct entry *entry = find(section, key);
    if (entry) step_on(entry);
    pthread_mutex_unlock(&lock);
}

// An optional key that only delays or refuses: `all`, `handle`, `init` and the names of the functions.
static int gate(struct section *section, const char *key) {
    char text[MAX_TEXT];
    pthread_mutex_lock(&lock);
    bool there = find(section, key) != NULL;
    pthread_mutex_unlock(&lock);
    if (!there) return SUCCESS;
    int code = fetch(section, key, text, false);
    if (code == SUCCESS && *text && strcmp(text, "ok")) {
        complain("%s: expected !ERROR, @seconds or ok, not '%s'", key, text);
        return UNKNOWN;
    }
    return code;
}

// Decimal or 0x number with an optional K, M, G (powers of 1024). False when it is none.
static bool number_of(const char *text, int64_t *number) {
    char *end;
    bool negative = *text == '-';
    const char *digits = text + negative, *units = " KMG";
    if (*digits < '0' || *digits > '9') return false;
    errno = 0;
    uint64_t magnitude = strtoull(digits, &end, !strncmp(digits, "0x", 2) ? 16 : 10);
    const char *unit = *end ? strchr(units + 1, *end) : NULL;
    if (unit && __builtin_mul_overflow(magnitude, (uint64_t)1 << 10 * (unit - units), &magnitude)) return false;
    *number = (int64_t)(negative ? -magnitude : magnitude);
    return !errno && !end[unit != NULL];
}

static int read_number(nvmlDevice_t gpu, const char *key, int64_t *number) {
    char text[MAX_TEXT];
    int code = fetch(&gpu->keys, key, text, false);
    if (code != SUCCESS || number_of(text, number)) return code;
    complain("%s: '%s' is not a number", key, text);
    return UNKNOWN;
}

static int read_uint(nvmlDevice_t gpu, const char *key, unsigned *out) {
    int64_t number = 0;
    int code = read_number(gpu, key, &number);
    if (code == SUCCESS) *out = (unsigned)number;
    return code;
}

// For a part of a structure that a scenario may leave out.
static int read_or_zero(nvmlDevice_t gpu, const char *key, uint64_t *out) {
    int64_t number = 0;
    int code = read_number(gpu, key, &number);
    *out = (uint64_t)number;
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

static int give_text(const char *text, char *out, unsigned room) {
    if (strlen(text) >= room) return INSUFFICIENT_SIZE;
    memcpy(out, text, strlen(text) + 1);
    return SUCCESS;
}

// A list "1:2:3, 4:5" into rows of `columns` numbers ("na" -> all bits set, missing columns -> `filler`); -1 when malformed.
static int parse_rows(const char *key, char *text, uint64_t rows[][8], int columns, uint64_t filler) {
    int count = 0;
    for (char *item, *save = NULL; (item = strtok_r(text, ", \t", &save)); text = NULL) {
        int column = 0;
        if (count == MAX_LIST) {
            complain("%s: more than %d items", key, MAX_LIST);
            return -1;
        }
        for (char *part; (part = strsep(&item, ":")); column++) {
            int64_t number = -1;
            if (column == columns || (strcmp(part, "na") && !number_of(part, &number))) {
                complain("%s: bad item near '%s'", key, part);
                return -1;
            }
            rows[count][column] = (uint64_t)number;
        }
        while (column < columns) rows[count][column++] = filler;
        count++;
    }
    return count;
}

// ---- entering a call --------------------------------------------------------------------------------------------------

static bool absent(const char *function) {
    struct entry *entry = find(&sys, "absent");
    size_t length = strlen(function);
    for (const char *at = entry ? entry->steps : NULL; at && (at = strstr(at, function)); at += length)
        if ((at == entry->steps || strchr(", ", at[-1])) && strchr(", ", at[length])) return true;
    for (size_t i = 0; i < COUNT(since); i++)
        if (!strcmp(since[i].symbol, function)) return branch < since[i].branch;
    return false;
}

static int enter_system(const char *function, bool arguments_ok) {
    pthread_mutex_lock(&lock);
    if (!loaded) load();
    int code = absent(function) ? FUNCTION_NOT_FOUND : !init_count ? UNINITIALIZED : arguments_ok ? SUCCESS : INVALID_ARGUMENT;
    pthread_mutex_unlock(&lock);
    if (code == SUCCESS) code = gate(&sys, "all");
    return code != SUCCESS ? code : gate(&sys, function);
}

static int enter(const char *function, nvmlDevice_t gpu, bool arguments_ok) {
    ptrdiff_t offset = (char *)gpu - (char *)gpus;
    bool ours = gpu && offset >= 0 && (size_t)offset < gpu_count * sizeof *gpu && (size_t)offset % sizeof *gpu == 0;
    int code = enter_system(function, arguments_ok && ours);
    if (code == SUCCESS) code = gate(&gpu->keys, "all");
    return code != SUCCESS ? code : gate(&gpu->keys, function);
}

#define ENTER(gpu, arguments_ok)                                 \
    int code = enter(__func__, gpu, arguments_ok);               \
    if (code != SUCCESS) return code
#define ENTER_SYSTEM(arguments_ok)                               \
    int code = enter_system(__func__, arguments_ok);             \
    if (code != SUCCESS) return code
#define TRY(call)                                                \
    if ((code = (call)) != SUCCESS) return code

#define UINT(function, key)                                      \
    EXPORT int function(nvmlDevice_t gpu, unsigned *out) {       \
        ENTER(gpu, out);                                         \
        return read_uint(gpu, key, out);                         \
    }
#define U64(function, key)                                       \
    EXPORT int function(nvmlDevice_t gpu, uint64_t *out) {       \
        ENTER(gpu, out);                                         \
        return read_number(gpu, key, (int64_t *)out);            \
    }
#define TWO_UINTS(function, first_key, second_key)               \
    EXPORT int function(nvmlDevice_t gpu, unsigned *first, unsigned *second) { \
        ENTER(gpu, first && second);                             \
        TRY(read_uint(gpu, first_key, first));                   \
        return read_uint(gpu, second_key, second);               \
    }
#define TEXT(function, key)                                      \
    EXPORT int function(nvmlDevice_t gpu, char *out, unsigned room) { \
        char text[MAX_TEXT];                                     \
        ENTER(gpu, out);                                         \
        TRY(fetch(&gpu->keys, key, text, false));                \
        return give_text(text, out, room);                       \
    }
// The value of one of several keys, chosen by an argument.
#define CHOICE(function, prefix, ...)                            \
    EXPORT int function(nvmlDevice_t gpu, unsigned which, unsigned *out) { \
        static const char *const names[] = {__VA_ARGS__};        \
        char key[MAX_KEY];                                       \
        ENTER(gpu, out && which < COUNT(names));                 \
        snprintf(key, sizeof key, prefix "%s", names[which]);    \
        return read_uint(gpu, key, out);                         \
    }

// ---- library and system -----------------------------------------------------------------------------------------------

EXPORT int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    if (!init_count) load();
    bool bad = broken, none = !present;
    pthread_mutex_unlock(&lock);
    if (bad) return UNKNOWN;
    if (none) return DRIVER_NOT_LOADED;
    int code = gate(&sys, "init");
    if (code == SUCCESS) code = gate(&sys, __func__);
    if (code != SUCCESS) return code;
    pthread_mutex_lock(&lock);
    init_count++;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT int nvmlInit(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void) {  // the real one answers success before any init, too
    int code = gate(&sys, __func__);
    if (code != SUCCESS) return code;
    pthread_mutex_lock(&lock);
    if (init_count) init_count--;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT const char *nvmlErrorString(int code) {
    for (size_t i = 0; i < COUNT(errors); i++)
        if (errors[i].code == code) return errors[i].text;
    return "Unknown Error";
}

static int system_text(const char *key, char *out, unsigned room) {
    char text[MAX_TEXT];
    int code = fetch(&sys, key, text, false);
    return code != SUCCESS ? code : give_text(text, out, room);
}

EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned room) {
    ENTER_SYSTEM(out);
    code = system_text("driver_version", out, room);
    for (size_t i = 0; i < COUNT(branches) && code == NOT_SUPPORTED; i++)
        if (branches[i].branch == branch) return give_text(branches[i].version, out, room);
    return code;
}

typedef struct { unsigned version; char branch[80]; } driver_branch;
EXPORT int nvmlSystemGetDriverBranch(driver_branch *info, unsigned room) {
    ENTER_SYSTEM(info && room);
    if (info->version != VERSION_WORD(*info, 1)) return ARGUMENT_VERSION_MISMATCH;
    return system_text("driver_branch", info->branch, room < sizeof info->branch ? room : sizeof info->branch);
}

EXPORT int nvmlSystemGetNVMLVersion(char *out, unsigned room) {  // works without init, as the real one does
    pthread_mutex_lock(&lock);
    if (!loaded) load();
    pthread_mutex_unlock(&lock);
    int code = out ? gate(&sys, __func__) : INVALID_ARGUMENT;
    return code == SUCCESS ? system_text("nvml_version", out, room) : code;
}

static int cuda_version(int *out) {  // 12040 means 12.4
    char text[MAX_TEXT];
    int code = fetch(&sys, "cuda_version", text, false);
    if (code == SUCCESS) *out = atoi(text);
    return code;
}
EXPORT int nvmlSystemGetCudaDriverVersion(int *out) {
    ENTER_SYSTEM(out);
    return cuda_version(out);
}
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ENTER_SYSTEM(out);
    return cuda_version(out);
}

EXPORT int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned room) {
    char key[MAX_KEY];
    ENTER_SYSTEM(out && room);
    snprintf(key, sizeof key, "process.%u", pid);
    code = system_text(key, out, room);
    return code == NOT_SUPPORTED ? NOT_FOUND : code;
}

// ---- finding a GPU ----------------------------------------------------------------------------------------------------

EXPORT int nvmlDeviceGetCount_v2(unsigned *out) {
    char text[MAX_TEXT];
    int64_t number = 0;
    ENTER_SYSTEM(out);
    code = fetch(&sys, "count", text, false);
    if (code == SUCCESS && !number_of(text, &number)) code = UNKNOWN;
    if (code == NOT_SUPPORTED) number = gpu_count, code = SUCCESS;
    if (code == SUCCESS) *out = (unsigned)number;
    return code;
}

static int hand_out(unsigned index, nvmlDevice_t *out) {
    int code = gate(&gpus[index].keys, "all");
    if (code == SUCCESS) code = gate(&gpus[index].keys, "handle");
    if (code == SUCCESS) *out = &gpus[index];
    return code;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out) {
    ENTER_SYSTEM(out && index < gpu_count);
    return hand_out(index, out);
}

// Number of the GPU whose key equals `wanted`, without serving delays or errors: who it is does not depend on its state.
static unsigned search(const char *key, const void *wanted, bool (*equal)(const char *, const void *)) {
    unsigned index = 0;
    pthread_mutex_lock(&lock);
    for (struct entry *entry; index < gpu_count; index++)
        if ((entry = find(&gpus[index].keys, key)) && equal(entry->steps, wanted)) break;
    index = index < gpu_count ? index : MAX_GPUS;
    pthread_mutex_unlock(&lock);
    return index;
}
static bool same_text(const char *value, const void *wanted) { return !strcmp(value, wanted); }
static int hand_out_named(const char *key, const char *wanted, nvmlDevice_t *out) {
    unsigned index = search(key, wanted, same_text);
    return index < MAX_GPUS ? hand_out(index, out) : NOT_FOUND;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
    ENTER_SYSTEM(uuid && out);
    return hand_out_named("uuid", uuid, out);
}
EXPORT int nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *out) {
    ENTER_SYSTEM(serial && out);
    return hand_out_named("serial", serial, out);
}

static bool parse_bus_id(const char *text, unsigned id[3]) {  // 00000000:18:00.0, 0000:18:00.0 or 18:00.0
    int end = 0;
    if (sscanf(text, "%x:%x:%x%n", &id[0], &id[1], &id[2], &end) == 3 && end) return !text[end] || !strcmp(text + end, ".0");
    id[0] = 0;
    return sscanf(text, "%x:%x%n", &id[1], &id[2], &end) == 2 && end && (!text[end] || !strcmp(text + end, ".0"));
}

static bool same_bus_id(const char *value, const void *wanted) {
    unsigned have[3];
    return parse_bus_id(value, have) && !memcmp(have, wanted, sizeof have);
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *out) {
    unsigned wanted[3];
    ENTER_SYSTEM(bus_id && out && parse_bus_id(bus_id, wanted));
    unsigned index = search("pci.bus_id", wanted, same_bus_id);
    return index < MAX_GPUS ? hand_out(index, out) : NOT_FOUND;
}

EXPORT int nvmlDeviceGetIndex(nvmlDevice_t gpu, unsigned *out) {
    ENTER(gpu, out);
    code = read_uint(gpu, "index", out);
    if (code == NOT_SUPPORTED) *out = (unsigned)(gpu - gpus), code = SUCCESS;
    return code;
}

// ---- identity ---------------------------------------------------------------------------------------------------------

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetBoardPartNumber, "board_part")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetInforomImageVersion, "inforom.image")
UINT(nvmlDeviceGetMinorNumber, "minor")
UINT(nvmlDeviceGetBrand, "brand")
UINT(nvmlDeviceGetArchitecture, "architecture")
UINT(nvmlDeviceGetBoardId, "board_id")
UINT(nvmlDeviceGetMultiGpuBoard, "multi_gpu_board")
UINT(nvmlDeviceGetModuleId, "module_id")
UINT(nvmlDeviceGetNumGpuCores, "cores")
UINT(nvmlDeviceGetMemoryBusWidth, "bus_width")
UINT(nvmlDeviceGetVirtualizationMode, "virtualization")
UINT(nvmlDeviceGetInforomConfigurationChecksum, "inforom.checksum")

EXPORT int nvmlDeviceGetInforomVersion(nvmlDevice_t gpu, unsigned object, char *out, unsigned room) {
    static const char *const keys[] = {"inforom.oem", "inforom.ecc", "inforom.power", "inforom.den"};
    char text[MAX_TEXT];
    ENTER(gpu, out && object < COUNT(keys));
    TRY(fetch(&gpu->keys, keys[object], text, false));
    return give_text(text, out, room);
}

EXPORT int nvmlDeviceValidateInforom(nvmlDevice_t gpu) {
    unsigned valid;
    ENTER(gpu, true);
    TRY(read_uint(gpu, "inforom.valid", &valid));
    return valid ? SUCCESS : CORRUPTED_INFOROM;
}

EXPORT int nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t gpu, char *out) {  // the caller's buffer has 64 bytes
    char text[MAX_TEXT];
    ENTER(gpu, out);
    TRY(fetch(&gpu->keys, "gsp.version", text, false));
    return give_text(text, out, 64);
}
TWO_UINTS(nvmlDeviceGetGspFirmwareMode, "gsp.mode", "gsp.default")

EXPORT int nvmlDeviceGetCudaComputeCapability(nvmlDevice_t gpu, int *major, int *minor) {
    char text[MAX_TEXT];
    ENTER(gpu, major && minor);
    TRY(fetch(&gpu->keys, "compute_capability", text, false));
    return sscanf(text, "%d.%d", major, minor) == 2 ? SUCCESS : UNKNOWN;
}

typedef struct {
    char legacy_bus_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_info;

static int fill_pci(const char *text, pci_info *out) {
    unsigned id[3];
    if (!parse_bus_id(text, id)) return UNKNOWN;
    *out = (pci_info){.domain = id[0], .bus = id[1], .device = id[2]};
    snprintf(out->legacy_bus_id, sizeof out->legacy_bus_id, "%04X:%02X:%02X.0", id[0] & 0xFFFF, id[1] & 0xFF, id[2] & 0xFF);
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", id[0], id[1], id[2]);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetPciInfo_v3(nvmlDevice_t gpu, pci_info *out) {
    char text[MAX_TEXT];
    uint64_t device_id, subsystem_id;
    ENTER(gpu, out);
    TRY(fetch(&gpu->keys, "pci.bus_id", text, false));
    TRY(read_or_zero(gpu, "pci.device_id", &device_id));
    TRY(read_or_zero(gpu, "pci.subsystem_id", &subsystem_id));
    TRY(fill_pci(text, out));
    out->device_id = (unsigned)device_id, out->subsystem_id = (unsigned)subsystem_id;
    return SUCCESS;
}

// ---- temperature, fan, power, clocks ----------------------------------------------------------------------------------

CHOICE(nvmlDeviceGetTemperature, "temp.", "gpu")
CHOICE(nvmlDeviceGetTemperatureThreshold, "temp.threshold.", "shutdown", "slowdown", "mem_max", "gpu_max", "acoustic_min",
       "acoustic_curr", "acoustic_max", "gps_curr")

typedef struct { unsigned version, sensor; int temperature; } temperature_v1;
typedef struct { unsigned version; int margin; } margin_v1;
EXPORT int nvmlDeviceGetTemperatureV(nvmlDevice_t gpu, temperature_v1 *out) {
    ENTER(gpu, out);
    if (out->version != VERSION_WORD(*out, 1)) return ARGUMENT_VERSION_MISMATCH;
    return out->sensor ? INVALID_ARGUMENT : read_uint(gpu, "temp.gpu", (unsigned *)&out->temperature);
}
EXPORT int nvmlDeviceGetMarginTemperature(nvmlDevice_t gpu, margin_v1 *out) {
    ENTER(gpu, out);
    return out->version != VERSION_WORD(*out, 1) ? ARGUMENT_VERSION_MISMATCH : read_uint(gpu, "temp.margin", (unsigned *)&out->margin);
}

UINT(nvmlDeviceGetFanSpeed, "fan")
UINT(nvmlDeviceGetNumFans, "fan.count")
EXPORT int nvmlDeviceGetFanSpeed_v2(nvmlDevice_t gpu, unsigned fan, unsigned *out) {
    char key[MAX_KEY];
    ENTER(gpu, out);
    snprintf(key, sizeof key, "fan.%u", fan);
    code = read_uint(gpu, key, out);
    return code == NOT_SUPPORTED ? read_uint(gpu, "fan", out) : code;
}

UINT(nvmlDeviceGetPowerUsage, "power.usage")
UINT(nvmlDeviceGetPowerManagementLimit, "power.limit")
UINT(nvmlDeviceGetPowerManagementDefaultLimit, "power.default_limit")
UINT(nvmlDeviceGetEnforcedPowerLimit, "power.enforced_limit")
UINT(nvmlDeviceGetPowerManagementMode, "power.management")
TWO_UINTS(nvmlDeviceGetPowerManagementLimitConstraints, "power.min_limit", "power.max_limit")
U64(nvmlDeviceGetTotalEnergyConsumption, "energy")

CHOICE(nvmlDeviceGetClockInfo, "clock.", "graphics", "sm", "memory", "video")
CHOICE(nvmlDeviceGetMaxClockInfo, "clock.max.", "graphics", "sm", "memory", "video")
CHOICE(nvmlDeviceGetApplicationsClock, "clock.app.", "graphics", "sm", "memory", "video")
U64(nvmlDeviceGetCurrentClocksEventReasons, "clocks.reasons")
U64(nvmlDeviceGetCurrentClocksThrottleReasons, "clocks.reasons")
U64(nvmlDeviceGetSupportedClocksEventReasons, "clocks.supported_reasons")
U64(nvmlDeviceGetSupportedClocksThrottleReasons, "clocks.supported_reasons")
UINT(nvmlDeviceGetPerformanceState, "pstate")
UINT(nvmlDeviceGetPowerState, "pstate")

typedef struct { uint64_t reference_us, violation_ns; } violation_time;
EXPORT int nvmlDeviceGetViolationStatus(nvmlDevice_t gpu, unsigned policy, violation_time *out) {
    char key[MAX_KEY];
    struct timespec now;
    ENTER(gpu, out);
    snprintf(key, sizeof key, "violation.%u", policy);
    clock_gettime(CLOCK_REALTIME, &now);
    out->reference_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    return read_number(gpu, key, (int64_t *)&out->violation_ns);
}

// ---- modes ------------------------------------------------------------------------------------------------------------

UINT(nvmlDeviceGetPersistenceMode, "persistence")
UINT(nvmlDeviceGetDisplayMode, "display.mode")
UINT(nvmlDeviceGetDisplayActive, "display.active")
UINT(nvmlDeviceGetComputeMode, "compute_mode")
UINT(nvmlDeviceGetMaxMigDeviceCount, "mig.max")
TWO_UINTS(nvmlDeviceGetMigMode, "mig.mode", "mig.pending")

EXPORT int nvmlDeviceIsMigDeviceHandle(nvmlDevice_t gpu, unsigned *out) {  // the double has whole GPUs only
    ENTER(gpu, out);
    *out = 0;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t gpu, unsigned index, nvmlDevice_t *out) {
    unsigned mode, most;
    ENTER(gpu, out);
    TRY(read_uint(gpu, "mig.mode", &mode));
    TRY(read_uint(gpu, "mig.max", &most));
    return index < most ? NOT_FOUND : INVALID_ARGUMENT;
}

static int windows_only(nvmlDevice_t gpu, const char *function, const void *a, const void *b) {
    int code = enter(function, gpu, a || b);
    return code != SUCCESS ? code : NOT_SUPPORTED;
}
EXPORT int nvmlDeviceGetDriverModel(nvmlDevice_t gpu, unsigned *current, unsigned *pending) {
    return windows_only(gpu, __func__, current, pending);
}
EXPORT int nvmlDeviceGetDriverModel_v2(nvmlDevice_t gpu, unsigned *current, unsigned *pending) {
    return windows_only(gpu, __func__, current, pending);
}

// ---- utilization and memory -------------------------------------------------------------------------------------------

typedef struct { unsigned gpu, memory; } utilization;
EXPORT int nvmlDeviceGetUtilizationRates(nvmlDevice_t gpu, utilization *out) {
    ENTER(gpu, out);
    TRY(read_uint(gpu, "util.gpu", &out->gpu));
    return read_uint(gpu, "util.memory", &out->memory);
}

static int coder_utilization(nvmlDevice_t gpu, const char *key, unsigned *out, unsigned *sampling_us) {
    *sampling_us = 167000;
    return read_uint(gpu, key, out);
}
EXPORT int nvmlDeviceGetEncoderUtilization(nvmlDevice_t gpu, unsigned *out, unsigned *sampling_us) {
    ENTER(gpu, out && sampling_us);
    return coder_utilization(gpu, "util.encoder", out, sampling_us);
}
EXPORT int nvmlDeviceGetDecoderUtilization(nvmlDevice_t gpu, unsigned *out, unsigned *sampling_us) {
    ENTER(gpu, out && sampling_us);
    return coder_utilization(gpu, "util.decoder", out, sampling_us);
}

typedef struct { uint64_t total, free, used; } memory_v1;  // BAR1 has the same shape
typedef struct { unsigned version; uint64_t total, reserved, free, used; } memory_v2;

static int read_memory(nvmlDevice_t gpu, memory_v2 *out) {
    int code;
    TRY(read_number(gpu, "memory.total", (int64_t *)&out->total));
    TRY(read_number(gpu, "memory.used", (int64_t *)&out->used));
    TRY(read_or_zero(gpu, "memory.reserved", &out->reserved));
    out->free = out->total - out->used - out->reserved;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t gpu, memory_v2 *out) {
    ENTER(gpu, out);
    return out->version != VERSION_WORD(*out, 2) ? ARGUMENT_VERSION_MISMATCH : read_memory(gpu, out);
}
EXPORT int nvmlDeviceGetMemoryInfo(nvmlDevice_t gpu, memory_v1 *out) {  // here `used` includes the reserved part
    memory_v2 memory;
    ENTER(gpu, out);
    TRY(read_memory(gpu, &memory));
    *out = (memory_v1){memory.total, memory.free, memory.used + memory.reserved};
    return SUCCESS;
}
EXPORT int nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t gpu, memory_v1 *out) {
    ENTER(gpu, out);
    TRY(read_number(gpu, "bar1.total", (int64_t *)&out->total));
    TRY(read_number(gpu, "bar1.used", (int64_t *)&out->used));
    out->free = out->total - out->used;
    return SUCCESS;
}

typedef struct { uint64_t protected_kib, unprotected_kib; } confidential_memory;
EXPORT int nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t gpu, confidential_memory *out) {
    ENTER(gpu, out);
    TRY(read_number(gpu, "confidential.protected_kib", (int64_t *)&out->protected_kib));
    return read_number(gpu, "confidential.unprotected_kib", (int64_t *)&out->unprotected_kib);
}

// ---- ECC, row remapping, retired pages --------------------------------------------------------------------------------

static const char *const ecc_locations[] = {"l1_cache", "l2_cache", "dram", "register_file", "texture_memory", "texture_shm", "cbu", "sram"};

// "ecc.volatile.corrected", with ".dram" and so on for a location
static const char *ecc_key(char key[MAX_KEY], unsigned uncorrected, unsigned aggregate, const char *location) {
    snprintf(key, MAX_KEY, "ecc.%s.%s%s%s", aggregate ? "aggregate" : "volatile", uncorrected ? "uncorrected" : "corrected",
             location ? "." : "", location ? location : "");
    return key;
}

TWO_UINTS(nvmlDeviceGetEccMode, "ecc.mode", "ecc.pending")
UINT(nvmlDeviceGetDefaultEccMode, "ecc.default")

EXPORT int nvmlDeviceGetTotalEccErrors(nvmlDevice_t gpu, unsigned type, unsigned counter, uint64_t *out) {
    char key[MAX_KEY];
    ENTER(gpu, out && type < 2 && counter < 2);
    return read_number(gpu, ecc_key(key, type, counter, NULL), (int64_t *)out);
}
EXPORT int nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t gpu, unsigned type, unsigned counter, unsigned location, uint64_t *out) {
    char key[MAX_KEY];
    ENTER(gpu, out && type < 2 && counter < 2 && location < COUNT(ecc_locations));
    return read_number(gpu, ecc_key(key, type, counter, ecc_locations[location]), (int64_t *)out);
}
EXPORT int nvmlDeviceGetDetailedEccErrors(nvmlDevice_t gpu, unsigned type, unsigned counter, uint64_t out[4]) {
    char key[MAX_KEY];
    ENTER(gpu, out && type < 2 && counter < 2);
    TRY(read_number(gpu, ecc_key(key, type, counter, "dram"), (int64_t *)&out[2]));
    for (unsigned i = 0; i < 4; i++)
        if (i != 2) TRY(read_or_zero(gpu, ecc_key(key, type, counter, ecc_locations[i]), &out[i]));
    return SUCCESS;
}

typedef struct { unsigned version; uint64_t counts[11]; unsigned threshold_exceeded; } sram_status_v1;
EXPORT int nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t gpu, sram_status_v1 *out) {
    static const char *const keys[] = {
        "sram.aggregate.parity", "sram.aggregate.secded", "sram.aggregate.corrected", "sram.volatile.parity", "sram.volatile.secded",
        "sram.volatile.corrected", "sram.bucket.l2", "sram.bucket.sm", "sram.bucket.pcie", "sram.bucket.mcu", "sram.bucket.other"};
    ENTER(gpu, out);
    if (out->version != VERSION_WORD(*out, 1)) return ARGUMENT_VERSION_MISMATCH;
    TRY(read_uint(gpu, "sram.threshold_exceeded", &out->threshold_exceeded));
    for (size_t i = 0; i < COUNT(keys); i++) TRY(read_or_zero(gpu, keys[i], &out->counts[i]));
    return SUCCESS;
}

// Reads a list key in the two-call manner: with too little room only the length is returned and the step does not change.
// Returns SUCCESS, INSUFFICIENT_SIZE or the error of the step; rows are valid on SUCCESS.
static int read_rows(nvmlDevice_t gpu, const char *key, uint64_t rows[][8], int columns, uint64_t filler, unsigned *count, bool room) {
    char text[MAX_TEXT];
    int code;
    TRY(fetch(&gpu->keys, key, text, true));
    int have = parse_rows(key, text, rows, columns, filler);
    if (have < 0) return UNKNOWN;
    unsigned offered = *count;
    *count = (unsigned)have;
    if (have && (!room || offered < (unsigned)have)) return INSUFFICIENT_SIZE;
    consume(&gpu->keys, key);
    return SUCCESS;
}

typedef struct { unsigned unit, location, sublocation, extlocation, address, parity, count; } sram_unique_entry;
typedef struct { unsigned version, count; sram_unique_entry *entries; } sram_unique_v1;
EXPORT int nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts(nvmlDevice_t gpu, sram_unique_v1 *out) {
    uint64_t rows[MAX_LIST][8];
    ENTER(gpu, out);
    if (out->version != VERSION_WORD(*out, 1)) return ARGUMENT_VERSION_MISMATCH;
    TRY(read_rows(gpu, "sram.unique", rows, 7, 0, &out->count, out->entries));
    for (unsigned i = 0; i < out->count; i++)
        for (unsigned column = 0; column < 7; column++) ((unsigned *)&out->entries[i])[column] = (unsigned)rows[i][column];
    return SUCCESS;
}

EXPORT int nvmlDeviceGetRemappedRows(nvmlDevice_t gpu, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failure) {
    ENTER(gpu, corrected && uncorrected && pending && failure);
    TRY(read_uint(gpu, "remap.corrected", corrected));
    TRY(read_uint(gpu, "remap.uncorrected", uncorrected));
    TRY(read_uint(gpu, "remap.pending", pending));
    return read_uint(gpu, "remap.failure", failure);
}
EXPORT int nvmlDeviceGetRemappedRows_v2(nvmlDevice_t gpu, unsigned out[6]) {
    static const char *const keys[] = {"remap.corrected", "remap.inactive_corrected", "remap.uncorrected", "remap.inactive_uncorrected",
                                       "remap.pending", "remap.failure"};
    ENTER(gpu, out);
    for (size_t i = 0; i < COUNT(keys); i++) TRY(read_uint(gpu, keys[i], &out[i]));
    return SUCCESS;
}
EXPORT int nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t gpu, unsigned out[5]) {  // max, high, partial, low, none
    char text[MAX_TEXT];
    ENTER(gpu, out);
    TRY(fetch(&gpu->keys, "remap.histogram", text, false));
    return sscanf(text, "%u %u %u %u %u", &out[0], &out[1], &out[2], &out[3], &out[4]) == 5 ? SUCCESS : UNKNOWN;
}

static int retired_pages(nvmlDevice_t gpu, unsigned cause, unsigned *count, uint64_t *addresses, uint64_t *times) {
    uint64_t rows[MAX_LIST][8];
    int code;
    TRY(read_rows(gpu, cause ? "retired.dbe" : "retired.sbe", rows, 2, 0, count, addresses));
    for (unsigned i = 0; i < *count; i++) {
        addresses[i] = rows[i][0];
        if (times) times[i] = rows[i][1];
    }
    return SUCCESS;
}
EXPORT int nvmlDeviceGetRetiredPages(nvmlDevice_t gpu, unsigned cause, unsigned *count, uint64_t *addresses) {
    ENTER(gpu, count && cause < 2);
    return retired_pages(gpu, cause, count, addresses, NULL);
}
// pynvml leaves `times` out of its first call: it may be looked at only where there is room for addresses.
EXPORT int nvmlDeviceGetRetiredPages_v2(nvmlDevice_t gpu, unsigned cause, unsigned *count, uint64_t *addresses, uint64_t *times) {
    ENTER(gpu, count && cause < 2);
    return retired_pages(gpu, cause, count, addresses, addresses ? times : NULL);
}
UINT(nvmlDeviceGetRetiredPagesPendingStatus, "retired.pending")

typedef struct { unsigned version, channel, tpc; } repair_v1;
EXPORT int nvmlDeviceGetRepairStatus(nvmlDevice_t gpu, repair_v1 *out) {
    ENTER(gpu, out);
    if (out->version != VERSION_WORD(*out, 1)) return ARGUMENT_VERSION_MISMATCH;
    TRY(read_uint(gpu, "repair.channel", &out->channel));
    return read_uint(gpu, "repair.tpc", &out->tpc);
}

// ---- links ------------------------------------------------------------------------------------------------------------

UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.gen")
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.gen_max")
UINT(nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie.gen_max_gpu")
UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width")
UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie.width_max")
UINT(nvmlDeviceGetPcieReplayCounter, "pcie.replay")
UINT(nvmlDeviceGetPcieSpeed, "pcie.speed")
UINT(nvmlDeviceGetPcieLinkMaxSpeed, "pcie.speed_max")
CHOICE(nvmlDeviceGetPcieThroughput, "pcie.", "tx", "rx")

// Key of one link: nvlink.3.state where it exists, else nvlink.state. A GPU without nvlink.links has none.
static int link_key(nvmlDevice_t gpu, unsigned link, const char *name, char key[MAX_KEY]) {
    unsigned links;
    int code;
    TRY(read_uint(gpu, "nvlink.links", &links));
    if (link >= links) return INVALID_ARGUMENT;
    snprintf(key, MAX_KEY, "nvlink.%u.%s", link, name);
    pthread_mutex_lock(&lock);
    if (!find(&gpu->keys, key)) snprintf(key, MAX_KEY, "nvlink.%s", name);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
#define LINK(function, name)                                               \
    EXPORT int function(nvmlDevice_t gpu, unsigned link, unsigned *out) {  \
        char key[MAX_KEY];                                                 \
        ENTER(gpu, out && link < MAX_LINKS);                               \
        TRY(link_key(gpu, link, name, key));                               \
        return read_uint(gpu, key, out);                                   \
    }
LINK(nvmlDeviceGetNvLinkState, "state")
LINK(nvmlDeviceGetNvLinkVersion, "version")
LINK(nvmlDeviceGetNvLinkRemoteDeviceType, "remote.type")

EXPORT int nvmlDeviceGetNvLinkCapability(nvmlDevice_t gpu, unsigned link, unsigned capability, unsigned *out) {
    char key[MAX_KEY];
    ENTER(gpu, out && link < MAX_LINKS && capability < 6);
    TRY(link_key(gpu, link, "capabilities", key));
    TRY(read_uint(gpu, key, out));
    *out = *out >> capability & 1;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t gpu, unsigned link, unsigned counter, uint64_t *out) {
    static const char *const names[] = {"error.replay", "error.recovery", "error.crc_flit", "error.crc_data", "error.ecc_data"};
    char key[MAX_KEY];
    ENTER(gpu, out && link < MAX_LINKS && counter < COUNT(names));
    TRY(link_key(gpu, link, names[counter], key));
    return read_number(gpu, key, (int64_t *)out);
}
EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t gpu, unsigned link, pci_info *out) {
    char key[MAX_KEY], text[MAX_TEXT];
    ENTER(gpu, out && link < MAX_LINKS);
    TRY(link_key(gpu, link, "remote.bus_id", key));
    TRY(fetch(&gpu->keys, key, text, false));
    return fill_pci(text, out);
}

typedef struct { unsigned char cluster[16]; unsigned status, clique, state; } fabric_v1;
typedef struct { unsigned version; unsigned char cluster[16]; unsigned status, clique, state, health_mask; } fabric_v2;
typedef struct { fabric_v2 v2; unsigned char health_summary; } fabric_v3;

static int read_fabric(nvmlDevice_t gpu, fabric_v3 *out) {
    char text[MAX_TEXT] = "";
    uint64_t status, clique, mask, summary;
    int code;
    TRY(read_uint(gpu, "fabric.state", &out->v2.state));
    TRY(read_or_zero(gpu, "fabric.status", &status));
    TRY(read_or_zero(gpu, "fabric.clique", &clique));
    TRY(read_or_zero(gpu, "fabric.health_mask", &mask));
    TRY(read_or_zero(gpu, "fabric.health_summary", &summary));
    out->v2.status = (unsigned)status, out->v2.clique = (unsigned)clique, out->v2.health_mask = (unsigned)mask;
    out->health_summary = (unsigned char)summary;
    code = fetch(&gpu->keys, "fabric.cluster", text, false);
    if (code != SUCCESS && code != NOT_SUPPORTED) return code;
    const char *digits = text;
    for (size_t i = 0; i < sizeof out->v2.cluster; i++) {
        digits += *digits == '-';
        if (code == SUCCESS && sscanf(digits, "%2hhx", &out->v2.cluster[i]) == 1) digits += 2;
    }
    return SUCCESS;
}
EXPORT int nvmlDeviceGetGpuFabricInfo(nvmlDevice_t gpu, fabric_v1 *out) {
    fabric_v3 fabric = {0};
    ENTER(gpu, out);
    TRY(read_fabric(gpu, &fabric));
    memcpy(out->cluster, fabric.v2.cluster, sizeof out->cluster);
    out->status = fabric.v2.status, out->clique = fabric.v2.clique, out->state = fabric.v2.state;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t gpu, fabric_v3 *out) {  // the caller's version word tells the size
    fabric_v3 fabric = {0};
    ENTER(gpu, out);
    bool third = out->v2.version == VERSION_WORD(fabric_v3, 3) && branch >= 570;
    if (!third && out->v2.version != VERSION_WORD(fabric_v2, 2)) return ARGUMENT_VERSION_MISMATCH;
    TRY(read_fabric(gpu, &fabric));
    fabric.v2.version = out->v2.version;
    memcpy(out, &fabric, third ? sizeof(fabric_v3) : sizeof(fabric_v2));
    return SUCCESS;
}

// ---- field values -----------------------------------------------------------------------------------------------------

typedef struct {
    unsigned id, scope;
    int64_t timestamp_us, latency_us;
    unsigned type, code;
    union { double f64; uint32_t u32; int32_t s32; uint64_t u64; int64_t s64; uint16_t u16; } value;
} field_value;

static const char *const field_types[] = {"f64", "u32", "ul", "u64", "s64", "s32", "u16"};  // position = nvmlValueType_t

// Fields that repeat what another call says. A field.ID key overrides them, so a scenario contradicts itself only on purpose.
static const struct { unsigned id; const char *key, *type; } same_as[] = {
    {1, "ecc.mode", "u32"}, {2, "ecc.pending", "u32"}, {3, "ecc.volatile.corrected", "u64"}, {4, "ecc.volatile.uncorrected", "u64"},
    {5, "ecc.aggregate.corrected", "u64"}, {6, "ecc.aggregate.uncorrected", "u64"}, {31, "retired.pending", "u32"}, {83, "energy", "u64"},
    {91, "nvlink.links", "u32"}, {94, "pcie.replay", "u32"}, {142, "remap.corrected", "u32"}, {143, "remap.uncorrected", "u32"},
    {144, "remap.pending", "u32"}, {145, "remap.failure", "u32"}, {186, "power.usage", "u32"}, {187, "power.min_limit", "u32"},
    {188, "power.max_limit", "u32"}, {189, "power.default_limit", "u32"}, {190, "power.enforced_limit", "u32"}, {192, "power.limit", "u32"},
};

static int convert_field(const char *key, char *text, const char *default_type, field_value *field) {
    char *colon = strchr(text, ':'), *end;
    int64_t number = 0;
    if (colon) *colon = '\0';
    const char *type = colon ? colon + 1 : default_type ? default_type : *text == '-' ? "s32" : "u32";
    double real = strtod(text, &end);
    for (field->type = 0; field->type < COUNT(field_types); field->type++)
        if (!strcmp(field_types[field->type], type)) break;
    if (field->type == COUNT(field_types) || (field->type ? !number_of(text, &number) : end == text || *end)) {
        complain("%s: expected value:type with type f64, u32, ul, u64, s64, s32 or u16", key);
        return UNKNOWN;
    }
    switch (field->type) {
        case 0: field->value.f64 = real; break;
        case 1: field->value.u32 = (uint32_t)number; break;
        case 4: field->value.s64 = number; break;
        case 5: field->value.s32 = (int32_t)number; break;
        case 6: field->value.u16 = (uint16_t)number; break;
        default: field->value.u64 = (uint64_t)number;
    }
    return SUCCESS;
}

static int read_field(nvmlDevice_t gpu, field_value *field) {
    char key[MAX_KEY], text[MAX_TEXT];
    for (size_t i = 0; i < COUNT(branches); i++)
        if (branches[i].branch == branch && field->id >= branches[i].fields) return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "field.%u.%u", field->id, field->scope);  // a scope is a link, as a rule
    int code = fetch(&gpu->keys, key, text, false);
    if (code == NOT_SUPPORTED) {
        snprintf(key, sizeof key, "field.%u", field->id);
        code = fetch(&gpu->keys, key, text, false);
    }
    const char *type = NULL;
    for (size_t i = 0; code == NOT_SUPPORTED && i < COUNT(same_as); i++)
        if (same_as[i].id == field->id) code = fetch(&gpu->keys, same_as[i].key, text, false), type = same_as[i].type;
    return code == SUCCESS ? convert_field(key, text, type, field) : code;
}

EXPORT int nvmlDeviceGetFieldValues(nvmlDevice_t gpu, int count, field_value *fields) {  // the call succeeds; each field has a code
    ENTER(gpu, fields && count > 0);
    for (int i = 0; i < count; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_REALTIME, &before);
        memset(&fields[i].value, 0, sizeof fields[i].value);
        fields[i].type = 0;
        fields[i].code = (unsigned)read_field(gpu, &fields[i]);
        clock_gettime(CLOCK_REALTIME, &after);
        fields[i].timestamp_us = after.tv_sec * 1000000 + after.tv_nsec / 1000;
        fields[i].latency_us = fields[i].timestamp_us - (before.tv_sec * 1000000 + before.tv_nsec / 1000);
    }
    return SUCCESS;
}

// ---- processes --------------------------------------------------------------------------------------------------------

typedef struct { unsigned pid; uint64_t used_bytes; } process_v1;
typedef struct { unsigned pid; uint64_t used_bytes; unsigned gpu_instance, compute_instance; } process_v3;
typedef struct { unsigned pid; uint64_t used_bytes; unsigned gpu_instance, compute_instance; uint64_t protected_bytes; } process_detail;
typedef struct { unsigned version, mode, count; process_detail *entries; } process_details;
static const char *const process_keys[] = {"procs.compute", "procs.graphics", "procs.mps"};

static int processes(nvmlDevice_t gpu, const char *key, unsigned *count, process_v3 *out) {
    uint64_t rows[MAX_LIST][8];
    int code;
    TRY(read_rows(gpu, key, rows, 4, UINT64_MAX, count, out));
    for (unsigned i = 0; i < *count; i++) out[i] = (process_v3){(unsigned)rows[i][0], rows[i][1], (unsigned)rows[i][2], (unsigned)rows[i][3]};
    return SUCCESS;
}
#define PROCESSES(function, key)                                                    \
    EXPORT int function(nvmlDevice_t gpu, unsigned *count, process_v3 *out) {       \
        ENTER(gpu, count);                                                          \
        return processes(gpu, key, count, out);                                     \
    }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, process_keys[0])
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, process_keys[0])
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, process_keys[1])
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, process_keys[1])
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, process_keys[2])
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, process_keys[2])

// The first form of these calls, which nvidia-ml-py 11.450 still asks for.
static int old_processes(nvmlDevice_t gpu, const char *key, unsigned *count, process_v1 *out) {
    uint64_t rows[MAX_LIST][8];
    int code;
    TRY(read_rows(gpu, key, rows, 4, UINT64_MAX, count, out));
    for (unsigned i = 0; i < *count; i++) out[i] = (process_v1){(unsigned)rows[i][0], rows[i][1]};
    return SUCCESS;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t gpu, unsigned *count, process_v1 *out) {
    ENTER(gpu, count);
    return old_processes(gpu, process_keys[0], count, out);
}
EXPORT int nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t gpu, unsigned *count, process_v1 *out) {
    ENTER(gpu, count);
    return old_processes(gpu, process_keys[1], count, out);
}

// nvitop takes ConfComputeMemSizeInfo without this call for the 32-byte process record of the first R535: export both.
EXPORT int nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t gpu, process_details *out) {
    uint64_t rows[MAX_LIST][8];
    ENTER(gpu, out && out->mode < COUNT(process_keys));
    if (out->version != VERSION_WORD(*out, 1)) return ARGUMENT_VERSION_MISMATCH;
    TRY(read_rows(gpu, process_keys[out->mode], rows, 4, UINT64_MAX, &out->count, out->entries));
    for (unsigned i = 0; i < out->count; i++)
        out->entries[i] = (process_detail){(unsigned)rows[i][0], rows[i][1], (unsigned)rows[i][2], (unsigned)rows[i][3], 0};
    return SUCCESS;
}

typedef struct { unsigned pid; uint64_t timestamp_us; unsigned sm, memory, encoder, decoder; } process_sample;
EXPORT int nvmlDeviceGetProcessUtilization(nvmlDevice_t gpu, process_sample *out, unsigned *count, uint64_t since_us) {
    uint64_t rows[MAX_LIST][8];
    struct timespec now;
    (void)since_us;
    ENTER(gpu, count);
    TRY(read_rows(gpu, "procs.utilization", rows, 5, 0, count, out));
    if (!*count) return NOT_FOUND;
    clock_gettime(CLOCK_REALTIME, &now);
    for (unsigned i = 0; i < *count; i++)
        out[i] = (process_sample){(unsigned)rows[i][0], (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000,
                                  (unsigned)rows[i][1], (unsigned)rows[i][2], (unsigned)rows[i][3], (unsigned)rows[i][4]};
    return SUCCESS;
}

// The sizes that pynvml's ctypes structures have.
_Static_assert(sizeof(pci_info) == 68 && sizeof(memory_v1) == 24 && sizeof(memory_v2) == 40 && sizeof(temperature_v1) == 12, "");
_Static_assert(sizeof(sram_status_v1) == 104 && sizeof(sram_unique_entry) == 28 && sizeof(sram_unique_v1) == 16, "");
_Static_assert(sizeof(fabric_v1) == 28 && sizeof(fabric_v2) == 36 && sizeof(fabric_v3) == 40 && sizeof(field_value) == 40, "");
_Static_assert(sizeof(process_v1) == 16 && sizeof(process_v3) == 24 && sizeof(process_detail) == 32 && sizeof(process_details) == 24, "");
_Static_assert(sizeof(process_sample) == 32 && sizeof(driver_branch) == 84, "");

// ---- events: sets exist, nothing ever happens -------------------------------------------------------------------------

typedef struct { nvmlDevice_t gpu; uint64_t type, data; unsigned gpu_instance, compute_instance; } event_data;

U64(nvmlDeviceGetSupportedEventTypes, "events.supported")

EXPORT int nvmlEventSetCreate(void **set_out) {
    ENTER_SYSTEM(set_out);
    *set_out = malloc(1);
    return *set_out ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT int nvmlDeviceRegisterEvents(nvmlDevice_t gpu, uint64_t types, void *event_set) {
    int64_t supported = 0;
    ENTER(gpu, event_set);
    TRY(read_number(gpu, "events.supported", &supported));
    return types & ~(uint64_t)supported ? NOT_SUPPORTED : SUCCESS;
}
static int wait_for_event(void *event_set, const event_data *out, unsigned timeout_ms, const char *function) {
    int code = enter_system(function, event_set && out);
    if (code != SUCCESS) return code;
    stall(timeout_ms / 1000.0);
    return TIMEOUT;
}
EXPORT int nvmlEventSetWait_v2(void *event_set, event_data *out, unsigned timeout_ms) {
    return wait_for_event(event_set, out, timeout_ms, __func__);
}
EXPORT int nvmlEventSetWait(void *event_set, event_data *out, unsigned timeout_ms) {
    return wait_for_event(event_set, out, timeout_ms, __func__);
}
EXPORT int nvmlEventSetFree(void *event_set) {
    ENTER_SYSTEM(event_set);
    free(event_set);
    return SUCCESS;
}
