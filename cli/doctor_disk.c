/* SPDX-License-Identifier: Apache-2.0 */
/* What `doctor` finds out about the disk that the cache is on. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "doctor.h"
#include "output.h"

/* ---- space ----------------------------------------------------------------------------------- */

/* What the settings let the entries take. */
static uint64_t limit_of(const struct cli_doctor *doctor, uint64_t available)
{
    const struct cli_setting_value *values = doctor->cli->config->values;
    const uint64_t percent = values[CLI_MAX_DISK_PERCENT].number;
    const uint64_t disk = (available + doctor->bytes) / 100 * percent;
    const uint64_t bytes = values[CLI_MAX_BYTES].number;

    return percent < 100 && disk < bytes ? disk : bytes;
}

static void look_at_space(struct cli_doctor *doctor, const struct statvfs *fs)
{
    const uint64_t available = (uint64_t)fs->f_bavail * fs->f_frsize;
    const uint64_t limit = limit_of(doctor, available), used = doctor->bytes;
    char free_text[CLI_TEXT_SIZE], used_text[CLI_TEXT_SIZE], limit_text[CLI_TEXT_SIZE];

    cli_doctor_bytes(free_text, available);
    cli_doctor_bytes(used_text, used);
    if (limit == UINT64_MAX)
        snprintf(limit_text, sizeof(limit_text), "what they want");
    else
        cli_doctor_bytes(limit_text, limit);
    if (!available)
        cli_doctor_say(doctor, CLI_BROKEN, "space", "make room; \"wasmcache prune\" can",
                       "nothing is free, so nothing is saved");
    else if (used > limit && used - limit > limit / 20)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "space", "\"wasmcache prune\" does it at once",
                       "entries take %s of %s; the next save evicts", used_text, limit_text);
    else if (limit == UINT64_MAX || limit - (used < limit ? used : limit) > available)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "space",
                       "lower max_bytes, or set max_disk_percent; else the disk fills up first, "
                       "and what is new is not saved",
                       "%s is free; entries take %s and may take %s", free_text, used_text,
                       limit_text);
    else
        cli_doctor_say(doctor, CLI_FINE, "space", NULL, "%s is free; entries take %s of %s",
                       free_text, used_text, limit_text);
}

enum { FEW_INODES = 1000 };

static void look_at_inodes(struct cli_doctor *doctor, const struct statvfs *fs)
{
    const uint64_t limit = doctor->cli->config->values[CLI_MAX_ENTRIES].number;
    const uint64_t available = fs->f_favail;
    char count[CLI_TEXT_SIZE], entries[CLI_TEXT_SIZE];

    cli_doctor_count(count, available, "inode is", "inodes are");
    cli_doctor_count(entries, doctor->entries, "entry", "entries");
    if (!fs->f_files)
        cli_doctor_say(doctor, CLI_FINE, "inodes", NULL, "this file system does not count them");
    else if (!available)
        cli_doctor_say(doctor, CLI_BROKEN, "inodes", "remove files; \"wasmcache prune\" can",
                       "none is free, so nothing is saved");
    else if (available < FEW_INODES)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "inodes", "an entry takes one: set max_entries",
                       "%s free", count);
    else if (limit != UINT64_MAX && limit > doctor->entries && limit - doctor->entries > available)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "inodes", "lower max_entries",
                       "%s free; there are %s and may be %" PRIu64, count, entries, limit);
    else if (limit != UINT64_MAX)
        cli_doctor_say(doctor, CLI_FINE, "inodes", NULL, "%s free; there are %s of %" PRIu64, count,
                       entries, limit);
    else
        cli_doctor_say(doctor, CLI_FINE, "inodes", NULL, "%s free", count);
}

/* ---- file system ----------------------------------------------------------------------------- */

/* statfs(2) and linux/magic.h. `local`: those that the library keeps locks, hints and a total on.
 */
struct file_system {
    uint32_t magic;
    bool local;
    const char *name;
};

