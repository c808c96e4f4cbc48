/* Makes one file operation of a process fail, for tests. Preloaded; does nothing until `shim_arm` is called.

   Operations count if they name a file below the armed directory, or a descriptor that was opened there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096

static char directory[4096];
static size_t directory_length;
static atomic_long fail_at, counted;
static atomic_int fail_with, fail_from_then_on;
static atomic_uchar ours[DESCRIPTORS];
static char failed_operation[64];

/* Count operations below `path`; let number `at` (from 1) fail with `error`, and all later ones too if `persistent`. */
void shim_arm(const char *path, long at, int error, int persistent) {
    strncpy(directory, path, sizeof directory - 1);
    directory_length = strlen(directory);
    fail_with = error;
    fail_from_then_on = persistent;
    counted = 0;
    failed_operation[0] = 0;
    fail_at = at;
}

/* Stop counting; return how many operations there were. */
long shim_disarm(void) {
    directory_length = 0;
    return counted;
}

/* Name of the first operation that was made to fail; empty if none was. */
const char *shim_failed(void) { return failed_operation; }

static int below(const char *path) {
    return directory_length && path && !strncmp(path, directory, directory_length) &&
           (path[directory_length] == '/' || !path[directory_length]);
}

static int mine(int descriptor) {
    return directory_length && descriptor >= 0 && descriptor < DESCRIPTORS && ours[descriptor];
}

static void opened(int descriptor, int is_below) {
    if (descriptor >= 0 && descriptor < DESCRIPTORS) ours[descriptor] = (unsigned char)is_below;
}

/* Count an operation; say whether it has to fail, with errno set. */
static int fails(const char *name) {
    long number = atomic_fetch_add(&counted, 1) + 1;
    long at = fail_at;
    if (at <= 0 || number < at || (number > at && !fail_from_then_on)) return 0;
    if (!failed_operation[0]) strncpy(failed_operation, name, sizeof failed_operation - 1);
    errno = fail_with;
    return 1;
}

