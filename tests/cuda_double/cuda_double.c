/* Copyright (c) 2026, mlops.fleet contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A simulated libcuda.so.1: the part of CUDA's driver interface that the diagnostics use, with the meaning of our
 * own kernels executed on the CPU, and faults planted by CUDA_DOUBLE, a list of KEY=VALUE separated by blanks:
 *
 *   devices=2 memory=67108864 processors=1   what there is (PCI addresses 00000000:NN:00.0 of CUDA_DOUBLE_BUS, comma list)
 *   error.CALL=CODE[@DEVICE]                 the call fails, from the AFTER-th on with after.CALL=AFTER
 *   hang.CALL=1[@DEVICE]                     the call never returns
 *   flip.DEVICE=WORD:BITS                    a word of the first allocation loses these bits whenever it is filled
 *   wrong.DEVICE=BLOCK                       this block calculates another result (-1: every block)
 *   slow.DEVICE=MICROSECONDS                 every copy takes so much longer
 *   broken.A.B=1                             copies from A to B arrive wrong;  noaccess=1: no peer access
 *   slowpair.A.B=MICROSECONDS                copies from A to B take so much longer
 *   leak=FILE                                what is still allocated when a context is destroyed is written there
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
struct allocation { void *data; size_t size; int device; struct allocation *next; };
struct context { int device; struct context *previous; };
struct module { int dummy; };
struct function { char name[64]; };

#define EXPORT __attribute__((visibility("default")))
#define THREADS 256
#define CALL(name) do { CUresult planted = plan(name); if (planted) return planted; } while (0)

static struct allocation *allocations;
static struct context *current;
static int live_contexts, live_pinned;

static const char *setting(const char *key, int device)
{
    static char value[256];
    const char *text = getenv("CUDA_DOUBLE");
    size_t length = strlen(key);
    for (; text && *text; text += strcspn(text, " "), text += strspn(text, " ")) {
        if (strncmp(text, key, length) || text[length] != '=')
            continue;
        size_t size = strcspn(text + length + 1, " ");
        snprintf(value, sizeof value, "%.*s", (int)size, text + length + 1);
        char *at = strchr(value, '@');
        if (at && device >= 0 && atoi(at + 1) != device)
            continue;
        if (at)
            *at = 0;
        return value;
    }
    return NULL;
}

static long long number(const char *key, long long usual)
{
    const char *text = setting(key, -1);
    return text ? strtoll(text, NULL, 0) : usual;
}

static CUresult plan(const char *name)
{
    static struct { char name[64]; int count; } counts[64];
    char key[96];
    int device = current ? current->device : -1, slot = 0;
    snprintf(key, sizeof key, "hang.%s", name);
    if (setting(key, device))
        for (;;)
            pause();
    while (slot < 63 && counts[slot].name[0] && strcmp(counts[slot].name, name))
        slot++;
    snprintf(counts[slot].name, sizeof counts[slot].name, "%s", name);
    counts[slot].count++;
    snprintf(key, sizeof key, "after.%s", name);
    if (counts[slot].count <= number(key, 0))
        return 0;
    snprintf(key, sizeof key, "error.%s", name);
    const char *code = setting(key, device);
    return code ? atoi(code) : 0;
}

static void report(void)
{
    const char *path = setting("leak", -1);
    FILE *file = path ? fopen(path, "a") : NULL;
    int memory = 0;
    for (struct allocation *one = allocations; one; one = one->next)
        memory++;
    if (file) {
        fprintf(file, "contexts=%d memory=%d pinned=%d\n", live_contexts, memory, live_pinned);
        fclose(file);
    }
}

EXPORT CUresult cuInit(unsigned flags) { (void)flags; CALL("cuInit"); return 0; }

EXPORT CUresult cuGetErrorName(CUresult code, const char **text)
{
    switch (code) {
    case 1: *text = "CUDA_ERROR_INVALID_VALUE"; break;
    case 2: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case 100: *text = "CUDA_ERROR_NO_DEVICE"; break;
    case 101: *text = "CUDA_ERROR_INVALID_DEVICE"; break;
    case 214: *text = "CUDA_ERROR_ECC_UNCORRECTABLE"; break;
    case 700: *text = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case 719: *text = "CUDA_ERROR_LAUNCH_FAILED"; break;
    default: *text = "CUDA_ERROR_UNKNOWN"; break;
    }
    return 0;
}

EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *bus)
{
    CALL("cuDeviceGetByPCIBusId");
    char list[1024];
    int place = 0;
    snprintf(list, sizeof list, "%s", getenv("CUDA_DOUBLE_BUS") ? getenv("CUDA_DOUBLE_BUS") : "");
    for (char *rest = list, *one; (one = strsep(&rest, ",")); place++)
        if (!strcasecmp(one, bus) && place < number("devices", 1)) {
            *device = place;
            return 0;
        }
    return 101;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    (void)device;
    CALL("cuDeviceGetAttribute");
    *value = attribute == 16 ? (int)number("processors", 1) : attribute == 75 ? 9 : 0;
    return 0;
}

EXPORT CUresult cuDeviceCanAccessPeer(int *value, CUdevice device, CUdevice other)
{
    (void)device; (void)other;
    CALL("cuDeviceCanAccessPeer");
    *value = !number("noaccess", 0);
    return 0;
}

EXPORT CUresult cuCtxEnablePeerAccess(void *context, unsigned flags) { (void)context; (void)flags; CALL("cuCtxEnablePeerAccess"); return 0; }

EXPORT CUresult cuCtxCreate_v2(void **context, unsigned flags, CUdevice device)
{
    (void)flags;
    CALL("cuCtxCreate_v2");
    struct context *made = calloc(1, sizeof *made);
    made->device = device;
    made->previous = current;
    *context = current = made;
    live_contexts++;
    return 0;
}

EXPORT CUresult cuCtxDestroy_v2(void *context)
{
    struct context *gone = context;
    if (current == gone)
        current = gone->previous;
    live_contexts--;
    report();
    CALL("cuCtxDestroy_v2");
    return 0;
}

EXPORT CUresult cuCtxSetCurrent(void *context) { CALL("cuCtxSetCurrent"); current = context; return 0; }
EXPORT CUresult cuCtxSynchronize(void) { CALL("cuCtxSynchronize"); return 0; }

EXPORT CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    CALL("cuMemGetInfo_v2");
    *total = number("memory", 64 << 20);
    *available = *total;
    for (struct allocation *one = allocations; one; one = one->next)
        if (one->device == current->device)
            *available -= one->size < *available ? one->size : *available;
    return 0;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size)
{
    CALL("cuMemAlloc_v2");
    size_t available, total;
    cuMemGetInfo_v2(&available, &total);
    if (size > available)
        return 2;
    struct allocation *made = malloc(sizeof *made);
    *made = (struct allocation){calloc(1, size), size, current->device, allocations};
    allocations = made;
    *pointer = (CUdeviceptr)(uintptr_t)made->data;
    return 0;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    for (struct allocation **link = &allocations; *link; link = &(*link)->next)
        if ((*link)->data == (void *)(uintptr_t)pointer) {
            struct allocation *gone = *link;
            *link = gone->next;
            free(gone->data);
            free(gone);
            CALL("cuMemFree_v2");
            return 0;
        }
    return 1;
}

EXPORT CUresult cuMemAllocHost_v2(void **pointer, size_t size) { CALL("cuMemAllocHost_v2"); *pointer = calloc(1, size); live_pinned++; return 0; }
EXPORT CUresult cuMemFreeHost(void *pointer) { free(pointer); live_pinned--; CALL("cuMemFreeHost"); return 0; }
EXPORT CUresult cuModuleLoadData(void **module, const char *ptx) { CALL("cuModuleLoadData"); *module = calloc(1, sizeof(struct module)); return strstr(ptx, ".target sm_") ? 0 : 218; }
EXPORT CUresult cuModuleUnload(void *module) { free(module); CALL("cuModuleUnload"); return 0; }

EXPORT CUresult cuModuleGetFunction(void **function, void *module, const char *name)
{
    (void)module;
    CALL("cuModuleGetFunction");
    static struct function known[3] = {{"fill"}, {"check"}, {"compute"}};
    for (int i = 0; i < 3; i++)
        if (!strcmp(known[i].name, name)) {
            *function = &known[i];
            return 0;
        }
    return 500;
}

static void fill(uint32_t *buffer, uint64_t words, uint32_t seed)
{
    char key[32];
    for (uint64_t i = 0; i < words; i++)
        buffer[i] = seed ^ ((uint32_t)i * 0x9E3779B9u);
    snprintf(key, sizeof key, "flip.%d", current->device);
    const char *planted = setting(key, -1);
    if (planted) {
        char *rest;
        uint64_t word = strtoull(planted, &rest, 0);
        if (word < words)
            buffer[word] &= ~(uint32_t)strtoul(rest + 1, NULL, 0);
    }
}

static void check(const uint32_t *buffer, uint64_t words, uint32_t seed, uint32_t *record, uint32_t room)
{
    for (uint64_t i = 0; i < words; i++) {
        uint32_t expected = seed ^ ((uint32_t)i * 0x9E3779B9u);
        if (buffer[i] == expected)
            continue;
        uint32_t place = record[0]++;
        if (place < room)
            memcpy(record + 1 + 4 * place, (uint32_t[]){(uint32_t)i, (uint32_t)(i >> 32), expected, buffer[i]}, 16);
    }
}

static uint32_t bits(float value) { uint32_t word; memcpy(&word, &value, 4); return word; }
static float real(uint32_t word) { float value; memcpy(&value, &word, 4); return value; }

#if defined(__x86_64__)
__attribute__((target_clones("fma", "default")))
#endif
static void chain(uint32_t *output, uint32_t rounds)
{
    const float a = real(0x3FC90FDB), b = real(0x3F3504F3);
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        uint32_t x[4];
        x[0] = ((thread * 0x9E3779B9u) >> 9) | 0x3F800000u;
        x[1] = x[0] ^ 0x00155555u;
        x[2] = x[0] ^ 0x002AAAAAu;
        x[3] = x[0] ^ 0x007FFFFFu;
        for (uint32_t round = 0; round < rounds; round++)
            for (int i = 0; i < 4; i++)
                x[i] = (bits(__builtin_fmaf(real(x[i]), a, b)) & 0x007FFFFFu) | 0x3F800000u;
        output[thread] = x[0] ^ (x[1] << 3) ^ (x[2] << 6) ^ (x[3] << 9);
    }
}

static void compute(uint32_t *output, uint32_t rounds, unsigned blocks)
{
    static uint32_t result[THREADS], known;
    char key[32];
    if (known != rounds)
        chain(result, known = rounds);
    for (unsigned block = 0; block < blocks; block++)
        memcpy(output + block * THREADS, result, sizeof result);
    snprintf(key, sizeof key, "wrong.%d", current->device);
    const char *planted = setting(key, -1);
    for (unsigned block = 0; planted && block < blocks; block++)
        if (atoi(planted) < 0 || (unsigned)atoi(planted) == block)
            output[block * THREADS + 7] ^= 0x400;
}

EXPORT CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                               unsigned shared, void *stream, void **p, void **extra)
{
    (void)gy; (void)gz; (void)by; (void)bz; (void)shared; (void)stream; (void)extra;
    CALL("cuLaunchKernel");
    const char *name = ((struct function *)function)->name;
    void *first = (void *)(uintptr_t)*(uint64_t *)p[0];
    if (bx != THREADS)
        return 1;
    if (!strcmp(name, "fill"))
        fill(first, *(uint64_t *)p[1], *(uint32_t *)p[2]);
    else if (!strcmp(name, "check"))
        check(first, *(uint64_t *)p[1], *(uint32_t *)p[2], (void *)(uintptr_t)*(uint64_t *)p[3], *(uint32_t *)p[4]);
    else
        compute(first, *(uint32_t *)p[1], gx);
    return 0;
}

EXPORT CUresult cuMemsetD32_v2(CUdeviceptr pointer, unsigned value, size_t words)
{
    CALL("cuMemsetD32_v2");
    for (size_t i = 0; i < words; i++)
        ((uint32_t *)(uintptr_t)pointer)[i] = value;
    return 0;
}

static void copy(void *target, const void *source, size_t size)
{
    char key[32];
    memcpy(target, source, size);
    snprintf(key, sizeof key, "slow.%d", current->device);
    usleep(200 + number(key, 0));
}

EXPORT CUresult cuMemcpyDtoH_v2(void *target, CUdeviceptr source, size_t size) { CALL("cuMemcpyDtoH_v2"); memcpy(target, (void *)(uintptr_t)source, size); return 0; }
EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t size, void *stream) { (void)stream; CALL("cuMemcpyDtoDAsync_v2"); copy((void *)(uintptr_t)target, (void *)(uintptr_t)source, size); return 0; }
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, void *source, size_t size, void *stream) { (void)stream; CALL("cuMemcpyHtoDAsync_v2"); copy((void *)(uintptr_t)target, source, size); return 0; }
EXPORT CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t size, void *stream) { (void)stream; CALL("cuMemcpyDtoHAsync_v2"); copy(target, (void *)(uintptr_t)source, size); return 0; }

EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr target, void *there, CUdeviceptr source, void *here, size_t size, void *stream)
{
    (void)stream;
    CALL("cuMemcpyPeerAsync");
    char key[32];
    int a = ((struct context *)here)->device, b = ((struct context *)there)->device;
    copy((void *)(uintptr_t)target, (void *)(uintptr_t)source, size);
    snprintf(key, sizeof key, "broken.%d.%d", a, b);
    if (number(key, 0))
        ((uint32_t *)(uintptr_t)target)[5] ^= 1;
    snprintf(key, sizeof key, "slowpair.%d.%d", a, b);
    usleep(number(key, 0));
    return 0;
}
