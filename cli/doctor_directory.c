/* SPDX-License-Identifier: Apache-2.0 */
/* What `doctor` finds in the cache directory. docs/format.md has the names of all that is there. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "cache.h"
#include "doctor.h"
#include "output.h"

static const char upper_hex[] = "0123456789ABCDEF";

static unsigned mode_of(const struct stat *st)
{
    return (unsigned)(st->st_mode & 07777);
}

/* ---- the directory itself -------------------------------------------------------------------- */

/* Opens the directory, and what is there of the path to it. */
static void open_directory(struct cli_doctor *doctor)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    char *path = strdup(doctor->status.dir), *slash;

    if (!path || !*path) {
        free(path);
        return;
    }
    doctor->dir = open(path, flags);
    doctor->place = doctor->dir;
    while (doctor->place < 0 && (slash = strrchr(path, '/')) && path[1]) {
        slash[slash == path] = '\0';
        doctor->place = open(path, flags);
    }
    free(path);
}

static void say_state(struct cli_doctor *doctor)
{
    const wasmcache_status_info *info = &doctor->status;
    const unsigned mode = info->mode & 07777;

    if (!*info->dir)
        cli_doctor_say(doctor, CLI_BROKEN, "directory",
                       "name one with --cache-dir, $WASMCACHE_DIR or dir in the settings file",
                       "there is no home directory, and so no cache directory");
    else if (info->state == WASMCACHE_STATE_OFF)
        cli_doctor_say(doctor, CLI_BROKEN, "directory", "until then all is compiled", "%s",
                       info->message);
    else if (info->state == WASMCACHE_STATE_READ_ONLY)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "directory",
                       "nothing if it is to be so; else let its owner do the saving", "%s: %s",
                       info->dir, info->message);
    else if (!info->mode || doctor->dir < 0)
        cli_doctor_say(doctor, CLI_FINE, "directory", NULL,
                       "%s is not there, and will be made when it is needed", info->dir);
    else
        cli_doctor_say(doctor, CLI_FINE, "directory", NULL,
                       "%s: trusted and writable (owner %" PRIu32 ", mode %04o)", info->dir,
                       info->uid, mode);
}

/* ---- namespaces ------------------------------------------------------------------------------ */

struct contents {
    uint64_t entries, bytes;
    uint64_t untrusted;        /* entries that the library will not load */
    uint64_t left, left_bytes; /* by writers that are gone */
};

/* "{id}-v{version}" */
static bool is_namespace(const char *name)
{
    const char *version = strrchr(name, 'v');

    return *name != '.' && version && version > name + 1 && version[-1] == '-' && version[1] &&
           version[1 + strspn(version + 1, "0123456789")] == '\0';
}

/* "{KEY}.bin" */
static bool is_entry(const char *name)
{
    size_t digits = strspn(name, upper_hex);

    return (digits == 64 || digits == 16) && !strcmp(name + digits, ".bin");
}

/* ".tmp-..." and ".old-...", whose writer holds a lock for as long as it lives. What is younger
 * than a minute is left alone: it may be about to be locked. */
static bool is_left(int folder, const char *name, const struct stat *st)
{
    bool left;
    int fd;

    if ((strncmp(name, ".tmp-", 5) != 0 && strncmp(name, ".old-", 5) != 0) ||
        st->st_ctime + 60 > time(NULL))
        return false;
    fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    left = !flock(fd, LOCK_SH | LOCK_NB);
    close(fd);
    return left;
}

static void look_at_file(struct contents *sum, int folder, const char *name)
{
    struct stat st;

    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return;
    if (is_entry(name)) {
        sum->entries++;
        sum->bytes += (uint64_t)st.st_size;
        sum->untrusted += !cli_doctor_trusts(&st);
    } else if (is_left(folder, name, &st)) {
        sum->left++;
        sum->left_bytes += (uint64_t)st.st_size;
    }
}

/* Takes the descriptor. */
static bool walk(struct contents *sum, int folder)
{
    DIR *stream = fdopendir(folder);
    struct dirent *file;

    if (!stream) {
        close(folder);
        return false;
    }
    errno = 0;
    while ((file = readdir(stream)) != NULL) {
        look_at_file(sum, folder, file->d_name);
        errno = 0;
    }
    /* Set by the last readdir() alone, and closedir() may set it too. */
    folder = errno;
    closedir(stream);
    errno = folder;
    return !folder;
}

