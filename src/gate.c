/* SPDX-License-Identifier: Apache-2.0 */
#include "gate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char tag_name[] = "CACHEDIR.TAG";
static const char tag_text[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                               "# This file marks a cache directory, which backups may leave out.\n"
                               "# It was made by wasmcache; see https://bford.info/cachedir/\n";

int wc_gate_trusts(const struct wc_gate *gate, const struct wc_os_stat *st)
{
    if (st->mode & 022)
        return 0;
    if (st->uid == 0 || st->uid == wc_os_euid())
        return 1;
    for (size_t i = 0; i < gate->trust_uid_count; i++)
        if (gate->trust_uids[i] == st->uid)
            return 1;
    return 0;
}

uint32_t wc_gate_dir_mode(const struct wc_gate *gate)
{
    return gate->share == WASMCACHE_SHARE_READABLE ? 0755
           : gate->share == WASMCACHE_SHARE_GROUP  ? 0750
                                                   : 0700;
}

uint32_t wc_gate_file_mode(const struct wc_gate *gate)
{
    return gate->share == WASMCACHE_SHARE_READABLE ? 0444
           : gate->share == WASMCACHE_SHARE_GROUP  ? 0440
                                                   : 0400;
}

int wc_gate_date(const struct wc_gate *gate, int fd)
{
    return gate->dated ? wc_os_set_time(fd, gate->time) : 0;
}

void wc_gate_date_folder(const struct wc_gate *gate, int fd)
{
    (void)wc_gate_date(gate, fd);
    if (gate->dated)
        (void)wc_os_set_time_of_parent(fd, gate->time);
}

/* For backup programs; only in what we made ourselves. That it cannot be written is nobody's
 * problem. */
static void write_tag(const struct wc_gate *gate, int dir)
{
    int fd;
    if (wc_os_file_size_limit() < sizeof(tag_text))
        return; /* not to be found out by SIGXFSZ */
    fd = wc_os_create(dir, tag_name);
    if (fd < 0)
        return;
    if (wc_os_write(fd, tag_text, sizeof(tag_text) - 1) < 0 ||
        wc_os_chmod(fd, wc_gate_file_mode(gate) | 0200) < 0 || wc_gate_date(gate, fd) < 0)
        (void)wc_os_unlink(dir, tag_name);
    (void)wc_os_close(fd);
}

/* mkdir -p: makes what is missing of `path`. 1: the last of it was made here. */
static int make_path(const char *path, uint32_t mode)
{
    char *copy = strdup(path);
    int rc = 0, first = 0; /* the first failure is the one that tells why */

    if (!copy)
        return -ENOMEM;
    for (char *end = strchr(copy + 1, '/');; end = strchr(end + 1, '/')) {
        if (end)
            *end = '\0';
        rc = wc_os_mkdir(copy, mode);
        if (rc < 0 && rc != -EEXIST && !first)
            first = rc;
        if (!end)
            break;
        *end = '/';
    }
    free(copy);
    return rc == 0 ? 1 : rc == -EEXIST ? 0 : first;
}

static int refuse(struct wc_error *err, const struct wc_os_stat *st, const char *path)
{
    if (st->mode & 022)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                       "The cache directory %s may be written by others (owner %" PRIu32
                       ", mode %04" PRIo32 "); chmod go-w it, or use another",
                       path, st->uid, st->mode);
    return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                   "The cache directory %s belongs to user %" PRIu32 " (mode %04" PRIo32
                   "); use one of your own, or name that user as trusted",
                   path, st->uid, st->mode);
}

int wc_gate_open_at(const struct wc_gate *gate, int at, const char *name, const char *path,
                    int create, int *out, struct wc_error *err)
{
    struct wc_os_stat st;
    int rc;
    int fd = wc_os_open_dir_at(at, name);

    if (fd == -ENOENT && create) {
        rc = wc_os_mkdir_at(at, name, wc_gate_dir_mode(gate));
        if (rc < 0 && rc != -EEXIST)
            return wc_fail(err, wc_error_of_errno(rc), rc, "mkdir", path, "Cannot make %s/%s", path,
                           name);
        fd = wc_os_open_dir_at(at, name);
    }
    if (fd == -ENOENT) /* to be made, it was removed at once */
        return wc_fail(err, create ? WASMCACHE_EIO : WASMCACHE_EMISS, ENOENT, "open", path,
                       "There is no %s/%s", path, name);
    if (fd == -ENOTDIR || fd == -ELOOP)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, fd, "open", path,
                       "%s/%s should be a directory; remove it", path, name);
    if (fd < 0)
        return wc_fail(err, wc_error_of_errno(fd), fd, "open", path, "Cannot open %s/%s", path,
                       name);
    rc = wc_os_fstat(fd, &st);
    if (rc < 0) {
        wc_os_close(fd);
        return wc_fail(err, wc_error_of_errno(rc), rc, "fstat", path, "Cannot look at %s/%s", path,
                       name);
    }
    if (!wc_gate_trusts(gate, &st)) {
        wc_os_close(fd);
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                       "%s/%s is not to be trusted (owner %" PRIu32 ", mode %04" PRIo32
                       "); remove it, or chmod go-w it if it is yours",
                       path, name, st.uid, st.mode);
    }
    *out = fd;
    return 0;
}