static const struct file_system file_systems[] = {{0xEF53, true, "ext2, ext3 or ext4"},
                                                  {0x58465342, true, "XFS"},
                                                  {0x9123683E, true, "btrfs"},
                                                  {0x01021994, true, "tmpfs"},
                                                  {0x794C7630, true, "overlay"},
                                                  {0x2FC12FC1, true, "ZFS"},
                                                  {0xF2F52010, true, "F2FS"},
                                                  {0xCA451A4E, true, "bcachefs"},
                                                  {0x73717368, true, "squashfs"},
                                                  {0xE0F5E1E2, true, "EROFS"},
                                                  {0x858458F6, true, "ramfs"},
                                                  {0x3153464A, true, "JFS"},
                                                  {0x6969, false, "NFS"},
                                                  {0x65735546, false, "FUSE or virtiofs"},
                                                  {0x01021997, false, "9p"},
                                                  {0xFF534D42, false, "CIFS"},
                                                  {0xFE534D42, false, "SMB"},
                                                  {0x00C36400, false, "Ceph"},
                                                  {0x47504653, false, "GPFS"},
                                                  {0x0BD00BD0, false, "Lustre"},
                                                  {0x5346414F, false, "AFS"}};

static void look_at_file_system(struct cli_doctor *doctor)
{
    static const char advice[] =
        "put the cache on a local file system, such as ext4, XFS, btrfs or "
        "tmpfs";
    struct statfs fs;
    size_t i;

    if (fstatfs(doctor->place, &fs)) {
        cli_doctor_say(doctor, CLI_DOUBTFUL, "file system", advice, "it does not tell its type: %s",
                       strerror(errno));
        return;
    }
    for (i = 0; i < sizeof(file_systems) / sizeof(*file_systems); i++) {
        const struct file_system *known = &file_systems[i];

        if (known->magic != (uint32_t)fs.f_type)
            continue;
        if (known->local)
            cli_doctor_say(doctor, CLI_FINE, "file system", NULL, "%s", known->name);
        else
            cli_doctor_say(doctor, CLI_DOUBTFUL, "file system", advice,
                           "%s: processes do not wait for each other's compile, files are read "
                           "again at each hit, and only \"wasmcache prune\" keeps limits",
                           known->name);
        return;
    }
    cli_doctor_say(doctor, CLI_DOUBTFUL, "file system", advice,
                   "its type %08" PRIX32 " is not known: locks and times there are not relied on",
                   (uint32_t)fs.f_type);
}

/* ---- what works there ------------------------------------------------------------------------ */

/* A file to try things on. Without a name where that can be done; else its name is gone again when
 * this returns. -1: none can be made. */