#define REAL(result, name, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(function)                                                                                                 \
    int function(const char *path, int flags, ...) {                                                                   \
        REAL(int, #function, const char *, int, ...);                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;                                 \
        va_end(arguments);                                                                                             \
        int is_below = below(path);                                                                                    \
        if (is_below && fails("open")) return -1;                                                                      \
        int descriptor = real(path, flags, mode);                                                                      \
        opened(descriptor, is_below);                                                                                  \
        return descriptor;                                                                                             \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                                                               \
    int function(int at, const char *path, int flags, ...) {                                                           \
        REAL(int, #function, int, const char *, int, ...);                                                             \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;                                 \
        va_end(arguments);                                                                                             \
        int is_below = below(path) || mine(at);                                                                        \
        if (is_below && fails("openat")) return -1;                                                                    \
        int descriptor = real(at, path, flags, mode);                                                                  \
        opened(descriptor, is_below);                                                                                  \
        return descriptor;                                                                                             \
    }
OPENAT(openat)
OPENAT(openat64)

/* close() that fails has closed the descriptor all the same, as on Linux. */
int close(int descriptor) {
    REAL(int, "close", int);
    int is_mine = mine(descriptor);
    opened(descriptor, 0);
    int result = real(descriptor);
    return is_mine && fails("close") ? -1 : result;
}

#define BY_DESCRIPTOR(result, function, failure, parameters, types, ...)                                               \
    result function parameters {                                                                                       \
        REAL(result, #function, types);                                                                                \
        if (mine(descriptor) && fails(#function)) return failure;                                                      \
        return real(__VA_ARGS__);                                                                                      \
    }
#define COMMA ,
BY_DESCRIPTOR(ssize_t, read, -1, (int descriptor, void *to, size_t n), int COMMA void * COMMA size_t, descriptor, to, n)
BY_DESCRIPTOR(ssize_t, write, -1, (int descriptor, const void *data, size_t n), int COMMA const void * COMMA size_t,
              descriptor, data, n)
#define AT_OFFSET(function, data, offset_type)                                                                         \
    BY_DESCRIPTOR(ssize_t, function, -1, (int descriptor, data it, size_t n, offset_type offset),                      \
                  int COMMA data COMMA size_t COMMA offset_type, descriptor, it, n, offset)
AT_OFFSET(pread, void *, off_t)
AT_OFFSET(pread64, void *, off64_t)
AT_OFFSET(pwrite, const void *, off_t)
AT_OFFSET(pwrite64, const void *, off64_t)
#define VECTORED(function, offset_type)                                                                                \
    BY_DESCRIPTOR(ssize_t, function, -1, (int descriptor, const struct iovec *it, int n, offset_type offset),          \
                  int COMMA const struct iovec * COMMA int COMMA offset_type, descriptor, it, n, offset)
VECTORED(preadv, off_t)
VECTORED(preadv64, off64_t)
VECTORED(pwritev, off_t)
VECTORED(pwritev64, off64_t)
#define FLAGGED(function, offset_type)                                                                                 \
    BY_DESCRIPTOR(ssize_t, function, -1, (int descriptor, const struct iovec *it, int n, offset_type offset, int how), \
                  int COMMA const struct iovec * COMMA int COMMA offset_type COMMA int, descriptor, it, n, offset, how)
FLAGGED(preadv2, off_t)
FLAGGED(preadv64v2, off64_t)
FLAGGED(pwritev2, off_t)
FLAGGED(pwritev64v2, off64_t)
BY_DESCRIPTOR(int, fsync, -1, (int descriptor), int, descriptor)
BY_DESCRIPTOR(int, fdatasync, -1, (int descriptor), int, descriptor)
BY_DESCRIPTOR(int, syncfs, -1, (int descriptor), int, descriptor)
BY_DESCRIPTOR(int, ftruncate, -1, (int descriptor, off_t n), int COMMA off_t, descriptor, n)
BY_DESCRIPTOR(int, ftruncate64, -1, (int descriptor, off64_t n), int COMMA off64_t, descriptor, n)
BY_DESCRIPTOR(int, fchmod, -1, (int descriptor, mode_t mode), int COMMA mode_t, descriptor, mode)
BY_DESCRIPTOR(int, flock, -1, (int descriptor, int how), int COMMA int, descriptor, how)
BY_DESCRIPTOR(int, fstat, -1, (int descriptor, struct stat *it), int COMMA struct stat *, descriptor, it)
BY_DESCRIPTOR(int, fstat64, -1, (int descriptor, struct stat64 *it), int COMMA struct stat64 *, descriptor, it)
BY_DESCRIPTOR(off_t, lseek, -1, (int descriptor, off_t offset, int how), int COMMA off_t COMMA int, descriptor, offset,
              how)
BY_DESCRIPTOR(off64_t, lseek64, -1, (int descriptor, off64_t offset, int how), int COMMA off64_t COMMA int, descriptor,
              offset, how)

/* These return the error instead of setting errno. */
#define FALLOCATE(function, offset_type)                                                                               \
    int function(int descriptor, offset_type offset, offset_type n) {                                                  \
        REAL(int, #function, int, offset_type, offset_type);                                                           \
        return mine(descriptor) && fails(#function) ? errno : real(descriptor, offset, n);                             \
    }
FALLOCATE(posix_fallocate, off_t)
FALLOCATE(posix_fallocate64, off64_t)

#define MMAP(function, offset_type)                                                                                    \
    void *function(void *address, size_t n, int allowed, int flags, int descriptor, offset_type offset) {              \
        REAL(void *, #function, void *, size_t, int, int, int, offset_type);                                           \
        if (mine(descriptor) && fails(#function)) return MAP_FAILED;                                                   \
        return real(address, n, allowed, flags, descriptor, offset);                                                   \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

int fcntl64(int descriptor, int command, ...) {
    REAL(int, "fcntl64", int, int, ...);
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (mine(descriptor) && fails("fcntl")) return -1;
    int result = real(descriptor, command, argument);
    if (mine(descriptor) && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) opened(result, 1);
    return result;
}

#define BY_PATH(function, parameters, types, ...)                                                                      \
    int function parameters {                                                                                          \
        REAL(int, #function, types);                                                                                   \
        if (below(path) && fails(#function)) return -1;                                                                \
        return real(__VA_ARGS__);                                                                                      \
    }
BY_PATH(stat, (const char *path, struct stat *it), const char *COMMA struct stat *, path, it)
BY_PATH(stat64, (const char *path, struct stat64 *it), const char *COMMA struct stat64 *, path, it)
BY_PATH(lstat, (const char *path, struct stat *it), const char *COMMA struct stat *, path, it)
BY_PATH(lstat64, (const char *path, struct stat64 *it), const char *COMMA struct stat64 *, path, it)
BY_PATH(statvfs64, (const char *path, struct statvfs64 *it), const char *COMMA struct statvfs64 *, path, it)
BY_PATH(access, (const char *path, int how), const char *COMMA int, path, how)
BY_PATH(mkdir, (const char *path, mode_t mode), const char *COMMA mode_t, path, mode)
BY_PATH(rmdir, (const char *path), const char *, path)
BY_PATH(unlink, (const char *path), const char *, path)
BY_PATH(rename, (const char *path, const char *to), const char *COMMA const char *, path, to)
BY_PATH(link, (const char *path, const char *to), const char *COMMA const char *, path, to)

#define BY_PATH_AT(function, parameters, types, ...)                                                                   \
    int function parameters {                                                                                          \
        REAL(int, #function, types);                                                                                   \
        if ((below(path) || mine(at)) && fails(#function)) return -1;                                                  \
        return real(__VA_ARGS__);                                                                                      \
    }
BY_PATH_AT(fstatat, (int at, const char *path, struct stat *it, int how),
           int COMMA const char *COMMA struct stat *COMMA int, at, path, it, how)
BY_PATH_AT(fstatat64, (int at, const char *path, struct stat64 *it, int how),
           int COMMA const char *COMMA struct stat64 *COMMA int, at, path, it, how)
BY_PATH_AT(unlinkat, (int at, const char *path, int how), int COMMA const char *COMMA int, at, path, how)
BY_PATH_AT(linkat, (int at, const char *path, int to_at, const char *to, int how),
           int COMMA const char *COMMA int COMMA const char *COMMA int, at, path, to_at, to, how)
BY_PATH_AT(renameat, (int at, const char *path, int to_at, const char *to),
           int COMMA const char *COMMA int COMMA const char *, at, path, to_at, to)
BY_PATH_AT(renameat2, (int at, const char *path, int to_at, const char *to, unsigned how),
           int COMMA const char *COMMA int COMMA const char *COMMA unsigned, at, path, to_at, to, how)

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    int is_below = below(path);
    if (is_below && fails("opendir")) return NULL;
    DIR *stream = real(path);
    if (stream) opened(dirfd(stream), is_below);
    return stream;
}

#define READDIR(function, entry)                                                                                       \
    entry *function(DIR *stream) {                                                                                     \
        REAL(entry *, #function, DIR *);                                                                               \
        if (mine(dirfd(stream)) && fails("readdir")) return NULL;                                                      \
        return real(stream);                                                                                           \
    }
READDIR(readdir, struct dirent)
READDIR(readdir64, struct dirent64)

int closedir(DIR *stream) {
    REAL(int, "closedir", DIR *);
    opened(dirfd(stream), 0);
    return real(stream);
}