/* "u{uid}" in a directory that is not to be trusted itself: 0700 and ours, nobody else's. */
static int open_own_folder(const struct wc_gate *gate, int at, const char *path, int create,
                           int *out, struct wc_error *err)
{
    struct wc_gate alone = {WASMCACHE_SHARE_PRIVATE, NULL, 0, gate->dated, gate->time};
    struct wc_os_stat st;
    char name[16];
    int rc;

    snprintf(name, sizeof(name), "u%" PRIu32, wc_os_euid());
    rc = wc_gate_open_at(&alone, at, name, path, WC_GATE_LOOK, out, err);
    if (rc == WASMCACHE_EMISS && create) {
        rc = wc_gate_open_at(&alone, at, name, path, create, out, err);
        if (rc == 0)
            write_tag(&alone, *out);
    }
    if (rc == WASMCACHE_EIO && err->system_errno == EACCES && strcmp(err->call, "open") == 0)
        *out = -1; /* it is there, and not ours */
    else if (rc < 0)
        return rc;
    else if (wc_os_fstat(*out, &st) == 0 && st.uid == wc_os_euid() && !(st.mode & 077))
        return 0;
    wc_os_close(*out);
    return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                   "%s/%s is not a directory of mode 0700 that is ours; remove it", path, name);
}

/* The directory, through a link only if that is of somebody whom we trust: others could lead us to
 * write where they may not. Negative errno; -EPERM for such a link. */
static int open_path(const struct wc_gate *gate, const char *path)
{
    struct wc_os_stat st;
    int rc, fd = wc_os_open_dir_nofollow(path);
    if (fd != -ENOTDIR && fd != -ELOOP)
        return fd;
    rc = wc_os_lstat(path, &st);
    if (rc < 0)
        return rc;
    if (st.type != WC_OS_SYMLINK)
        return fd;
    st.mode = 0; /* a link's mode says nothing */
    if (!wc_gate_trusts(gate, &st))
        return -EPERM;
    fd = wc_os_open_dir(path);
    return fd == -ENOENT ? -ENOTDIR : fd; /* a link to nothing is not to be made true */
}

/* Could make_path make it? The nearest directory that is there decides. */
static int could_make(const char *path)
{
    char *copy = strdup(path);
    int fd = -ENOENT, can;
    for (char *slash = copy; slash && fd == -ENOENT;) {
        slash = strrchr(copy, '/');
        if (slash) {
            slash[slash == copy] = '\0';
            fd = wc_os_open_dir(copy);
            slash = slash == copy ? NULL : slash;
        }
    }
    can = fd >= 0 && wc_os_check_write(fd) == 0;
    wc_os_close(fd);
    free(copy);
    return can;
}

static int open_directory(const struct wc_gate *gate, const char *path, int create, int *out,
                          struct wc_gate_found *found, struct wc_error *err)
{
    struct wc_os_stat st;
    int made = 0, own = -1, rc;
    int fd = open_path(gate, path);

    if (fd == -ENOENT && create) {
        made = make_path(path, wc_gate_dir_mode(gate));
        if (made < 0)
            return wc_fail(err, wc_error_of_errno(made), made, "mkdir", path,
                           "Cannot make the cache directory %s", path);
        fd = open_path(gate, path);
    }
    if (fd == -ENOENT)
        return wc_fail(err, create ? WASMCACHE_EIO : WASMCACHE_EMISS, ENOENT, "open", path,
                       "There is no directory %s", path);
    if (fd == -EPERM)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                       "The cache directory %s is a link of another user; remove it, or name the "
                       "directory that it leads to",
                       path);
    if (fd < 0)
        return wc_fail(err, wc_error_of_errno(fd), fd, "open", path,
                       "Cannot open the cache directory %s", path);
    rc = wc_os_fstat(fd, &st);
    if (rc < 0) {
        wc_os_close(fd);
        return wc_fail(err, wc_error_of_errno(rc), rc, "fstat", path, "Cannot look at %s", path);
    }
    found->uid = st.uid;
    found->mode = st.mode;
    if (wc_gate_trusts(gate, &st)) {
        if (made)
            write_tag(gate, fd);
        *out = fd;
        return 0;
    }
    rc = open_own_folder(gate, fd, path, create, &own, err);
    if (rc == WASMCACHE_EMISS) {
        found->could_make = wc_os_check_write(fd) == 0;
        if (!found->could_make)
            rc = refuse(err, &st, path);
    } else if (rc == WASMCACHE_EIO && (err->system_errno == EACCES || err->system_errno == EPERM ||
                                       err->system_errno == EROFS)) {
        rc = refuse(err, &st, path); /* not open to us either: the directory is the reason */
    }
    wc_os_close(fd);
    if (rc < 0)
        return rc;
    found->uid = wc_os_euid();
    found->mode = 0700;
    found->own_folder = 1;
    *out = own;
    return 0;
}

int wc_gate_open(const struct wc_gate *gate, const char *path, int create, int *out,
                 struct wc_gate_found *found, struct wc_error *err)
{
    int rc;
    memset(found, 0, sizeof(*found));
    rc = open_directory(gate, path, create, out, found, err);
    err->off = rc < 0 && rc != WASMCACHE_EMISS;
    return rc;
}

int wc_gate_could_make(const char *path, const struct wc_gate_found *found)
{
    return found->could_make || (found->mode == 0 && could_make(path));
}