static void look_at_namespace(struct cli_doctor *doctor, const char *name, struct contents *sum)
{
    int folder = openat(doctor->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    char count[CLI_TEXT_SIZE], bytes[CLI_TEXT_SIZE];
    struct contents here = {0};
    struct stat st;

    if (folder < 0 || fstat(folder, &st)) {
        cli_doctor_say(doctor, CLI_BROKEN, "namespace",
                       "let the user who runs this read it, or remove it",
                       "%s cannot be opened: %s", name, strerror(errno));
        if (folder >= 0)
            close(folder);
        return;
    }
    if (!walk(&here, folder)) {
        cli_doctor_say(doctor, CLI_BROKEN, "namespace", "look at the disk; removing it is safe",
                       "%s cannot be listed: %s", name, strerror(errno));
    } else if (!cli_doctor_trusts(&st)) {
        cli_doctor_say(doctor, CLI_BROKEN, "namespace",
                       "chmod go-w it if it is yours and nobody else wrote to it; else remove it",
                       "%s is not used: others may write to it (owner %" PRIu32 ", mode %04o)",
                       name, (uint32_t)st.st_uid, mode_of(&st));
    } else {
        cli_doctor_say(doctor, CLI_FINE, "namespace", NULL,
                       "%s: %s, %s (owner %" PRIu32 ", mode %04o)", name,
                       cli_doctor_count(count, here.entries, "entry", "entries"),
                       cli_doctor_bytes(bytes, here.bytes), (uint32_t)st.st_uid, mode_of(&st));
    }
    sum->entries += here.entries;
    sum->bytes += here.bytes;
    sum->untrusted += here.untrusted;
    sum->left += here.left;
    sum->left_bytes += here.left_bytes;
}

static int only_namespaces(const struct dirent *entry)
{
    return is_namespace(entry->d_name);
}

static void look_at_namespaces(struct cli_doctor *doctor)
{
    struct contents sum = {0};
    struct dirent **names = NULL;
    char count[CLI_TEXT_SIZE], bytes[CLI_TEXT_SIZE];
    int i, n = scandir(doctor->status.dir, &names, only_namespaces, alphasort);

    if (n < 0)
        cli_doctor_say(doctor, CLI_BROKEN, "namespace",
                       "let the user who runs this list the directory",
                       "the directory cannot be listed: %s", strerror(errno));
    for (i = 0; i < n; i++) {
        look_at_namespace(doctor, names[i]->d_name, &sum);
        free(names[i]);
    }
    free(names);
    doctor->entries = sum.entries;
    doctor->bytes = sum.bytes;
    if (sum.untrusted)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "entries",
                       "they are replaced as they are needed; \"wasmcache verify\" lists them",
                       "%s not used: another's, or writable by others",
                       cli_doctor_count(count, sum.untrusted, "entry is", "entries are"));
    if (sum.left)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "left over", "\"wasmcache prune\" removes them",
                       "%s, %s, of writers that are gone",
                       cli_doctor_count(count, sum.left, "file", "files"),
                       cli_doctor_bytes(bytes, sum.left_bytes));
    else if (n >= 0)
        cli_doctor_say(doctor, CLI_FINE, "left over", NULL, "nothing of writers that are gone");
}

/* ---- what lies beside them ------------------------------------------------------------------- */

/* More than 5 in 100 apart: a total may lag a little behind those who write just now. */
static bool differs(uint64_t a, uint64_t b)
{
    return a > b ? a - b > a / 20 : b - a > b / 20;
}

