/* SPDX-License-Identifier: Apache-2.0 */
/* What anybody may do to the files of a cache, while it is used. */
#define _GNU_SOURCE
#include "workload_actor.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void entry_path(const struct actor *a, char *out, size_t size, const struct wanted *w)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    snprintf(out, size, "%s/%s/%s.bin", a->workload->dir, a->workload->namespaces[w->engine],
             wasmcache_key_to_hex(hex, &a->workload->keys[w->wasm][w->salt]));
}

static int flip(int fd, struct actor *a)
{
    struct stat st;
    unsigned char byte;
    off_t at;
    if (fstat(fd, &st) < 0 || st.st_size == 0)
        return 0;
    at = (off_t)(workload_random(&a->random) % (uint64_t)st.st_size);
    if (pread(fd, &byte, 1, at) != 1)
        return 0;
    byte ^= (unsigned char)(1u << actor_below(a, 8));
    return pwrite(fd, &byte, 1, at) == 1;
}

/* A changed copy takes the entry's name, as a new file. */
static void swap_in(struct actor *a, const struct wanted *w)
{
    char from[600], to[600], copy[600];
    struct wanted other = *w;
    struct stat st;
    size_t size = 0;
    char *bytes;
    int in, out, changed;

    entry_path(a, to, sizeof(to), w);
    if (actor_one_in(a, 3)) /* another's entry */
        actor_choose(a, &other);
    entry_path(a, from, sizeof(from), &other);
    snprintf(copy, sizeof(copy), "%s/%u-%u-%d", a->workload->attic, a->process->worker->slot,
             a->index, (int)getpid());
    in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    out = open(copy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in >= 0 && out >= 0 && fstat(in, &st) == 0 && S_ISREG(st.st_mode)) {
        size = (size_t)st.st_size;
        bytes = malloc(size + 1);
        if (!bytes)
            abort();
        if (pread(in, bytes, size, 0) != (ssize_t)size ||
            pwrite(out, bytes, size, 0) != (ssize_t)size)
            size = 0;
        free(bytes);
        switch (actor_below(a, 4)) {
        case 0:
            changed = ftruncate(out, (off_t)actor_below(a, (unsigned)size + 1)) == 0;
            break;
        case 1:
            changed = pwrite(out, "more", 4, (off_t)size) == 4;
            break;
        default:
            changed = other.wasm != w->wasm || flip(out, a);
        }
        (void)fchmod(out, 0400);
        if (changed && rename(copy, to) == 0)
            atomic_fetch_add(&a->board->spoilt, 1);
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    (void)unlink(copy);
}

static void change_in_place(struct actor *a, const struct wanted *w)
{
    char path[600];
    int fd;
    entry_path(a, path, sizeof(path), w);
    if (!actor_gate_close(a))
        return;
    (void)chmod(path, 0600);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        struct stat st;
        int changed = actor_one_in(a, 3) && fstat(fd, &st) == 0 && st.st_size > 0
                          ? ftruncate(fd, (off_t)actor_below(a, (unsigned)st.st_size)) == 0
                          : flip(fd, a);
        atomic_fetch_add(&a->board->in_place, (unsigned)changed);
        (void)fchmod(fd, 0400);
        close(fd);
    }
    actor_gate_leave(a);
}

static void link_in(struct actor *a, const struct wanted *w)
{
    char path[600], target[600];
    struct wanted other;
    actor_choose(a, &other);
    entry_path(a, path, sizeof(path), w);
    entry_path(a, target, sizeof(target), &other);
    (void)unlink(path);
    if (strcmp(path, target) != 0 && symlink(target, path) == 0)
        atomic_fetch_add(&a->board->spoilt, 1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    (void)remove(path); /* others put more there */
    return 0;
}

/* rm -rf of a namespace; with `at_once` it is moved away first. */
static void pull(struct actor *a, unsigned engine, int at_once)
{
    char path[600], moved[600];
    snprintf(path, sizeof(path), "%s/%s", a->workload->dir, a->workload->namespaces[engine]);
    snprintf(moved, sizeof(moved), "%s/pulled-%u-%u-%u-%d", a->workload->attic,
             a->process->worker->slot, a->index, a->nth, (int)getpid());
    atomic_fetch_add(&a->board->pulled, 1);
    if (at_once && rename(path, moved) < 0)
        return;
    (void)nftw(at_once ? moved : path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Noise in a file beside the entries. */
static void spoil_beside(struct actor *a, const char *name)
{
    char path[600], copy[600];
    int fd;
    snprintf(path, sizeof(path), "%s/%s", a->workload->dir, name);
    snprintf(copy, sizeof(copy), "%s/noise-%u-%u-%d", a->workload->attic, a->process->worker->slot,
             a->index, (int)getpid());
    fd = open(copy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    for (int i = 0; i < 600; i++) {
        const uint64_t noise = workload_random(&a->random);
        if (write(fd, &noise, sizeof(noise)) < 0)
            break;
    }
    close(fd);
    (void)rename(copy, path);
}

void actor_do_spoil(struct actor *a)
{
    struct wanted w;
    char path[600];
    actor_choose(a, &w);
    switch (actor_below(a, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        swap_in(a, &w);
        return;
    case 4:
    case 5:
        if (actor_one_in(a, 2)) /* all others stop for it */
            change_in_place(a, &w);
        return;
    case 6:
        entry_path(a, path, sizeof(path), &w);
        (void)unlink(path);
        return;
    case 7:
        link_in(a, &w);
        return;
    case 8:
        if (actor_one_in(a, 3) && !a->workload->counting)
            pull(a, w.engine, actor_one_in(a, 2));
        return;
    case 9:
        if (!a->workload->counting)
            spoil_beside(a, actor_one_in(a, 2) ? ".tally-1" : ".hints-1-le");
        return;
    default:
        swap_in(a, &w);
    }
}
