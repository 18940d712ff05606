// SPDX-License-Identifier: Apache-2.0
// The common part of the replacements of GPU drivers: the functions by which a test makes calls
// fail or wait, and calls the allocator as torch does. A replacement defines fake_count().
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

enum { MANY = 256 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static struct {
  const char* call;
  int after, result;
} failures[MANY];
static char held_call[64];
static int waiting;

// Counts by name: of memory that has not been given back, and of calls.
long fake_count(const char* what);

static long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text != NULL && *text != 0 ? atol(text) : otherwise;
}

// The value of an attribute in FAKE_GPU_ATTRIBUTES, "102=1,110=0"; 0 if it is not named.
static int attribute_setting(const char* otherwise, int attribute) {
  const char* text = getenv("FAKE_GPU_ATTRIBUTES");
  char wanted[16];
  snprintf(wanted, sizeof(wanted), "%d=", attribute);
  text = strstr(text != NULL ? text : otherwise, wanted);
  return text != NULL ? atoi(text + strlen(wanted)) : 0;
}

// The error with which the test lets this call fail, or 0; waits as long as the test holds it.
static int told_to_fail(const char* call) {
  int result = 0;
  pthread_mutex_lock(&mutex);
  while (strcmp(held_call, call) == 0) {
    waiting = 1;
    pthread_cond_wait(&changed, &mutex);
    waiting = 0;
  }
  for (int i = 0; i < MANY; ++i) {
    if (failures[i].call != NULL && strcmp(failures[i].call, call) == 0 &&
        failures[i].after-- == 0) {
      result = failures[i].result;
      failures[i].call = NULL;
      break;
    }
  }
  pthread_mutex_unlock(&mutex);
  return result;
}

// Lets `call` fail with `result`, once, after it has been called `after` times.
void fake_fail(const char* call, int after, int result) {
  pthread_mutex_lock(&mutex);
  for (int i = 0; i < MANY; ++i) {
    if (failures[i].call == NULL) {
      failures[i].call = strdup(call);
      failures[i].after = after;
      failures[i].result = result;
      break;
    }
  }
  pthread_mutex_unlock(&mutex);
}

// From now on `call` waits; with "" all waiting calls go on.
void fake_hold(const char* call) {
  pthread_mutex_lock(&mutex);
  snprintf(held_call, sizeof(held_call), "%s", call);
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}
int fake_waiting(void) {
  pthread_mutex_lock(&mutex);
  const int now = waiting;
  pthread_mutex_unlock(&mutex);
  return now;
}

// Calls as torch makes them: from a thread that Python has never seen, from the destructor of an
// object, and after Python has ended.
typedef void* Malloc(ssize_t, int, void*);
typedef void Free(void*, ssize_t, int, void*);
static Malloc* given_malloc;
static Free* given_free;
static void* given_pointer;
static void* in_thread(void* size) { return given_malloc((ssize_t)(intptr_t)size, 0, NULL); }
void* fake_malloc_in_thread(Malloc* function, long size) {
  pthread_t thread;
  void* result = NULL;
  given_malloc = function;
  pthread_create(&thread, NULL, in_thread, (void*)size);
  pthread_join(thread, &result);
  return result;
}
void fake_give(Free* function, void* pointer) {
  given_free = function;
  given_pointer = pointer;
}
void fake_free_given(void* capsule) {
  (void)capsule;
  given_free(given_pointer, 0, 0, NULL);
}
static void at_exit(void) {
  fake_free_given(NULL);
  printf("left at exit: %ld\n", fake_count("ranges") + fake_count("physical"));
  fflush(stdout);
}
void fake_free_at_exit(void) { atexit(at_exit); }
