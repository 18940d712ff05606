// SPDX-License-Identifier: Apache-2.0
// The `python3.11` program, linked with Debian's static libpython.
//
// Debian's own program contains frozen copies of the modules that run at its start, among them Debian's `site`, which looks for packages
// in dist-packages only. This one reads those modules from the standard library; all else is as CPython's own Py_BytesMain does it.
#include <Python.h>
#include <asm/unistd.h>
#include <unistd.h>

// In glibc since 2.34, and all that the library asks for which the sysroot's 2.31 lacks.
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
