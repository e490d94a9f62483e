/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows 1, 2, 4, 5, 18 and 20 for other caches: something happens at the first, second, third ...
 * system call that works on the cache's directory, until a run meets nothing.
 */
#define _GNU_SOURCE
#include "others.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum harm { FAIL, SHORT, KILL_BEFORE, KILL_AFTER, KILL_HALF, REPLACE, PULL };

struct fault {
    struct bench *b;
    enum harm harm;
    unsigned nth;
    int error, sticky;
    unsigned part; /* SHORT: 0 one byte, else that part less */
    unsigned seen;
    int met;
    char call[32];
    char *other; /* REPLACE: what comes in place of the entry; PULL: where the directory goes */
};

static int is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strncmp(name, *names, strlen(*names)) == 0)
            return 1;
    return 0;
}

/* Errors that the call's manual page has and that a system can be made to give. */
static int can_fail(const char *name, int error)
{
    static const char *const opens[] = {"open", NULL};
    static const char *const paths[] = {"open",   "stat",    "lstat",    "newfstatat", "mkdir",
                                        "unlink", "rename",  "readlink", "access",     "faccessat",
                                        "linkat", "utimens", "statfs",   NULL};
    static const char *const grows[] = {"open",   "write",     "pwrite64",  "mkdir",
                                        "rename", "linkat",    "fallocate", "ftruncate",
                                        "fsync",  "fdatasync", NULL};
    static const char *const waits[] = {"open",  "read",      "write", "pread64",   "pwrite64",
                                        "fsync", "fdatasync", "flock", "fallocate", NULL};
    static const char *const never[] = {"mmap", "fcntl", "flock", "lseek", NULL};
    switch (error) {
    case EIO:
        return !is_one_of(name, never);
    case ENOSPC:
        return is_one_of(name, grows);
    case EACCES:
        return is_one_of(name, paths);
    case EMFILE:
        return is_one_of(name, opens);
    case ENOMEM:
        return is_one_of(name, opens) || strcmp(name, "mmap") == 0;
    default:
        return is_one_of(name, waits) && strncmp(name, "readlink", 8) != 0;
    }
}

/* Opens what is there already, which needs no room. */
static int only_opens(const struct trace_call *call)
{
    uint64_t flags = 0;
    if (strncmp(call->name, "open", 4) != 0)
        return 0;
    if (strcmp(call->name, "openat") == 0)
        flags = call->arguments[2];
    else if (strcmp(call->name, "open") == 0)
        flags = call->arguments[1];
    return !(flags & O_CREAT) && (flags & O_TMPFILE) != O_TMPFILE;
}

static const char *const writes[] = {"write", "pwrite64", "fallocate", NULL};

static int counts(const struct fault *f, const struct trace_call *call)
{
    uint64_t bytes;
    if (f->harm == FAIL &&
        (!can_fail(call->name, f->error) || (f->error == ENOSPC && only_opens(call))))
        return 0;
    if (f->harm == KILL_HALF && !is_one_of(call->name, writes))
        return 0;
    if ((f->harm == SHORT || f->harm == KILL_HALF) &&
        !(trace_counts_bytes(call, &bytes) && bytes > 1))
        return 0;
    return bench_touches(f->b, call);
}

static void strike(struct fault *f, struct trace_call *call)
{
    uint64_t bytes = 0;
    switch (f->harm) {
    case FAIL:
        trace_fail(call, f->error);
        break;
    case SHORT:
    case KILL_HALF:
        (void)trace_counts_bytes(call, &bytes);
        (void)trace_shorten(call, f->part ? bytes - bytes / f->part : 1);
        break;
    case KILL_BEFORE:
    case KILL_AFTER:
        trace_kill(call);
        break;
    case REPLACE:
        f->met = rename(f->other, f->b->entry[KEY]) == 0;
        return;
    case PULL:
        f->met = rename(f->b->dir, f->other) == 0;
        return;
    }
    f->met = 1;
}

