// SPDX-License-Identifier: Apache-2.0
// A HIP runtime for tests, as far as the allocator uses one: device memory is memory of the host.
// The addresses can be read and written while they are mapped with access, and fault when they are
// not. It ends the process where HIP's runtimes fail, crash or leak: at a range that is not exactly
// one mapped chunk, and at a handle that is released before its memory is unmapped.
//
//   FAKE_GPU_MEMORY        bytes of a device; 1 GiB
//   FAKE_GPU_GRANULARITY   bytes; 2 MiB
//   FAKE_GPU_DEVICES       1
//   FAKE_GPU_ATTRIBUTES    "89=1": what hipDeviceGetAttribute() answers
//   -DWITHOUT_CREATE       a runtime older than virtual memory management
//
// The functions fake_*() are for the test.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "../fake_driver.h"

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101 };

typedef struct {
  int type, id;
} Location;
typedef struct {
  int type, handle_types;
  Location location;
  void* win32;
  unsigned char compression, rdma;
  unsigned short usage;
} Properties;
typedef struct {
  Location location;
  int flags;
} Access;

typedef struct {
  char* address;
  size_t size;
} Range;
typedef struct {
  int used, held, file, device;
  size_t size;
  char* address;  // where it is mapped, or null
  int accessible;
} Physical;

static int synchronised, created;
static Range ranges[MANY];
static Physical physicals[MANY];
static _Thread_local int current, last_error;

// Every function keeps its failure for hipGetLastError(), as the runtime does.
#define ANSWER(result)                               \
  do {                                               \
    const int answer = (result);                     \
    if (answer != OK) last_error = answer;           \
    return answer;                                   \
  } while (0)
#define TOLD(call)                          \
  do {                                      \
    const int told = told_to_fail(#call);   \
    if (told != OK) ANSWER(told);           \
    if (devices() == 0) ANSWER(NO_DEVICE);  \
  } while (0)
#define REQUIRE(condition)                                                        \
  do {                                                                            \
    if (!(condition)) {                                                           \
      fprintf(stderr, "%s broke a rule of HIP: %s\n", __func__, #condition);      \
      abort();                                                                    \
    }                                                                             \
  } while (0)

static long devices(void) { return setting("FAKE_GPU_DEVICES", 1); }
static size_t granularity(void) { return (size_t)setting("FAKE_GPU_GRANULARITY", 2 << 20); }

long fake_count(const char* what) {
  long ranged = 0, physical = 0, mapped = 0, bytes = 0;
  for (int i = 0; i < MANY; ++i) {
    ranged += ranges[i].size != 0;
    physical += physicals[i].used;
    mapped += physicals[i].used && physicals[i].address != NULL;
    bytes += physicals[i].used ? (long)physicals[i].size : 0;
  }
  if (strcmp(what, "ranges") == 0) return ranged;
  if (strcmp(what, "mapped") == 0) return mapped;
  if (strcmp(what, "physical") == 0) return physical;
  if (strcmp(what, "bytes") == 0) return bytes;
  if (strcmp(what, "synchronised") == 0) return synchronised;
  if (strcmp(what, "created") == 0) return created;
  if (strcmp(what, "last_error") == 0) return last_error;
  if (strcmp(what, "current") == 0) return current;
  abort();
}

static Range* range_around(const char* address, size_t size) {
  for (int i = 0; i < MANY; ++i) {
    if (ranges[i].size != 0 && ranges[i].address <= address &&
        address + size <= ranges[i].address + ranges[i].size)
      return &ranges[i];
  }
  return NULL;
}

// The first piece of memory that is mapped to one of these addresses.
static Physical* mapped_in(const char* address, size_t size) {
  for (int i = 0; i < MANY; ++i) {
    const Physical* one = &physicals[i];
    if (one->used && one->address != NULL && one->address < address + size &&
        address < one->address + one->size)
      return &physicals[i];
  }
  return NULL;
}

static int is_physical(const Physical* physical) {
  return physical >= physicals && physical < physicals + MANY && physical->used && physical->held;
}

const char* hipGetErrorName(int error) {
  return error == OUT_OF_MEMORY ? "hipErrorOutOfMemory"
         : error == NO_DEVICE   ? "hipErrorNoDevice"
         : error < 1000         ? "hipErrorOther"
                                : NULL;
}
const char* hipGetErrorString(int error) {
  return error == OUT_OF_MEMORY ? "out of memory"
         : error == NO_DEVICE   ? "no ROCm-capable device is detected"
         : error < 1000         ? "something else"
                                : NULL;
}
int hipGetLastError(void) {
  const int error = last_error;
  last_error = OK;
  return error;
}

int hipGetDevice(int* device) {
  TOLD(hipGetDevice);
  *device = current;
  return OK;
}
int hipSetDevice(int device) {
  TOLD(hipSetDevice);
  if (device < 0 || device >= devices()) ANSWER(INVALID_DEVICE);
  current = device;
  return OK;
}
int hipDeviceGetAttribute(int* value, int attribute, int device) {
  TOLD(hipDeviceGetAttribute);
  if (device < 0 || device >= devices()) ANSWER(INVALID_DEVICE);
  *value = attribute_setting("89=1", attribute);
  return OK;
}
int hipDeviceSynchronize(void) {
  TOLD(hipDeviceSynchronize);
  pthread_mutex_lock(&mutex);
  ++synchronised;
  pthread_mutex_unlock(&mutex);
  return OK;
}

static int is_of_device(const Properties* properties) {
  return properties->type == 1 && properties->location.type == 1 &&
         properties->location.id == current;
}

int hipMemGetAllocationGranularity(size_t* bytes, const Properties* properties, int option) {
  TOLD(hipMemGetAllocationGranularity);
  if (!is_of_device(properties) || option != 0) ANSWER(INVALID_VALUE);
  *bytes = granularity();
  return OK;
}

int hipMemAddressReserve(void** address, size_t size, size_t alignment, void* wish,
                         unsigned long long flags) {
  TOLD(hipMemAddressReserve);
  if (size == 0 || size % granularity() != 0 || wish != NULL || flags != 0 ||
      (alignment & (alignment - 1)) != 0)
    ANSWER(INVALID_VALUE);
  void* memory = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) ANSWER(OUT_OF_MEMORY);
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < MANY; ++i) {
    if (ranges[i].size == 0) {
      ranges[i] = (Range){memory, size};
      pthread_mutex_unlock(&mutex);
      *address = memory;
      return OK;
    }
  }
  abort();
}

