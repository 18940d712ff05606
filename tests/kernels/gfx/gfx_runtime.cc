// SPDX-License-Identifier: Apache-2.0
// HIP's runtime, of which kernels run in the emulation. Device memory is this process's memory.
//
// emulate_gfx.py lists the code objects in the file that VLLM_GFX_KERNELS names.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "gfx_launch.h"

namespace gfx {
namespace {

enum Status { kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoBinary = 209, kFailed = 719 };

std::mutex mutex;
std::string last_problem = "no error";

struct Dim3 {
  unsigned x, y, z;
};

// Reads "object <hash> <path>", "kernel <name> <descriptor> <kernarg bytes>" and
// "argument <offset> <bytes> <kind>".
std::map<uint64_t, CodeObject> ReadCodeObjects() {
  const char* path = std::getenv("VLLM_GFX_KERNELS");
  if (path == nullptr) throw std::runtime_error("VLLM_GFX_KERNELS is not set");
  std::ifstream file(path);
  if (!file) throw std::runtime_error(std::string("cannot read ") + path);
  std::map<uint64_t, CodeObject> objects;
  CodeObject* object = nullptr;
  Kernel* kernel = nullptr;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string what, name;
    words >> what;
    if (what == "object") {
      uint64_t hash = 0;
      words >> hash >> name;
      object = &objects[hash];
      object->Load(name);
    } else if (what == "kernel") {
      uint64_t descriptor = 0;
      words >> name >> descriptor;
      kernel = &object->kernels[name];
      kernel->name = name;
      kernel->descriptor = descriptor;
      words >> kernel->vectors;
    } else if (what == "argument") {
      Argument argument;
      words >> argument.offset >> argument.bytes >> argument.kind;
      kernel->arguments.push_back(argument);
    }
    if (!words && what != "") throw std::runtime_error("cannot read the line " + line);
  }
  return objects;
}

std::map<uint64_t, CodeObject>& Objects() {
  static auto* const objects = new std::map<uint64_t, CodeObject>(ReadCodeObjects());
  return *objects;
}

// A registered library's code, and its kernels by the address of their host function.
std::unordered_map<const void*, std::pair<CodeObject*, Kernel*>>& Functions() {
  static auto* const functions =
      new std::unordered_map<const void*, std::pair<CodeObject*, Kernel*>>;
  return *functions;
}

struct Pushed {
  Dim3 grid, block;
  size_t shared;
  void* stream;
};
thread_local std::vector<Pushed> pushed;

int Try(const char* what, void (*run)(void*), void* data, int status) {
  try {
    run(data);
    return kSuccess;
  } catch (const std::exception& error) {
    last_problem = std::string(what) + ": " + error.what();
    return status;
  }
}

}  // namespace
}  // namespace gfx

using gfx::Dim3;

#pragma GCC visibility push(default)
extern "C" {

int hipGetDevice(int* device) {
  *device = 0;
  return 0;
}
int hipGetDeviceCount(int* count) {
  *count = 1;
  return 0;
}
int hipSetDevice(int device) { return device == 0 ? 0 : gfx::kInvalidValue; }
int hipGetLastError() { return 0; }
const char* hipGetErrorString(int) { return gfx::last_problem.c_str(); }
int hipDeviceSynchronize() { return 0; }
int hipDeviceGetAttribute(int* value, int attribute, int) {
  // Numbers of HIP 6 and 7: major and minor version, multiprocessors, shared memory, wave size.
  switch (attribute) {
    case 23:
      *value = gfx::kGeneration;
      return 0;
    case 61:
      *value = 0;
      return 0;
    case 63:
      *value = 2;
      return 0;
    case 74:
      *value = 65536;
      return 0;
    case 87:
      *value = gfx::kLanes;
      return 0;
    default:
      gfx::last_problem = "attribute " + std::to_string(attribute) + " is not emulated";
      return gfx::kInvalidValue;
  }
}
int hipMalloc(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *memory == nullptr ? gfx::kOutOfMemory : 0;
}
int hipExtMallocWithFlags(void** memory, size_t bytes, unsigned) {
  return hipMalloc(memory, bytes);
}
int hipFree(void* memory) {
  std::free(memory);
  return 0;
}
int hipMemset(void* memory, int value, size_t bytes) {
  std::memset(memory, value, bytes);
  return 0;
}
int hipMemcpy(void* to, const void* from, size_t bytes, int) {
  std::memmove(to, from, bytes);
  return 0;
}
int hipMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void*) {
  return hipMemcpy(to, from, bytes, kind);
}
int hipStreamIsCapturing(void*, int* status) {
  *status = 0;
  return 0;
}
int hipFuncSetAttribute(const void*, int, int) { return 0; }
int __hipPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void* stream) {
  gfx::pushed.push_back({grid, block, shared, stream});
  return 0;
}
int __hipPopCallConfiguration(Dim3* grid, Dim3* block, size_t* shared, void** stream) {
  if (gfx::pushed.empty()) return gfx::kInvalidValue;
  const gfx::Pushed last = gfx::pushed.back();
  gfx::pushed.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *stream = last.stream;
  return 0;
}

void** __hipRegisterFatBinary(const void* wrapper) {
  // The wrapper has the address of the bundle at byte 8. A compressed bundle has its hash at 24.
  const uint8_t* bundle = nullptr;
  std::memcpy(&bundle, static_cast<const uint8_t*>(wrapper) + 8, sizeof(bundle));
  uint64_t hash = 0;
  std::memcpy(&hash, bundle + 24, sizeof(hash));
  if (std::memcmp(bundle, "CCOB", 4) != 0 || !gfx::Objects().contains(hash)) {
    std::fprintf(stderr, "emulate-gfx: a library was registered whose code is not listed\n");
    std::abort();
  }
  return reinterpret_cast<void**>(&gfx::Objects()[hash]);
}
void __hipRegisterFunction(void** module, const void* host, char*, const char* name, unsigned,
                           void*, void*, void*, void*, int*) {
  auto* const object = reinterpret_cast<gfx::CodeObject*>(module);
  const auto found = object->kernels.find(name);
  gfx::Functions()[host] = {object, found == object->kernels.end() ? nullptr : &found->second};
}
void __hipRegisterVar(void**, void*, char*, const char* name, int, size_t, int, int) {
  std::fprintf(stderr, "emulate-gfx: the device variable %s is not emulated\n", name);
  std::abort();
}
void __hipUnregisterFatBinary(void**) {}

int hipLaunchKernel(const void* function, Dim3 grid, Dim3 block, void** arguments, size_t shared,
                    void*) {
  const std::lock_guard<std::mutex> lock(gfx::mutex);
  const auto found = gfx::Functions().find(function);
  if (found == gfx::Functions().end() || found->second.second == nullptr) {
    gfx::last_problem = "no code for the emulated GPU";
    return gfx::kNoBinary;
  }
  gfx::Launch launch{found->second.first,
                     found->second.second,
                     {grid.x, grid.y, grid.z},
                     {block.x, block.y, block.z},
                     arguments,
                     static_cast<uint32_t>(shared)};
  return gfx::Try(
      launch.kernel->name.c_str(), [](void* data) { static_cast<gfx::Launch*>(data)->Run(); },
      &launch, gfx::kFailed);
}

}  // extern "C"
#pragma GCC visibility pop
