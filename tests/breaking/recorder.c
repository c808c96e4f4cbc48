/* Records what a process does to the files below a directory, for tests. Preloaded; idle until `record_begin`.

   One line for each operation that succeeded, in the order in which they were done: a word and its arguments, with tabs
   between them. Paths, texts and data are in hexadecimal digits; a file or directory is told by its inode. Operations
   wait for each other, so that the order is one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static FILE *record;
static unsigned char ours[DESCRIPTORS];

#define REAL(result, name, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Begin to record operations below `directory` into the file `path`, which is elsewhere. */
void record_begin(const char *directory, const char *path) {
    record = fopen(path, "wx");
    strncpy(root, directory, sizeof root - 1);
    root_length = strlen(root);
}

void record_end(void) {
    root_length = 0;
    fclose(record);
}

static void hexadecimal(const void *data, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (const unsigned char *it = data, *end = it + n; it < end; it++) {
        putc_unlocked(digits[*it >> 4], record);
        putc_unlocked(digits[*it & 15], record);
    }
}

static void text(const char *it) {
    putc_unlocked('\t', record);
    hexadecimal(it, strlen(it));
}

/* Note something that the process itself wants to be found in the record. */
void record_mark(const char *what) {
    pthread_mutex_lock(&turn);
    fputs("mark", record);
    text(what);
    putc_unlocked('\n', record);
    pthread_mutex_unlock(&turn);
}

/* Make a path absolute; say whether it is below the root. */
static int absolute(int at, const char *path, char *out) {
    if (!root_length || !path) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char link[64];
        char directory[PATH_MAX];
        if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, directory, sizeof directory - 1);
        if (n < 0) return 0;
        directory[n] = 0;
        if (snprintf(out, PATH_MAX, "%s/%s", directory, path) >= PATH_MAX) return 0;
    }
    return !strncmp(out, root, root_length) && (out[root_length] == '/' || !out[root_length]);
}

static int mine(int descriptor) {
    return root_length && descriptor >= 0 && descriptor < DESCRIPTORS && ours[descriptor];
}

static void inode_of(int descriptor) {
    struct stat found;
    int before = errno;
    if (fstat(descriptor, &found)) abort();
    errno = before;
    fprintf(record, "\t%lu", (unsigned long)found.st_ino);
}

static int exists(const char *path) {
    struct stat found;
    int before = errno;
    int there = !lstat(path, &found);
    errno = before;
    return there;
}

static int note_open(int descriptor, const char *path, int flags, int was_there) {
    if (descriptor < 0 || descriptor >= DESCRIPTORS) return descriptor;
    ours[descriptor] = 1;
    if ((flags & O_CREAT) && !was_there) {
        fputs("create", record);
        inode_of(descriptor);
        text(path);
        putc_unlocked('\n', record);
    } else if (flags & O_TRUNC) {
        fputs("resize", record);
        inode_of(descriptor);
        fputs("\t0\n", record);
    }
    return descriptor;
}

#define OPEN(function, first, first_type, at)                                                                          \
    int function(first const char *path, int flags, ...) {                                                             \
        REAL(int, #function, first_type const char *, int, ...);                                                       \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;                                 \
        va_end(arguments);                                                                                             \
        char full[PATH_MAX];                                                                                           \
        if (!absolute(at, path, full)) return CALL(path, flags, mode);                                                 \
        pthread_mutex_lock(&turn);                                                                                     \
        int was_there = exists(full);                                                                                  \
        int descriptor = note_open(CALL(path, flags, mode), full, flags, was_there);                                   \
        pthread_mutex_unlock(&turn);                                                                                   \
        return descriptor;                                                                                             \
    }
#define CALL(...) real(__VA_ARGS__)
#define NOTHING
OPEN(open, NOTHING, NOTHING, AT_FDCWD)
OPEN(open64, NOTHING, NOTHING, AT_FDCWD)
#undef CALL
#define CALL(...) real(at, __VA_ARGS__)
#define COMMA ,
OPEN(openat, int at COMMA, int COMMA, at)
OPEN(openat64, int at COMMA, int COMMA, at)
#undef CALL

int close(int descriptor) {
    REAL(int, "close", int);
    if (descriptor >= 0 && descriptor < DESCRIPTORS) ours[descriptor] = 0;
    return real(descriptor);
}

static void note_write(int descriptor, off_t offset, const struct iovec *parts, int count, ssize_t nbytes) {
    if (nbytes <= 0) return;
    fputs("write", record);
    inode_of(descriptor);
    fprintf(record, "\t%lld\t", (long long)offset);
    for (int i = 0; i < count && nbytes > 0; i++) {
        size_t n = (size_t)nbytes < parts[i].iov_len ? (size_t)nbytes : parts[i].iov_len;
        hexadecimal(parts[i].iov_base, n);
        nbytes -= (ssize_t)n;
    }
    putc_unlocked('\n', record);
}

ssize_t write(int descriptor, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!mine(descriptor)) return real(descriptor, data, n);
    pthread_mutex_lock(&turn);
    off_t offset = lseek(descriptor, 0, SEEK_CUR);
    ssize_t done = real(descriptor, data, n);
    struct iovec part = {(void *)data, n};
    note_write(descriptor, offset, &part, 1, done);
    pthread_mutex_unlock(&turn);
    return done;
}

