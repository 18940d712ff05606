// SPDX-License-Identifier: Apache-2.0
// A CUDA driver for tests, as far as the allocator uses one: device memory is memory of the host, and every rule of cuda.h that can be
// broken is checked. The addresses can be read and written while they are mapped with access, and fault when they are not.
//
//   FAKE_GPU_MEMORY        bytes of a device; 1 GiB
//   FAKE_GPU_GRANULARITY   bytes; 2 MiB
//   FAKE_GPU_DEVICES       1
//   FAKE_GPU_INIT          what cuInit() answers; 0
//   FAKE_GPU_ATTRIBUTES    "102=1,110=0": what cuDeviceGetAttribute() answers; an attribute that is not named is 0
//   -DGET_PROC_ADDRESS=2    which cuGetProcAddress there is: CUDA 12's, CUDA 11.3's (1) or none (0)
//   -DWITHOUT_CREATE        a driver older than virtual memory management
//
// The functions fake_*() are for the test.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "../fake_driver.h"

#ifndef GET_PROC_ADDRESS
#define GET_PROC_ADDRESS 2
#endif

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201 };

typedef struct {
  int type, id;
} Location;
typedef struct {
  int type, handle_types;
  Location location;
  void* win32;
  unsigned char compression, rdma;
  unsigned short usage;
  unsigned char reserved[4];
} Properties;
typedef struct {
  Location location;
  int flags;
} Access;

typedef struct {
  uint64_t address;
  size_t size;
  int physical;  // index, or -1
  int accessible;
} Range;
typedef struct {
  int used, held, mapped, file, device;
  size_t size;
} Physical;

static int initialised, synchronised, rdma_asked;
static Range ranges[MANY];
static Physical physicals[MANY];
static int contexts[8];  // how often retained; the address of an element is the context
static _Thread_local void* current;

#define TOLD(call)                          \
  do {                                      \
    const int result = told_to_fail(#call); \
    if (result != OK) return result;        \
    if (!initialised) return NOT_INITIALIZED; \
  } while (0)

long fake_count(const char* what) {
  long ranged = 0, physical = 0, mapped = 0, retained = 0, bytes = 0;
  for (int i = 0; i < MANY; ++i) {
    ranged += ranges[i].size != 0;
    mapped += ranges[i].size != 0 && ranges[i].physical >= 0;
    physical += physicals[i].used;
    bytes += physicals[i].used ? (long)physicals[i].size : 0;
  }
  for (int i = 0; i < 8; ++i) retained += contexts[i];
  if (strcmp(what, "ranges") == 0) return ranged;
  if (strcmp(what, "mapped") == 0) return mapped;
  if (strcmp(what, "physical") == 0) return physical;
  if (strcmp(what, "bytes") == 0) return bytes;
  if (strcmp(what, "retained") == 0) return retained;
  if (strcmp(what, "synchronised") == 0) return synchronised;
  if (strcmp(what, "rdma") == 0) return rdma_asked;
  abort();
}

static void drop(Physical* physical) {
  if (physical->held || physical->mapped) return;
  close(physical->file);
  physical->used = 0;
}

static Range* range_at(uint64_t address, size_t size) {
  for (int i = 0; i < MANY; ++i) {
    if (ranges[i].size == size && ranges[i].address == address) return &ranges[i];
  }
  return NULL;
}

int cuInit(unsigned flags) {
  const int result = (int)setting("FAKE_GPU_INIT", OK);
  initialised = result == OK;
  return flags != 0 ? INVALID_VALUE : result;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == 100         ? "CUDA_ERROR_NO_DEVICE"
          : error < 1000         ? "CUDA_ERROR_OTHER"
                                 : NULL;
  return *name != NULL ? OK : INVALID_VALUE;
}
int cuGetErrorString(int error, const char** text) {
  *text = error == OUT_OF_MEMORY ? "out of memory"
          : error == 100         ? "no CUDA-capable device is detected"
          : error < 1000         ? "something else"
                                 : NULL;
  return *text != NULL ? OK : INVALID_VALUE;
}

int cuDeviceGet(int* device, int ordinal) {
  TOLD(cuDeviceGet);
  if (ordinal < 0 || ordinal >= setting("FAKE_GPU_DEVICES", 1)) return INVALID_DEVICE;
  *device = ordinal;
  return OK;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  TOLD(cuDeviceGetAttribute);
  (void)device;
  *value = attribute_setting("102=1", attribute);
  return OK;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  TOLD(cuDevicePrimaryCtxRetain);
  ++contexts[device];
  *context = &contexts[device];
  return OK;
}
int cuCtxGetCurrent(void** context) {
  TOLD(cuCtxGetCurrent);
  *context = current;
  return OK;
}
int cuCtxSetCurrent(void* context) {
  TOLD(cuCtxSetCurrent);
  current = context;
  return OK;
}
int cuCtxSynchronize(void) {
  TOLD(cuCtxSynchronize);
  if (current == NULL) return INVALID_CONTEXT;
  ++synchronised;
  return OK;
}

int cuMemGetAllocationGranularity(size_t* granularity, const Properties* properties, int option) {
  TOLD(cuMemGetAllocationGranularity);
  if (properties->type != 1 || properties->location.type != 1 || option != 0) return INVALID_VALUE;
  *granularity = (size_t)setting("FAKE_GPU_GRANULARITY", 2 << 20);
  return OK;
}

int cuMemAddressReserve(uint64_t* address, size_t size, size_t alignment, uint64_t wish, unsigned long long flags) {
  TOLD(cuMemAddressReserve);
  const size_t granularity = (size_t)setting("FAKE_GPU_GRANULARITY", 2 << 20);
  if (size == 0 || size % granularity != 0 || wish != 0 || flags != 0 || alignment % granularity != 0) return INVALID_VALUE;
  void* memory = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return OUT_OF_MEMORY;
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < MANY; ++i) {
    if (ranges[i].size == 0) {
      ranges[i] = (Range){(uintptr_t)memory, size, -1, 0};
      pthread_mutex_unlock(&mutex);
      *address = (uintptr_t)memory;
      return OK;
    }
  }
  abort();
}

