/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted where, from /proc. Elsewhere than on Linux nothing can be told: -ENOENT. */
#define _GNU_SOURCE
#include "os/private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mount {
    unsigned id, major, minor;
    char *root;  /* of the mount in its file system */
    char *point; /* where it is seen */
};

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
    char *to = text;
    for (; *text; text++) {
        if (text[0] == '\\' && text[1] && text[2] && text[3]) {
            *to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *to++ = *text;
        }
    }
    *to = '\0';
}

/* Takes a number and the character behind it off *text. */
static int take_number(char **text, char behind, unsigned *out)
{
    char *end;
    unsigned long number;
    errno = 0;
    number = strtoul(*text, &end, 10);
    if (end == *text || *end != behind || errno || number > UINT32_MAX)
        return 0;
    *text = end + 1;
    *out = (unsigned)number;
    return 1;
}

/* "36 35 98:0 /root /point rw,... " into *out, which points into the line. 0: it is no such line.
 */
static int parse(char *line, struct mount *out)
{
    unsigned parent;
    char *point, *end;
    if (!take_number(&line, ' ', &out->id) || !take_number(&line, ' ', &parent) ||
        !take_number(&line, ':', &out->major) || !take_number(&line, ' ', &out->minor))
        return 0;
    point = strchr(line, ' ');
    end = point ? strchr(point + 1, ' ') : NULL;
    if (!end)
        return 0;
    *point++ = '\0';
    *end = '\0';
    unescape(line);
    unescape(point);
    out->root = line;
    out->point = point;
    return 1;
}

/* Calls `visit` for each mount until it returns non-zero, which is returned. */
static int each(int (*visit)(const struct mount *mount, void *payload), void *payload)
{
    FILE *file = fopen("/proc/thread-self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    if (!file)
        return -errno;
    while (rc == 0 && getline(&line, &room, file) >= 0) {
        struct mount mount;
        if (parse(line, &mount))
            rc = visit(&mount, payload);
    }
    if (rc == 0 && !feof(file)) /* also where getline has no memory, which sets no error */
        rc = ferror(file) ? -EIO : -ENOMEM;
    free(line);
    fclose(file);
    return rc;
}

/* The path of the directory `fd` as this thread sees it; "" is the root. */
static int path_of(int fd, char *out, size_t size)
{
    char link[64];
    ssize_t n;
    snprintf(link, sizeof(link), "/proc/thread-self/fd/%d", fd);
    n = readlink(link, out, size - 1);
    if (n < 0)
        return -errno;
    out[n] = '\0';
    if (out[0] != '/') /* "(unreachable)..." */
        return -ENOENT;
    if (!out[1])
        out[0] = '\0';
    return 0;
}

struct visitor {
    int (*visit)(const char *path, void *payload);
    void *payload;
    char below[4096];
};

static int visit_point(const struct mount *mount, void *payload)
{
    const struct visitor *v = payload;
    const size_t length = strlen(v->below);
    if (strncmp(mount->point, v->below, length) != 0 ||
        (mount->point[length] && mount->point[length] != '/'))
        return 0;
    return v->visit(mount->point, v->payload);
}

int wc_os_each_mount_below(int fd, int (*visit)(const char *path, void *payload), void *payload)
{
    struct visitor v = {visit, payload, ""};
    int rc;
    ENTER("each_mount");
    if (LACKING(WC_OS_NO_PROC))
        return -ENOENT;
    rc = path_of(fd, v.below, sizeof(v.below));
    return rc < 0 ? rc : each(visit_point, &v);
}

/* The mount that a descriptor was opened through. */
static int mount_id(int fd)
{
    char path[64], line[128];
    FILE *file;
    int id = -ENOENT;
    snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", fd);
    file = fopen(path, "re");
    if (!file)
        return -errno;
    while (id < 0 && fgets(line, sizeof(line), file))
        if (strncmp(line, "mnt_id:", 7) == 0)
            id = (int)strtol(line + 7, NULL, 10);
    fclose(file);
    return id;
}

struct place {
    int id;
    const char *path; /* as this process sees it */
    uint64_t fs;
    char *out;
    size_t size;
};

static int visit_place(const struct mount *mount, void *payload)
{
    struct place *p = payload;
    const char *root = strcmp(mount->root, "/") == 0 ? "" : mount->root;
    size_t length = strlen(mount->point);
    if (mount->id != (unsigned)p->id)
        return 0;
    if (strcmp(mount->point, "/") == 0)
        length = 0;
    if (strncmp(mount->point, p->path, length) != 0 || (p->path[length] && p->path[length] != '/'))
        return -ENOENT; /* it moved meanwhile */
    p->fs = (uint64_t)mount->major << 32 | mount->minor;
    if (snprintf(p->out, p->size, "%s%s", root, p->path + length) >= (int)p->size)
        return -ENAMETOOLONG;
    return 1;
}

int wc_os_place_in_fs(int fd, uint64_t *fs, char *out, size_t size)
{
    char path[4096];
    struct place p = {mount_id(fd), path, 0, out, size};
    int rc;
    ENTER("place_in_fs");
    if (LACKING(WC_OS_NO_PROC))
        return -ENOENT;
    if (p.id < 0)
        return p.id;
    rc = path_of(fd, path, sizeof(path));
    if (rc < 0)
        return rc;
    rc = each(visit_place, &p);
    *fs = p.fs;
    return rc == 1 ? 0 : rc == 0 ? -ENOENT : rc;
}