#define PWRITE(function, offset_type)                                                                                  \
    ssize_t function(int descriptor, const void *data, size_t n, offset_type offset) {                                 \
        REAL(ssize_t, #function, int, const void *, size_t, offset_type);                                              \
        if (!mine(descriptor)) return real(descriptor, data, n, offset);                                               \
        pthread_mutex_lock(&turn);                                                                                     \
        ssize_t done = real(descriptor, data, n, offset);                                                              \
        struct iovec part = {(void *)data, n};                                                                         \
        note_write(descriptor, offset, &part, 1, done);                                                                \
        pthread_mutex_unlock(&turn);                                                                                   \
        return done;                                                                                                   \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PWRITEV(function, parameters, types, ...)                                                                      \
    ssize_t function parameters {                                                                                      \
        REAL(ssize_t, #function, types);                                                                               \
        if (!mine(descriptor)) return real(__VA_ARGS__);                                                               \
        pthread_mutex_lock(&turn);                                                                                     \
        ssize_t done = real(__VA_ARGS__);                                                                              \
        note_write(descriptor, offset, parts, count, done);                                                            \
        pthread_mutex_unlock(&turn);                                                                                   \
        return done;                                                                                                   \
    }
#define PLAIN(offset_type) int COMMA const struct iovec *COMMA int COMMA offset_type
#define FLAGGED(offset_type) PLAIN(offset_type) COMMA int
PWRITEV(pwritev, (int descriptor, const struct iovec *parts, int count, off_t offset), PLAIN(off_t), descriptor, parts,
        count, offset)
PWRITEV(pwritev64, (int descriptor, const struct iovec *parts, int count, off64_t offset), PLAIN(off64_t), descriptor,
        parts, count, offset)
PWRITEV(pwritev2, (int descriptor, const struct iovec *parts, int count, off_t offset, int how), FLAGGED(off_t),
        descriptor, parts, count, offset, how)
PWRITEV(pwritev64v2, (int descriptor, const struct iovec *parts, int count, off64_t offset, int how), FLAGGED(off64_t),
        descriptor, parts, count, offset, how)

ssize_t copy_file_range(int from, off64_t *from_offset, int descriptor, off64_t *to_offset, size_t n, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    if (!mine(descriptor)) return real(from, from_offset, descriptor, to_offset, n, flags);
    errno = ENOSYS; /* the caller then writes by itself, which is recorded */
    return -1;
}

#define RESIZE(function, parameters, types, failure, ...)                                                              \
    int function parameters {                                                                                          \
        REAL(int, #function, types);                                                                                   \
        if (!mine(descriptor)) return real(__VA_ARGS__);                                                               \
        pthread_mutex_lock(&turn);                                                                                     \
        int result = real(__VA_ARGS__);                                                                                \
        struct stat found;                                                                                             \
        if (!result && !fstat(descriptor, &found)) {                                                                   \
            fputs("resize", record);                                                                                   \
            inode_of(descriptor);                                                                                      \
            fprintf(record, "\t%lld\n", (long long)found.st_size);                                                     \
        }                                                                                                              \
        pthread_mutex_unlock(&turn);                                                                                   \
        return result;                                                                                                 \
    }
RESIZE(ftruncate, (int descriptor, off_t n), int COMMA off_t, -1, descriptor, n)
RESIZE(ftruncate64, (int descriptor, off64_t n), int COMMA off64_t, -1, descriptor, n)
RESIZE(posix_fallocate, (int descriptor, off_t offset, off_t n), int COMMA off_t COMMA off_t, errno, descriptor, offset,
       n)
RESIZE(posix_fallocate64, (int descriptor, off64_t offset, off64_t n), int COMMA off64_t COMMA off64_t, errno,
       descriptor, offset, n)

#define FLUSH(function, word)                                                                                          \
    int function(int descriptor) {                                                                                     \
        REAL(int, #function, int);                                                                                     \
        if (!mine(descriptor)) return real(descriptor);                                                                \
        pthread_mutex_lock(&turn);                                                                                     \
        int result = real(descriptor);                                                                                 \
        if (!result) {                                                                                                 \
            fputs(word, record);                                                                                       \
            inode_of(descriptor);                                                                                      \
            putc_unlocked('\n', record);                                                                               \
        }                                                                                                              \
        pthread_mutex_unlock(&turn);                                                                                   \
        return result;                                                                                                 \
    }
FLUSH(fsync, "flush")
FLUSH(fdatasync, "flush")
FLUSH(syncfs, "flush-all")

static void note_mkdir(const char *path) {
    struct stat found;
    if (lstat(path, &found)) abort();
    fprintf(record, "mkdir\t%lu", (unsigned long)found.st_ino);
    text(path);
    putc_unlocked('\n', record);
}

#define ONE_PATH(function, parameters, types, at, note, ...)                                                           \
    int function parameters {                                                                                          \
        REAL(int, #function, types);                                                                                   \
        char full[PATH_MAX];                                                                                           \
        if (!absolute(at, path, full)) return real(__VA_ARGS__);                                                       \
        pthread_mutex_lock(&turn);                                                                                     \
        int result = real(__VA_ARGS__);                                                                                \
        if (!result) { note }                                                                                          \
        pthread_mutex_unlock(&turn);                                                                                   \
        return result;                                                                                                 \
    }
#define REMOVED fputs("remove", record); text(full); putc_unlocked('\n', record);
ONE_PATH(mkdir, (const char *path, mode_t mode), const char *COMMA mode_t, AT_FDCWD, note_mkdir(full);, path, mode)
ONE_PATH(mkdirat, (int at, const char *path, mode_t mode), int COMMA const char *COMMA mode_t, at, note_mkdir(full);,
         at, path, mode)
ONE_PATH(rmdir, (const char *path), const char *, AT_FDCWD, REMOVED, path)
ONE_PATH(unlink, (const char *path), const char *, AT_FDCWD, REMOVED, path)
ONE_PATH(unlinkat, (int at, const char *path, int how), int COMMA const char *COMMA int, at, REMOVED, at, path, how)

#define TWO_PATHS(function, word, parameters, types, at, to_at, ...)                                                   \
    int function parameters {                                                                                          \
        REAL(int, #function, types);                                                                                   \
        char full[PATH_MAX], full_to[PATH_MAX];                                                                        \
        if (!absolute(at, path, full) || !absolute(to_at, to, full_to)) return real(__VA_ARGS__);                      \
        pthread_mutex_lock(&turn);                                                                                     \
        int result = real(__VA_ARGS__);                                                                                \
        if (!result) {                                                                                                 \
            fputs(word, record);                                                                                       \
            text(full);                                                                                                \
            text(full_to);                                                                                             \
            putc_unlocked('\n', record);                                                                               \
        }                                                                                                              \
        pthread_mutex_unlock(&turn);                                                                                   \
        return result;                                                                                                 \
    }
#define AT_TYPES int COMMA const char *COMMA int COMMA const char *
TWO_PATHS(rename, "rename", (const char *path, const char *to), const char *COMMA const char *, AT_FDCWD, AT_FDCWD,
          path, to)
TWO_PATHS(renameat, "rename", (int at, const char *path, int to_at, const char *to), AT_TYPES, at, to_at, at, path,
          to_at, to)
TWO_PATHS(renameat2, "rename", (int at, const char *path, int to_at, const char *to, unsigned how),
          AT_TYPES COMMA unsigned, at, to_at, at, path, to_at, to, how)
TWO_PATHS(link, "link", (const char *path, const char *to), const char *COMMA const char *, AT_FDCWD, AT_FDCWD, path,
          to)
TWO_PATHS(linkat, "link", (int at, const char *path, int to_at, const char *to, int how), AT_TYPES COMMA int, at, to_at,
          at, path, to_at, to, how)
