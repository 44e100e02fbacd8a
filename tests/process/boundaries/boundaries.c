/* Counts the system calls with which this process changes the journal's files, and lets one of them fail.

   Preloaded before the C library. `arm(n, error)`: the n-th call from now on is not made: it fails with that
   error, or, if that is 0, kills the process. `reached()`: how many there have been since. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long count, at;
static int with_error;

void arm(long n, int error) {
  count = 0;
  at = n;
  with_error = error;
}

long reached(void) { return count; }

static int is_refused(void) {
  if (__sync_add_and_fetch(&count, 1) != at)
    return 0;
  if (with_error == 0)
    kill(getpid(), SIGKILL);
  errno = with_error;
  return 1;
}

static int is_journal(int descriptor) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0)
    return 0;
  path[length] = 0;
  return strstr(path, "journal.sqlite3") != NULL;
}

#define CHANGES(type, name, parameters, descriptor, arguments)                                             \
  type name parameters {                                                                                   \
    static type(*real) parameters;                                                                         \
    if (real == NULL)                                                                                      \
      real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                  \
    return at != 0 && is_journal(descriptor) && is_refused() ? -1 : real arguments;                        \
  }

CHANGES(ssize_t, write, (int fd, const void *data, size_t size), fd, (fd, data, size))
CHANGES(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t to), fd, (fd, data, size, to))
CHANGES(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t to), fd, (fd, data, size, to))
CHANGES(int, ftruncate, (int fd, off_t size), fd, (fd, size))
CHANGES(int, ftruncate64, (int fd, off64_t size), fd, (fd, size))
CHANGES(int, fsync, (int fd), fd, (fd))
CHANGES(int, fdatasync, (int fd), fd, (fd))

int unlink(const char *path) {
  static int (*real)(const char *);
  if (real == NULL)
    real = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  return at != 0 && strstr(path, "journal.sqlite3") != NULL && is_refused() ? -1 : real(path);
}
