// SPDX-License-Identifier: Apache-2.0
// The `python3.11` program, linked with Debian's static libpython.
//
// Debian's program contains frozen copies of the modules that run at startup. One of them is
// Debian's `site`, which searches only dist-packages for packages. This program reads those modules
// from the standard library instead, and is otherwise the same as CPython's Py_BytesMain.
#include <Python.h>
#include <asm/unistd.h>
#include <unistd.h>

// In glibc since 2.34. It is the only function that the library needs and the sysroot's 2.31 lacks.
__attribute__((visibility("hidden"))) int close_range(unsigned first, unsigned last, int flags) {
  return (int)syscall(__NR_close_range, first, last, flags);
}

int main(int argc, char** argv) {
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.use_frozen_modules = 0;
  PyStatus status = PyConfig_SetBytesArgv(&config, argc, argv);
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_IsExit(status)) return status.exitcode;
  if (PyStatus_Exception(status)) Py_ExitStatusException(status);
  return Py_RunMain();
}
