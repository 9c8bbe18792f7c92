/* A CUDA driver without a GPU: contexts, libraries and launches as the kernels' launcher sees them. It notes what a
   launch is given, 8 bytes an argument, and runs nothing. Two devices of compute capability 9.0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int Result;
typedef void *Handle;

enum { INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_SUPPORTED = 801 };

static char contexts[2]; /* their addresses stand for the primary contexts */
static char libraries[512], kernels[512];
static int loaded;
static __thread Handle stack[16];
static __thread int depth;

/* What tests set, and what they read. */
int stub_arguments, stub_capturing, stub_error, stub_launches, stub_device, stub_kernel;
uint64_t stub_given[64];
struct { unsigned grid[3], block[3], shared; Handle stream; void *attributes; unsigned n_attributes; } stub_config;

static int device_of(Handle context) { return (int)((char *)context - contexts); }

Result cuInit(unsigned flags) { return 0; }
Result cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Result cuDeviceGetCount(int *n) { *n = 2; return 0; }
Result cuDeviceGet(int *device, int i) { *device = i; return 0; }
Result cuDeviceGetName(char *name, int n, int device) { snprintf(name, n, "stub %d", device); return 0; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)1 << 36; return 0; }
Result cuDeviceGetUuid(char *uuid, int device) { memset(uuid, device + 1, 16); return 0; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break; /* threads a block */
    case 10: *value = 32; break;  /* threads a warp */
    case 16: *value = 132; break; /* multiprocessors */
    case 75: *value = 9; break;   /* compute capability */
    case 76: *value = 0; break;
    default: *value = 1;
    }
    return 0;
}
Result cuDevicePrimaryCtxRetain(Handle *context, int device) { *context = &contexts[device]; return 0; }
Result cuDevicePrimaryCtxRelease(int device) { return 0; }
Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
Result cuCtxGetCurrent(Handle *context) { *context = depth ? stack[depth - 1] : NULL; return 0; }
Result cuCtxSetCurrent(Handle context) {
    depth = depth ? depth : 1;
    stack[depth - 1] = context;
    return 0;
}
Result cuCtxPushCurrent(Handle context) { stack[depth++] = context; return 0; }
Result cuCtxPopCurrent(Handle *context) {
    if (!depth) return INVALID_CONTEXT;
    *context = stack[--depth];
    return 0;
}
Result cuCtxGetDevice(int *device) {
    if (!depth) return INVALID_CONTEXT;
    *device = device_of(stack[depth - 1]);
    return 0;
}
Result cuCtxSynchronize(void) { return 0; }
Result cuMemGetInfo(size_t *left, size_t *total) { *left = *total = (size_t)1 << 36; return 0; }
Result cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_STUB"; return 0; }
Result cuGetErrorString(int error, const char **text) { *text = "an error of the stub"; return 0; }
Result cuLibraryLoadData(Handle *library, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m) {
    *library = &libraries[__atomic_add_fetch(&loaded, 1, __ATOMIC_SEQ_CST)];
    return 0;
}
Result cuLibraryUnload(Handle library) { return 0; }
Result cuLibraryGetModule(Handle *module, Handle library) { *module = library; return 0; }
Result cuLibraryGetKernel(Handle *kernel, Handle library, const char *name) {
    *kernel = &kernels[(char *)library - libraries];
    return 0;
}
Result cuKernelGetFunction(Handle *function, Handle kernel) { *function = kernel; return 0; }
Result cuKernelGetLibrary(Handle *library, Handle kernel) { *library = &libraries[(char *)kernel - kernels]; return 0; }
Result cuKernelGetAttribute(int *value, int attribute, Handle kernel, int device) { *value = 32; return 0; }
Result cuFuncGetAttribute(int *value, int attribute, Handle function) { *value = 32; return 0; }
Result cuModuleGetGlobal(Handle *address, size_t *bytes, Handle module, const char *name) { return NOT_FOUND; }
Result cuStreamIsCapturing(Handle stream, int *status) { *status = stub_capturing; return 0; }
Result cuLaunchKernelEx(const void *config, Handle function, void **arguments, void **extra) {
    if (!depth) return INVALID_CONTEXT;
    memcpy(&stub_config, config, sizeof stub_config);
    for (int i = 0; i < stub_arguments; i++) memcpy(&stub_given[i], arguments[i], 8);
    stub_device = device_of(stack[depth - 1]);
    stub_kernel = (int)((char *)function - kernels);
    stub_launches++;
    return stub_error;
}

static Result missing(void) { return NOT_SUPPORTED; }

Result cuGetProcAddress_v2(const char *name, Handle *function, int version, uint64_t flags, int *status) {
    Dl_info self;
    dladdr((void *)cuInit, &self);
    *function = dlsym(dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD), name);
    if (!*function) *function = (Handle)missing;
    if (status) *status = 0;
    return 0;
}