static int scratch_file(const struct cli_doctor *doctor)
{
    char name[64];
    int fd = openat(doctor->place, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    snprintf(name, sizeof(name), ".doctor-%ld", (long)getpid());
    fd = openat(doctor->place, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        unlinkat(doctor->place, name, 0);
    return fd;
}

/* A file that is there, where none can be made. */
static int some_file(int folder, int depth)
{
    DIR *stream;
    struct dirent *entry;
    int found = -1, copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    stream = copy < 0 ? NULL : fdopendir(copy);
    if (!stream) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    while (found < 0 && (entry = readdir(stream)) != NULL) {
        const char *name = entry->d_name;
        struct stat st;
        int fd;

        if (!strcmp(name, ".") || !strcmp(name, "..") ||
            fstatat(copy, name, &st, AT_SYMLINK_NOFOLLOW) ||
            (!S_ISREG(st.st_mode) && !(depth && S_ISDIR(st.st_mode))))
            continue;
        fd = openat(copy, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 && S_ISDIR(st.st_mode)) {
            found = some_file(fd, depth - 1);
            close(fd);
        } else {
            found = fd;
        }
    }
    closedir(stream);
    return found;
}

static int lock_byte(int fd, short type)
{
    struct flock lock;

    memset(&lock, 0, sizeof(lock)); /* l_pid has to be 0 */
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    /* One that nothing else locks. */
    lock.l_start = (off_t)1 << 40;
    lock.l_len = 1;
    return fcntl(fd, F_OFD_SETLK, &lock);
}

/* Locks the file through one description and tries it through another: "" if that is held off as it
 * should be, else what is wrong. */
static const char *try_locks(int fd)
{
    const char *wrong = "";
    char path[64];
    int other;

    if (lock_byte(fd, F_WRLCK) || flock(fd, LOCK_EX | LOCK_NB))
        return strerror(errno);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    other = open(path, O_RDWR | O_CLOEXEC);
    if (other < 0)
        return strerror(errno);
    if (!lock_byte(other, F_WRLCK))
        wrong = "a byte that is locked can be locked again";
    else if (!flock(other, LOCK_EX | LOCK_NB))
        wrong = "a file that is locked can be locked again";
    close(other);
    return wrong;
}

static void look_at_locks(struct cli_doctor *doctor, int scratch, int file)
{
    static const char advice[] = "use a local file system; until then processes compile the same "
                                 "at the same time";
    const char *wrong;

    if (scratch >= 0) {
        wrong = try_locks(scratch);
        if (*wrong)
            cli_doctor_say(doctor, CLI_DOUBTFUL, "locks", advice, "they do not work here: %s",
                           wrong);
        else
            cli_doctor_say(doctor, CLI_FINE, "locks", NULL,
                           "one was taken here, and held off another");
    } else if (file < 0) {
        cli_doctor_say(doctor, CLI_FINE, "locks", NULL,
                       "not tried: there is no file, and none can be made");
    } else if (lock_byte(file, F_RDLCK)) {
        cli_doctor_say(doctor, CLI_DOUBTFUL, "locks", advice, "they do not work here: %s",
                       strerror(errno));
    } else {
        cli_doctor_say(doctor, CLI_FINE, "locks", NULL, "one was taken here, for reading only");
    }
}

static void look_at_mapping(struct cli_doctor *doctor, int fd, const struct statvfs *fs)
{
    static const char advice[] = "mount it without noexec, or put the cache elsewhere; until then "
                                 "hits load copies, which is slower";
    void *at;

    if (fd < 0 && !(fs->f_flag & ST_NOEXEC)) {
        cli_doctor_say(doctor, CLI_FINE, "mapping", NULL,
                       "not tried: there is no file, and none can be made");
        return;
    }
    at = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) {
        const char *why = fd < 0 ? "" : strerror(errno);
        cli_doctor_say(doctor, CLI_DOUBTFUL, "mapping", advice,
                       "files cannot be mapped as code here: %s%s", why,
                       fs->f_flag & ST_NOEXEC ? " (the mount is noexec)" : "");
        return;
    }
    munmap(at, 4096);
    cli_doctor_say(doctor, CLI_FINE, "mapping", NULL, "files can be mapped as code here");
}

void cli_doctor_disk(struct cli_doctor *doctor)
{
    struct statvfs fs;
    int scratch, file = -1;

    if (doctor->place < 0)
        return; /* the check of the directory said why */
    if (fstatvfs(doctor->place, &fs)) {
        cli_doctor_say(doctor, CLI_DOUBTFUL, "space", "look at the mount",
                       "what is free is not known: %s", strerror(errno));
        return;
    }
    look_at_space(doctor, &fs);
    look_at_inodes(doctor, &fs);
    look_at_file_system(doctor);
    scratch = scratch_file(doctor);
    if (scratch < 0)
        file = some_file(doctor->place, 1);
    look_at_locks(doctor, scratch, file);
    look_at_mapping(doctor, scratch >= 0 ? scratch : file, &fs);
    if (scratch >= 0)
        close(scratch);
    if (file >= 0)
        close(file);
}