static void look_at_total(struct cli_doctor *doctor)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    char count[CLI_TEXT_SIZE], bytes[CLI_TEXT_SIZE], real[CLI_TEXT_SIZE], all[CLI_TEXT_SIZE];

    if (wasmcache_stats_read(doctor->cache, WASMCACHE_STATS_DIRECTORY, &stats)) {
        cli_doctor_say(doctor, CLI_DOUBTFUL, "total",
                       "remove the file .tally-1; it is made anew, and counts from 0", "%s",
                       cli_last_message());
    } else if (!stats.known) {
        cli_doctor_say(doctor, CLI_FINE, "total", NULL,
                       "not known yet; the next save or \"wasmcache prune\" counts");
    } else {
        bool wrong = differs(stats.bytes, doctor->bytes) || differs(stats.entries, doctor->entries);

        cli_doctor_bytes(bytes, stats.bytes);
        cli_doctor_count(count, stats.entries, "entry", "entries");
        if (wrong)
            cli_doctor_say(doctor, CLI_DOUBTFUL, "total", "\"wasmcache prune\" corrects it",
                           "the running total is %s, %s, and there are %s, %s: limits are kept by "
                           "the total",
                           count, bytes, cli_doctor_count(all, doctor->entries, "entry", "entries"),
                           cli_doctor_bytes(real, doctor->bytes));
        else
            cli_doctor_say(doctor, CLI_FINE, "total", NULL, "%s, %s, as there are", count, bytes);
    }
}

/* What the first 40 bytes have to be; "" if all is well, else what is wrong. */
static const char *wrong_hints(int fd, const struct stat *st)
{
    const uint32_t numbers[4] = {0x01020304, 1, st->st_uid, 2 * 65536};
    uint8_t header[40] = {0}, want[40] = "wasmcache hints";
    uint64_t check;

    if (!S_ISREG(st->st_mode))
        return "it is no regular file";
    if (st->st_uid != geteuid())
        return "it is another user's: this one remembers nothing beyond the process";
    if (st->st_mode & 077)
        return "group or others may use it";
    if (st->st_nlink != 1)
        return "it has another name, too";
    memcpy(want + 16, numbers, sizeof(numbers));
    check = XXH3_64bits(want, 32);
    memcpy(want + 32, &check, sizeof(check));
    if (pread(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
        memcmp(header, want, sizeof(want)) != 0)
        return "its first bytes are not those of a table";
    return "";
}

static void look_at_hints(struct cli_doctor *doctor)
{
    const uint16_t one = 1;
    const char *name = *(const uint8_t *)&one ? ".hints-1-le" : ".hints-1-be";
    int fd = openat(doctor->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    const char *wrong;
    struct stat st = {0};
    char bytes[CLI_TEXT_SIZE];

    if (fd < 0 && errno == ENOENT) {
        cli_doctor_say(doctor, CLI_FINE, "hints", NULL, "no table yet; it is made when needed");
        return;
    }
    wrong = fd < 0 || fstat(fd, &st) ? strerror(errno) : wrong_hints(fd, &st);
    if (*wrong && doctor->status.state == WASMCACHE_STATE_READ_ONLY)
        cli_doctor_say(doctor, CLI_FINE, "hints", NULL,
                       "%s is not for this user, who remembers within a process", name);
    else if (*wrong)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "hints",
                       "remove it; until then files are read again that need not be",
                       "the table %s is not used: %s", name, wrong);
    else
        cli_doctor_say(doctor, CLI_FINE, "hints", NULL, "%s: a table of ours, %s on disk", name,
                       cli_doctor_bytes(bytes, (uint64_t)st.st_blocks * 512));
    if (fd >= 0)
        close(fd);
}

void cli_doctor_directory(struct cli_doctor *doctor)
{
    wasmcache *writing = NULL;

    /* That one is only asked what it would do. */
    if (cli_cache_open_with(doctor->cli, &writing, 0, NULL) ||
        cli_cache_open_with(doctor->cli, &doctor->cache, WASMCACHE_READ_ONLY, NULL)) {
        cli_doctor_say(doctor, CLI_BROKEN, "directory", "look at the settings above", "%s",
                       cli_last_message());
        wasmcache_close(writing);
        return;
    }
    wasmcache_status(writing, &doctor->status);
    wasmcache_close(writing);
    open_directory(doctor);
    say_state(doctor);
    /* In a directory that is not used, names mean nothing. */
    if (doctor->dir < 0 || doctor->status.state == WASMCACHE_STATE_OFF)
        return;
    look_at_namespaces(doctor);
    look_at_total(doctor);
    look_at_hints(doctor);
}
