// SPDX-License-Identifier: Apache-2.0
// x86_64-conda-linux-gnu-gcc, -g++ and -cpp: start GCC's driver of the same name in ../libexec/
// with the sysroot of this prefix.
//
// Debian configures GCC with the sysroot "/", and GCC then does not look for a sysroot relative to
// itself. This program derives the prefix from its own path, so an environment can be moved or
// linked to. A later --sysroot on the command line takes precedence.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSROOT "/x86_64-conda-linux-gnu/sysroot"

// Identifies the driver. Some compiler caches identify a compiler by the bytes of its program, so
// these must change with the driver.
__attribute__((used)) static const char started[] = "starts " DRIVER_DIGEST;

static int fail(const char* what) {
  fprintf(stderr, "%s: %s: %s\n", DRIVER_NAME, what, strerror(errno));
  return 1;
}

int main(int argc, char** argv) {
  char prefix[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", prefix, sizeof(prefix) - 1);
  if (length < 0) return fail("/proc/self/exe");
  prefix[length] = '\0';
  // Remove the file name, then bin.
  for (int i = 0; i < 2; ++i) {
    char* slash = strrchr(prefix, '/');
    if (slash) *slash = '\0';
  }

  size_t room = strlen(prefix) + sizeof("/libexec/" DRIVER_NAME) + sizeof("--sysroot=" SYSROOT);
  char* driver = malloc(room);
  char* sysroot = malloc(room);
  char** arguments = calloc((size_t)argc + 2, sizeof(char*));
  if (!driver || !sysroot || !arguments) return fail("out of memory");
  snprintf(driver, room, "%s/libexec/%s", prefix, DRIVER_NAME);
  snprintf(sysroot, room, "--sysroot=%s%s", prefix, SYSROOT);

  arguments[0] = driver;
  arguments[1] = sysroot;
  for (int i = 1; i < argc; ++i) arguments[i + 1] = argv[i];
  execv(driver, arguments);
  return fail(driver);
}
