// SPDX-License-Identifier: Apache-2.0
// x86_64-conda-linux-gnu-gcc and its siblings: start GCC's real driver, of the same name in ../libexec/, with the sysroot of this prefix.
//
// Debian configures GCC with "/" as its sysroot, and a GCC configured that way does not look for one relative to itself. The program's
// own place gives the prefix, so that an environment can be moved or linked to. A later --sysroot on the command line still wins.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSROOT "/x86_64-conda-linux-gnu/sysroot"

// What this starts. Compiler caches that identify a compiler by the bytes of its program must see a change of the real one.
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
  // Twice: off with the file's name, off with bin.
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