int cuMemAddressFree(uint64_t address, size_t size) {
  TOLD(cuMemAddressFree);
  pthread_mutex_lock(&mutex);
  Range* range = range_at(address, size);
  const int good = range != NULL && range->physical < 0;
  if (good) {
    munmap((void*)(uintptr_t)address, size);
    range->size = 0;
  }
  pthread_mutex_unlock(&mutex);
  return good ? OK : INVALID_VALUE;
}

#ifndef WITHOUT_CREATE
int cuMemCreate(uint64_t* handle, size_t size, const Properties* properties, unsigned long long flags) {
  TOLD(cuMemCreate);
  const size_t granularity = (size_t)setting("FAKE_GPU_GRANULARITY", 2 << 20);
  const Location at = properties->location;
  if (size == 0 || size % granularity != 0 || flags != 0 || properties->type != 1 || properties->handle_types != 0 || at.type != 1 ||
      properties->usage != 0 || properties->win32 != NULL) {
    return INVALID_VALUE;
  }
  int result = OUT_OF_MEMORY;
  pthread_mutex_lock(&mutex);
  rdma_asked = properties->rdma;
  size_t used = 0;
  int place = -1;
  for (int i = 0; i < MANY; ++i) {
    if (physicals[i].used && physicals[i].device == at.id) used += physicals[i].size;
    if (!physicals[i].used) place = i;
  }
  const size_t budget = (size_t)setting("FAKE_GPU_MEMORY", 1 << 30);
  if (place >= 0 && size <= budget && used <= budget - size) {
    const int file = memfd_create("device", 0);
    if (file >= 0 && ftruncate(file, (off_t)size) == 0) {
      physicals[place] = (Physical){1, 1, 0, file, at.id, size};
      *handle = 1000 + (uint64_t)place;
      result = OK;
    }
  }
  pthread_mutex_unlock(&mutex);
  return result;
}
#endif

int cuMemRelease(uint64_t handle) {
  TOLD(cuMemRelease);
  Physical* physical = &physicals[handle - 1000];
  pthread_mutex_lock(&mutex);
  const int good = handle >= 1000 && handle < 1000 + MANY && physical->used && physical->held;
  if (good) {
    physical->held = 0;
    drop(physical);
  }
  pthread_mutex_unlock(&mutex);
  return good ? OK : INVALID_VALUE;
}

int cuMemMap(uint64_t address, size_t size, size_t offset, uint64_t handle, unsigned long long flags) {
  TOLD(cuMemMap);
  pthread_mutex_lock(&mutex);
  Range* range = range_at(address, size);
  Physical* physical = &physicals[handle - 1000];
  const int good = range != NULL && range->physical < 0 && offset == 0 && flags == 0 && physical->held && physical->size == size;
  if (good) {
    mmap((void*)(uintptr_t)address, size, PROT_NONE, MAP_SHARED | MAP_FIXED, physical->file, 0);
    range->physical = (int)(handle - 1000);
    range->accessible = 0;
    physical->mapped = 1;
  }
  pthread_mutex_unlock(&mutex);
  return good ? OK : INVALID_VALUE;
}