int hipMemAddressFree(void* address, size_t size) {
  TOLD(hipMemAddressFree);
  pthread_mutex_lock(&mutex);
  Range* range = range_around(address, size);
  const int good = range != NULL && range->address == address && range->size == size &&
                   mapped_in(address, size) == NULL;
  if (good) {
    munmap(address, size);
    range->size = 0;
  }
  pthread_mutex_unlock(&mutex);
  ANSWER(good ? OK : INVALID_VALUE);
}

#ifndef WITHOUT_CREATE
int hipMemCreate(Physical** handle, size_t size, const Properties* properties,
                 unsigned long long flags) {
  TOLD(hipMemCreate);
  if (size == 0 || size % granularity() != 0 || flags != 0 || !is_of_device(properties) ||
      properties->handle_types != 0 || properties->usage != 0 || properties->win32 != NULL)
    ANSWER(INVALID_VALUE);
  int result = OUT_OF_MEMORY;
  pthread_mutex_lock(&mutex);
  size_t used = 0;
  int place = -1;
  for (int i = 0; i < MANY; ++i) {
    if (physicals[i].used && physicals[i].device == current) used += physicals[i].size;
    if (!physicals[i].used) place = i;
  }
  const size_t budget = (size_t)setting("FAKE_GPU_MEMORY", 1 << 30);
  if (place >= 0 && size <= budget && used <= budget - size) {
    const int file = memfd_create("device", 0);
    if (file >= 0 && ftruncate(file, (off_t)size) == 0) {
      physicals[place] = (Physical){1, 1, file, current, size, NULL, 0};
      *handle = &physicals[place];
      ++created;
      result = OK;
    }
  }
  pthread_mutex_unlock(&mutex);
  ANSWER(result);
}
#endif

int hipMemRelease(Physical* physical) {
  TOLD(hipMemRelease);
  pthread_mutex_lock(&mutex);
  REQUIRE(is_physical(physical));
  REQUIRE(physical->address == NULL);
  close(physical->file);
  physical->used = 0;
  pthread_mutex_unlock(&mutex);
  return OK;
}

int hipMemMap(void* address, size_t size, size_t offset, Physical* physical,
              unsigned long long flags) {
  TOLD(hipMemMap);
  if (offset != 0 || flags != 0) ANSWER(INVALID_VALUE);
  pthread_mutex_lock(&mutex);
  REQUIRE(is_physical(physical));
  REQUIRE(physical->address == NULL && physical->size == size);
  REQUIRE(range_around(address, size) != NULL && mapped_in(address, size) == NULL);
  mmap(address, size, PROT_NONE, MAP_SHARED | MAP_FIXED, physical->file, 0);
  physical->address = address;
  physical->accessible = 0;
  pthread_mutex_unlock(&mutex);
  return OK;
}

int hipMemUnmap(void* address, size_t size) {
  TOLD(hipMemUnmap);
  pthread_mutex_lock(&mutex);
  Physical* physical = mapped_in(address, size);
  REQUIRE(physical != NULL && physical->address == address && physical->size == size);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  mmap(address, size, PROT_NONE, flags, -1, 0);
  physical->address = NULL;
  pthread_mutex_unlock(&mutex);
  return OK;
}

int hipMemSetAccess(void* address, size_t size, const Access* access, size_t count) {
  TOLD(hipMemSetAccess);
  if (count != 1 || access->flags != 3 || access->location.type != 1) ANSWER(INVALID_VALUE);
  pthread_mutex_lock(&mutex);
  Physical* physical = mapped_in(address, size);
  REQUIRE(physical != NULL && physical->address == address && physical->size == size);
  REQUIRE(access->location.id == physical->device);
  mprotect(address, size, PROT_READ | PROT_WRITE);
  physical->accessible = 1;
  pthread_mutex_unlock(&mutex);
  return OK;
}

int hipMemcpy(void* to, const void* from, size_t size, int kind) {
  TOLD(hipMemcpy);
  if (kind != 1 && kind != 2) ANSWER(INVALID_VALUE);
  const char* address = kind == 1 ? to : from;
  pthread_mutex_lock(&mutex);
  const Physical* physical = mapped_in(address, size);
  REQUIRE(physical != NULL && physical->address == address && physical->size == size);
  REQUIRE(physical->accessible && physical->device == current);
  pthread_mutex_unlock(&mutex);
  memcpy(to, from, size);
  return OK;
}
