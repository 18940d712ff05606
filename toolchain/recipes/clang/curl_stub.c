// SPDX-License-Identifier: Apache-2.0
// libcurl.so.4 for llvm-objdump alone, which uses it only to look up debug information on a server.
// Every function fails, so such a look-up finds nothing; libcurl itself would bring twenty libraries.
#include <stddef.h>

enum { kFailedInit = 2 };

int curl_global_init(long flags) {
  (void)flags;
  return kFailedInit;
}
void curl_global_cleanup(void) {}
void* curl_easy_init(void) { return NULL; }
int curl_easy_setopt(void* handle, int option, ...) {
  (void)handle, (void)option;
  return kFailedInit;
}
int curl_easy_getinfo(void* handle, int info, ...) {
  (void)handle, (void)info;
  return kFailedInit;
}
int curl_easy_perform(void* handle) {
  (void)handle;
  return kFailedInit;
}
void curl_easy_cleanup(void* handle) { (void)handle; }
const char* curl_easy_strerror(int code) {
  (void)code;
  return "this llvm-objdump has no libcurl";
}
void* curl_slist_append(void* list, const char* text) {
  (void)text;
  return list;
}
void curl_slist_free_all(void* list) { (void)list; }