static void at_call(struct trace_call *call, void *payload)
{
    struct fault *f = payload;
    if (call->at_exit) {
        if (f->harm == KILL_AFTER && f->seen == f->nth && !f->met && counts(f, call)) {
            snprintf(f->call, sizeof(f->call), "%s", call->name);
            strike(f, call);
        }
        return;
    }
    if (f->met && f->harm == REPLACE && is_one_of(call->name, writes) && bench_touches(f->b, call))
        trace_fail(call, ENOSPC);
    if (f->met && f->harm == KILL_HALF && bench_touches(f->b, call))
        trace_kill(call);
    if ((f->met && !f->sticky) || !counts(f, call))
        return;
    f->seen++;
    if (f->harm == KILL_AFTER || !(f->seen == f->nth || (f->sticky && f->seen > f->nth)))
        return;
    if (!f->met)
        snprintf(f->call, sizeof(f->call), "%s", call->name);
    strike(f, call);
}

/* One run from that start; 0: nothing was met. */
static int strike_at(struct bench *b, struct fault *f, int good, struct told *told)
{
    f->b = b;
    f->seen = 0;
    f->met = 0;
    f->call[0] = '\0';
    b->tally->runs++;
    bench_get(b, told, KEY, 0, at_call, f);
    b->met += (unsigned long)f->met;
    tally_about(b->tally, "%s, call %u (%s)%s%s%s", good ? "hit" : "save", f->nth,
                f->met ? f->call : "none", f->harm == FAIL ? ", " : "",
                f->harm == FAIL ? strerror(f->error) : "", f->sticky ? ", sticky" : "");
    return f->met;
}

static void sweep(struct bench *b, const struct fault *how, int good)
{
    const unsigned step = b->quick ? 4 : 1;
    const int kills = how->harm >= KILL_BEFORE && how->harm <= KILL_HALF;
    struct fault f = *how;
    for (f.nth = 1; f.nth < 2000; f.nth += step) {
        struct told told;
        bench_prepare(b, good ? b->with_key : b->with_by);
        if (!strike_at(b, &f, good, &told)) {
            b->tally->runs--;
            break;
        }
        bench_judge(b, &told, KEY, kills);
        bench_aftermath(b, &told, good);
    }
}

static void errors(struct bench *b, int good)
{
    static const struct {
        int error, sticky, quick;
    } all[] = {{EIO, 0, 1},    {EIO, 1, 0},    {ENOSPC, 0, 0}, {ENOSPC, 1, 1}, {EACCES, 0, 0},
               {EACCES, 1, 0}, {EMFILE, 0, 0}, {EMFILE, 1, 0}, {ENOMEM, 0, 0}, {EINTR, 0, 0}};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        const struct fault f = {.harm = FAIL, .error = all[i].error, .sticky = all[i].sticky};
        if (!b->quick || all[i].quick)
            sweep(b, &f, good);
    }
}

void others_save(struct bench *b)
{
    errors(b, 0);
}

void others_load(struct bench *b)
{
    errors(b, 1);
}

void others_killed(struct bench *b)
{
    for (int good = 0; good <= 1; good++)
        for (int harm = KILL_BEFORE; harm <= KILL_HALF; harm++) {
            const struct fault f = {.harm = (enum harm)harm, .part = 2};
            if (!b->quick || (!good && harm == KILL_BEFORE))
                sweep(b, &f, good);
        }
}

void others_short(struct bench *b)
{
    static const unsigned parts[] = {0, 2, 7};
    for (int good = 0; good <= 1; good++)
        for (size_t p = 0; p < 3; p++)
            for (int sticky = 0; sticky <= 1; sticky++) {
                const struct fault f = {.harm = SHORT, .part = parts[p], .sticky = sticky};
                /* One byte a call: thousands of calls for each subject, and nothing new. */
                if ((parts[p] == 0 && sticky) || (b->quick && (p != 1 || sticky)))
                    continue;
                sweep(b, &f, good);
            }
}

/* ---- row 18 ---- */