int cuMemUnmap(uint64_t address, size_t size) {
  TOLD(cuMemUnmap);
  pthread_mutex_lock(&mutex);
  Range* range = range_at(address, size);
  const int good = range != NULL && range->physical >= 0;
  if (good) {
    mmap((void*)(uintptr_t)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    physicals[range->physical].mapped = 0;
    drop(&physicals[range->physical]);
    range->physical = -1;
  }
  pthread_mutex_unlock(&mutex);
  return good ? OK : INVALID_VALUE;
}

int cuMemSetAccess(uint64_t address, size_t size, const Access* access, size_t count) {
  TOLD(cuMemSetAccess);
  pthread_mutex_lock(&mutex);
  Range* range = range_at(address, size);
  const int good = range != NULL && range->physical >= 0 && count == 1 && access->flags == 3 && access->location.type == 1 &&
                   access->location.id == physicals[range->physical].device;
  if (good) {
    mprotect((void*)(uintptr_t)address, size, PROT_READ | PROT_WRITE);
    range->accessible = 1;
  }
  pthread_mutex_unlock(&mutex);
  return good ? OK : INVALID_VALUE;
}

static int copyable(uint64_t address, size_t size) {
  const Range* range = range_at(address, size);
  return current != NULL && range != NULL && range->physical >= 0 && range->accessible;
}
int cuMemcpyDtoH_v2(void* host, uint64_t address, size_t size) {
  TOLD(cuMemcpyDtoH);
  if (!copyable(address, size)) return INVALID_VALUE;
  memcpy(host, (const void*)(uintptr_t)address, size);
  return OK;
}
int cuMemcpyHtoD_v2(uint64_t address, const void* host, size_t size) {
  TOLD(cuMemcpyHtoD);
  if (!copyable(address, size)) return INVALID_VALUE;
  memcpy((void*)(uintptr_t)address, host, size);
  return OK;
}
// The interface before CUDA 3.2, with 32-bit addresses: real drivers still have it.
int cuMemcpyDtoH(void) { return INVALID_VALUE; }
int cuMemcpyHtoD(void) { return INVALID_VALUE; }

#if GET_PROC_ADDRESS
static int find(const char* name, void** function, int version) {
#define ENTRY(base, symbol, since)                    \
  if (strcmp(name, #base) == 0 && version >= since) { \
    *function = (void*)symbol;                        \
    return OK;                                        \
  }
  ENTRY(cuInit, cuInit, 2000)
  ENTRY(cuGetErrorName, cuGetErrorName, 6000)
  ENTRY(cuGetErrorString, cuGetErrorString, 6000)
  ENTRY(cuDeviceGet, cuDeviceGet, 2000)
  ENTRY(cuDeviceGetAttribute, cuDeviceGetAttribute, 2000)
  ENTRY(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000)
  ENTRY(cuCtxGetCurrent, cuCtxGetCurrent, 4000)
  ENTRY(cuCtxSetCurrent, cuCtxSetCurrent, 4000)
  ENTRY(cuCtxSynchronize, cuCtxSynchronize, 2000)
  ENTRY(cuMemGetAllocationGranularity, cuMemGetAllocationGranularity, 10020)
  ENTRY(cuMemAddressReserve, cuMemAddressReserve, 10020)
  ENTRY(cuMemAddressFree, cuMemAddressFree, 10020)
#ifndef WITHOUT_CREATE
  ENTRY(cuMemCreate, cuMemCreate, 10020)
#endif
  ENTRY(cuMemRelease, cuMemRelease, 10020)
  ENTRY(cuMemMap, cuMemMap, 10020)
  ENTRY(cuMemUnmap, cuMemUnmap, 10020)
  ENTRY(cuMemSetAccess, cuMemSetAccess, 10020)
  ENTRY(cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020)
  ENTRY(cuMemcpyHtoD, cuMemcpyHtoD_v2, 3020)
  return INVALID_VALUE;
}
int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
  return flags != 0 ? INVALID_VALUE : find(name, function, version);
}
#endif
#if GET_PROC_ADDRESS == 2
int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
  (void)status;
  return flags != 0 ? INVALID_VALUE : find(name, function, version);
}
#endif