/* Between any two calls of a get that meets a bad entry, another one saves a good one. Then there
 * is no more room: what this get removes, it cannot put back. */
void others_removal(struct bench *b)
{
    struct fault f = {.harm = REPLACE, .other = scratch_in(&b->scratch, "good-entry")};
    size_t size;
    uint8_t *good = scratch_read(b->key_copy, &size);
    for (f.nth = 1; f.nth < 2000; f.nth++) {
        struct told told, next;
        bench_prepare(b, b->with_key);
        bench_write_entry(b, "", 0);
        scratch_write(f.other, good, size, scratch_mode(b->key_copy));
        if (!strike_at(b, &f, 1, &told)) {
            b->tally->runs--;
            break;
        }
        bench_judge(b, &told, KEY, 0);
        bench_check_by(b);
        bench_get(b, &next, KEY, 0, NULL, NULL);
        bench_judge(b, &next, KEY, 0);
        tally_check(b->tally, 'K', next.hit, "the good entry, saved meanwhile, is gone");
        bench_check_usable(b, KEY);
        bench_check_left(b);
    }
    scratch_remove(f.other);
    free(good);
}

/* ---- row 20 ---- */

static void pull(struct bench *b, int good)
{
    const unsigned step = b->quick ? 4 : 1;
    struct fault f = {.harm = PULL, .other = scratch_in(&b->scratch, "away")};
    for (f.nth = 1; f.nth < 2000; f.nth += step) {
        struct told told;
        bench_prepare(b, good ? b->with_key : b->with_by);
        scratch_remove(f.other);
        if (!strike_at(b, &f, good, &told)) {
            b->tally->runs--;
            break;
        }
        scratch_remove(b->dir);
        if (rename(f.other, b->dir) < 0)
            bench_must(b, 0, "rename %s: %s", f.other, strerror(errno));
        bench_judge(b, &told, KEY, 0);
        told.saved = 0; /* somewhere else */
        bench_aftermath(b, &told, good);
    }
}

enum place { GONE, A_FILE, DANGLING, READ_ONLY, NO_EXEC, PLACES };

/* The directory is something else, or mounted so. 0: that is not to be had here. */
static int make_place(struct bench *b, enum place place, int good)
{
    const char *copy = good ? b->with_key : b->with_by;
    const unsigned long flags = place == READ_ONLY ? MS_RDONLY : MS_NOEXEC;
    bench_prepare(b, place >= READ_ONLY ? copy : NULL);
    switch (place) {
    case A_FILE:
        scratch_write(b->dir, "x", 1, 0644);
        return 1;
    case DANGLING:
        return symlink("/nonexistent/for/sure", b->dir) == 0;
    case READ_ONLY:
    case NO_EXEC:
        return mount(b->dir, b->dir, NULL, MS_BIND, NULL) == 0 &&
               mount(NULL, b->dir, NULL, MS_BIND | MS_REMOUNT | flags, NULL) == 0;
    default:
        return 1;
    }
}

static void in_place(struct bench *b, enum place place, int good)
{
    static const char *const names[] = {"gone", "a file", "a dangling link", "read-only", "noexec"};
    struct told told = {0};
    tally_about(b->tally, "the directory is %s", names[place]);
    if (make_place(b, place, good)) {
        b->tally->runs++;
        b->met++;
        bench_get(b, &told, KEY, 0, NULL, NULL);
        bench_judge(b, &told, KEY, 0);
        if (good)
            tally_check(b->tally, 'X', told.hit, "the good entry is no hit");
    }
    (void)umount2(b->dir, MNT_DETACH);
    if (place < READ_ONLY) {
        bench_prepare(b, b->with_by);
        told.saved = 0; /* what it made there is gone */
    }
    bench_aftermath(b, &told, good);
}

void others_pulled(struct bench *b)
{
    pull(b, 0);
    pull(b, 1);
    for (int place = 0; place < PLACES; place++)
        in_place(b, (enum place)place, 0);
    in_place(b, READ_ONLY, 1);
    in_place(b, NO_EXEC, 1);
}
