/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 20, 21, 28, 36, 37 and 42: what happens to the directory, and what is in it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"
#include "torture/times.h"

static const char wasm[] = "a module that was there before";

static void end(struct tally *t, struct rig *r)
{
    tally_check(t, 'W', !r->engine.wrong, "the engine was handed other bytes");
    tally_check(t, 'L',
                !r->engine.live_modules && !r->engine.live_artifacts && !r->engine.live_errors,
                "the engine's own leaked");
    r->engine.wrong = 0;
    rig_end(r);
}

/* ---- row 20 ---- */

enum pull { REMOVED, MOVED, READ_ONLY, UNMOUNTED, FORBIDDEN, A_FILE, A_LINK_TO_NOTHING, PULLS };
static const char *const pull_names[] = {
    "removed", "moved away",          "mounted read-only",           "unmounted",
    "mode 0",  "a file in its place", "a dangling link in its place"};

struct place {
    struct rig *r;
    char *dir, *away;
};

static int pull(const struct place *p, enum pull how)
{
    switch (how) {
    case REMOVED:
        scratch_remove(p->dir);
        return 0;
    case MOVED:
    case A_FILE:
    case A_LINK_TO_NOTHING:
        if (rename(p->dir, p->away) < 0)
            return -1;
        if (how == A_FILE)
            scratch_write(p->dir, "no folder", 9, 0600);
        return how == A_LINK_TO_NOTHING ? symlink("/nowhere/at/all", p->dir) : 0;
    case READ_ONLY:
        return mount(p->dir, p->dir, NULL, MS_BIND, NULL) < 0
                   ? -1
                   : mount(NULL, p->dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
    case UNMOUNTED:
        return umount2(p->dir, MNT_DETACH);
    case FORBIDDEN:
        return chmod(p->dir, 0);
    case PULLS:
        break;
    }
    return -1;
}

static int put_back(const struct place *p, enum pull how)
{
    switch (how) {
    case REMOVED:
        return 0;
    case MOVED:
        scratch_remove(p->dir); /* what came there meanwhile */
        return rename(p->away, p->dir);
    case A_FILE:
    case A_LINK_TO_NOTHING:
        return unlink(p->dir) < 0 ? -1 : rename(p->away, p->dir);
    case READ_ONLY:
        return umount2(p->dir, 0);
    case UNMOUNTED:
        return mount(p->away, p->dir, NULL, MS_BIND, NULL);
    case FORBIDDEN:
        return chmod(p->dir, 0700);
    case PULLS:
        break;
    }
    return -1;
}

struct pulled {
    struct tally *t; /* in shared memory: the child may be another user */
    struct place place;
    enum pull how;
    unsigned rounds;
};

static int live_without(void *argument)
{
    struct pulled *p = argument;
    struct tally *t = p->t;
    struct rig *r = p->place.r;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    unsigned descriptors;
    int rc;
    rig_open(r);
    rc = rig_get(r, wasm, NULL);
    tally_check(t, 'D', rc == 0, "the first get fails: %d", rc);
    descriptors = scratch_descriptors();
    for (unsigned i = 0; i < p->rounds; i++) {
        const int stays = p->how != REMOVED;
        char other[40];
        tally_about(t, "%s, round %u", pull_names[p->how], i);
        t->runs++;
        if (pull(&p->place, p->how) < 0) {
            tally_check(t, 'X', 0, "it cannot be done: %s", strerror(errno));
            break;
        }
        snprintf(other, sizeof(other), "a new module, %u", i);
        rc = rig_get(r, wasm, &report);
        tally_check(t, 'D', rc == 0, "meanwhile a get fails: %d", rc);
        if (p->how == READ_ONLY)
            tally_check(t, 'X', report.outcome == WASMCACHE_HIT, "no hit from a read-only one");
        rc = rig_get(r, other, NULL);
        tally_check(t, 'D', rc == 0, "meanwhile a new get fails: %d", rc);
        if (put_back(&p->place, p->how) < 0) {
            tally_check(t, 'X', 0, "it cannot be put back: %s", strerror(errno));
            break;
        }
        /* One call may still be told what was; the next one may not. */
        rc = rig_get(r, other, NULL);
        tally_check(t, 'D', rc == 0, "after it is back a get fails: %d", rc);
        rc = rig_get(r, other, &report);
        tally_check(t, 'S', rc == 0 && report.outcome == WASMCACHE_HIT,
                    "after it is back a key cannot be used: %s",
                    wasmcache_outcome_name(report.outcome));
        rc = rig_get(r, wasm, &report);
        tally_check(t, 'K', rc == 0 && (report.outcome == WASMCACHE_HIT || !stays),
                    "the entry that was there is gone: %s", wasmcache_reason_name(report.reason));
    }
    tally_check(t, 'L', scratch_descriptors() == descriptors, "descriptors leaked");
    tally_check(t, 'T',
                wasmcache_clean(r->cache, NULL) == 0 &&
                    !strstr(scratch_tree(&r->scratch, p->place.dir), ".tmp-"),
                "something is left over");
    tally_check(t, 'W', !r->engine.wrong, "the engine was handed other bytes");
    rig_close(r);
    return 0;
}

void row_pulled(struct row_run *run)
{
    struct pulled *p = mmap(NULL, sizeof(*p) + sizeof(*p->t), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    if (geteuid() != 0) {
        tally_skip(run->tally, "mounts need root");
        return;
    }
    for (int how = 0; how < PULLS; how++) {
        struct rig r;
        int rc;
        rig_init(&r);
        p->t = (struct tally *)(p + 1);
        *p->t = *run->tally;
        p->place = (struct place){&r, r.dir, scratch_in(&r.scratch, "away")};
        p->how = (enum pull)how;
        p->rounds = run->tier == TIER_QUICK ? 3 : 100;
        if (how == UNMOUNTED) {
            assert_int_equal(mkdir(p->place.away, 0700) | mkdir(r.dir, 0700), 0);
            assert_int_equal(mount(p->place.away, r.dir, NULL, MS_BIND, NULL), 0);
        }
        assert_int_equal(chown(r.scratch.dir, how == FORBIDDEN ? SCRATCH_NOBODY : 0, 0), 0);
        rc = scratch_child(live_without, p, how == FORBIDDEN ? SCRATCH_NOBODY : 0, 60);
        *run->tally = *p->t;
        tally_about(run->tally, "%s", pull_names[how]);
        tally_check(run->tally, 'D', rc == 0, "the host ended with %d", rc);
        (void)umount2(r.dir, MNT_DETACH);
        rig_end(&r);
    }
    munmap(p, sizeof(*p) + sizeof(*p->t));
}

/* ---- row 21 ---- */

/* Runs this program with another clock, on the cache in `dir`. What it prints. */
static int with_clock(char *out, size_t size, const char *clock, const char *what, const char *dir)
{
    int ends[2], status = -1;
    size_t used = 0;
    ssize_t n;
    pid_t child;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        setenv("LD_PRELOAD", FAKETIME, 1);
        setenv("FAKETIME", clock, 1);
        setenv("NO_FAKE_STAT", "1", 1);
        setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1", 1);
        execl("/proc/self/exe", "torture", "--act", what, dir, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while (used + 1 < size && (n = read(ends[0], out + used, size - 1 - used)) > 0)
        used += (size_t)n;
    out[used] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

enum { CLOCK_ENTRIES = 10, CLOCK_KEPT = 8 };

static unsigned entries_in(struct rig *r)
{
    unsigned count = 0;
    for (const char *at = scratch_tree(&r->scratch, r->dir); (at = strstr(at, ".bin\n")); at++)
        count++;
    return count;
}

static void fill(struct rig *r)
{
    char name[40];
    for (unsigned i = 0; i < CLOCK_ENTRIES; i++) {
        snprintf(name, sizeof(name), "module %u", i);
        assert_int_equal(rig_get(r, name, NULL), 0);
    }
}

void row_clock(struct row_run *run)
{
    static const char *const clocks[] = {"+0d", "-1y", "+1y", "+400d", "+30y"};
    struct tally *t = run->tally;
    if (access(FAKETIME, R_OK) < 0) {
        tally_skip(t, "libfaketime is not installed");
        return;
    }
    for (size_t c = 0; c < sizeof(clocks) / sizeof(*clocks); c++)
        for (int future = 0; future <= 1; future++) {
            struct rig r;
            char out[200], *temp;
            int rc, fd;
            rig_init(&r);
            rig_open(&r);
            fill(&r);
            /* A writer that is at work. */
            temp = scratch_text(&r.scratch, "%s/.tmp-0123456789ABCDEF", rig_namespace_dir(&r));
            scratch_write(temp, "half", 4, 0600);
            fd = open(temp, O_RDWR | O_CLOEXEC);
            assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
            if (future) { /* files of the next year */
                const struct timespec times[2] = {{time(NULL) + 400 * 86400, 0},
                                                  {time(NULL) + 400 * 86400, 0}};
                char name[40];
                for (unsigned i = 0; i < CLOCK_ENTRIES; i += 2) {
                    snprintf(name, sizeof(name), "module %u", i);
                    assert_int_equal(utimensat(AT_FDCWD, rig_entry(&r, name), times, 0), 0);
                }
            }
            tally_about(t, "clock %s%s", clocks[c], future ? ", files of the future" : "");
            t->runs++;
            rc = with_clock(out, sizeof(out), clocks[c], "get", r.dir);
            tally_check(t, 'D', rc == 0 && strstr(out, "hit"), "a get: status %d, %s", rc, out);
            rc = with_clock(out, sizeof(out), clocks[c], "clean", r.dir);
            tally_check(t, 'T', rc == 0 && scratch_exists(temp),
                        "a living writer's file was removed");
            tally_check(t, 'K', entries_in(&r) == CLOCK_ENTRIES, "a clean-up took entries");
            rc = with_clock(out, sizeof(out), clocks[c], "prune", r.dir);
            tally_check(t, 'D', rc == 0, "a prune: status %d, %s", rc, out);
            tally_check(t, 'K', entries_in(&r) + 1 >= CLOCK_KEPT,
                        "%u entries instead of %d after a prune", entries_in(&r), CLOCK_KEPT);
            tally_check(t, 'K', scratch_exists(temp), "a living writer's file was pruned");
            close(fd);
            rig_reopen(&r);
            tally_check(t, 'S', rig_get(&r, wasm, NULL) == 0 && rig_load(&r, wasm, NULL) == 0,
                        "with the right clock a key cannot be used");
            end(t, &r);
        }
}

/* What the other clock is for: `torture --act WHAT DIR`. */
int row_places_act(const char *what, char *dir)
{
    struct rig r;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    int rc = 0;
    rig_init(&r);
    r.options.dir = dir;
    r.options.max_entries = CLOCK_KEPT;
    rig_open(&r);
    if (strcmp(what, "get") == 0)
        rc = rig_get(&r, "module 3", &report);
    else if (strcmp(what, "clean") == 0)
        rc = wasmcache_clean(r.cache, NULL);
    else if (strcmp(what, "prune") == 0)
        rc = wasmcache_prune(r.cache, NULL, NULL);
    else if (strcmp(what, "all") == 0) {
        char name[40];
        for (unsigned i = 0; i < CLOCK_ENTRIES && rc == 0; i++) {
            snprintf(name, sizeof(name), "module %u", i);
            rc = rig_get(&r, name, &report) || rig_load(&r, name, NULL);
        }
        rc = rc || wasmcache_flush(r.cache) || wasmcache_prune(r.cache, NULL, NULL);
    }
    printf("%s\n", wasmcache_outcome_name(report.outcome));
    rig_end(&r);
    return rc != 0;
}

/* ---- row 28 ---- */

struct opened {
    struct tally *t;
    const char *root;
    unsigned long opens;
};

/* The paths that a process of any directory may ask about the system it runs on. */
static int is_of_the_system(const char *path)
{
    static const char *const known[] = {"/proc/",     "/sys/", "/dev/null",
                                        "/etc/ld.so", "/lib",  "/usr/lib"};
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strncmp(path, known[i], strlen(known[i])) == 0)
            return !strstr(path, "..");
    return 0;
}

static void note_open(struct trace_call *call, void *payload)
{
    static const char *const with_path[] = {"openat",   "openat2",   "unlinkat", "mkdirat",
                                            "linkat",   "renameat2", "renameat", "mkdir",
                                            "fchmodat", "utimensat"};
    struct opened *o = payload;
    char path[600];
    int counts = 0, inside;
    if (call->at_exit)
        return;
    for (size_t i = 0; i < sizeof(with_path) / sizeof(*with_path); i++)
        counts |= strcmp(call->name, with_path[i]) == 0;
    if (!counts)
        return;
    trace_path(call, path, sizeof(path));
    if (!path[0] || is_of_the_system(path))
        return;
    o->opens++;
    if (path[0] == '/')
        inside = strncmp(path, o->root, strlen(o->root)) == 0 && !strstr(path, "/../") &&
                 (path[strlen(o->root)] == '/' || !path[strlen(o->root)]);
    else /* one component below a descriptor, or the table of hints beside a namespace */
        inside = strncmp(path, "../.hints-", 10) == 0
                     ? !strchr(path + 3, '/')
                     : !strchr(path, '/') && strcmp(path, "..") != 0;
    tally_check(o->t, 'X', inside, "%s of \"%s\"", call->name, path);
}

static uint64_t dice(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *seed >> 33;
}

/* A name that means harm. */
static void hostile_name(char out[400], uint64_t *seed)
{
    static const char *const pieces[] = {
        "..", "/", "../", "./",   ".", "a", "-v1",  "\n",          "\xff", "\xc3", "%2e%2e",
        "\\", "~", "A9",  "\x7f", " ", "*", "fake", "/etc/passwd", "v",    "-v2"};
    const unsigned count = (unsigned)dice(seed) % 12;
    size_t used = 0;
    out[0] = '\0';
    if (dice(seed) % 20 == 0) { /* a long one */
        memset(out, 'a', 399);
        out[250 + dice(seed) % 149] = '\0';
        return;
    }
    for (unsigned i = 0; i < count && used < 380; i++)
        used += (size_t)snprintf(out + used, 400 - used, "%s",
                                 pieces[dice(seed) % (sizeof(pieces) / sizeof(*pieces))]);
}

struct names {
    struct rig *r;
    unsigned count;
    uint64_t seed;
    uint64_t refused, taken;
};

static int use_names(void *argument)
{
    struct names *n = argument;
    struct rig *r = n->r;
    wasmcache_key key = rig_key(wasm);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    trace_on();
    for (unsigned i = 0; i < n->count; i++) {
        char name[400], path[2000];
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
        wasmcache_attach_options attach = r->attach;
        wasmcache_attachment *wc = NULL;
        wasmcache_iterator *it = NULL;
        wasmcache_key other;
        int rc = 0;
        hostile_name(name, &n->seed);
        switch (i % 8) {
        case 0:
            rc = wasmcache_entry_check(&entry, r->cache, name, &key, 0);
            break;
        case 1:
            rc = wasmcache_remove(r->cache, name, &key);
            break;
        case 2:
            rc = wasmcache_pin(r->cache, name, &key, 1);
            break;
        case 3:
            rc = wasmcache_iterate(&it, r->cache, name, 0);
            if (rc == 0)
                rc = wasmcache_iterator_next(it, &entry);
            wasmcache_iterator_close(it);
            break;
        case 4:
            rc = wasmcache_entry_path(path, sizeof(path), r->cache, name, &key);
            break;
        case 5:
            rc = wasmcache_key_from_hex(&other, name);
            if (rc == 0)
                rc = wasmcache_remove(r->cache, "fake-v1", &other);
            break;
        default: /* of the engine: its own id, or what is made into one */
            attach.engine_id = i % 8 == 6 ? name : NULL;
            attach.compiler = i % 8 == 7 ? name : "none";
            rc = wasmcache_attach(&wc, r->cache, &r->engine.table, &r->engine, &attach);
            if (rc == 0) {
                const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
                wasmcache_module *module = NULL;
                (void)wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL);
                wasmcache_module_release(module);
            }
            wasmcache_detach(wc);
        }
        if (rc == WASMCACHE_EMISUSE)
            n->refused++;
        else
            n->taken++;
    }
    trace_off();
    rig_close(r);
    return 0;
}

void row_names(struct row_run *run)
{
    struct tally *t = run->tally;
    struct names *n =
        mmap(NULL, sizeof(*n), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct opened opened = {t, NULL, 0};
    struct trace_end ended;
    struct rig r;
    if (trace_missing()) {
        tally_skip(t, "%s", trace_missing());
        return;
    }
    assert_true(n != MAP_FAILED);
    rig_init(&r);
    r.engine.knows_others = 1;
    n->r = &r;
    n->count = run->tier == TIER_QUICK ? 2000 : 10000;
    n->seed = run->seed;
    opened.root = r.dir;
    trace(&ended, use_names, n, note_open, &opened, 300);
    t->runs = n->count;
    tally_check(t, 'D', ended.exit_status == 0 && !ended.late, "it ended with status %d, signal %d",
                ended.exit_status, ended.signal);
    tally_note(t,
               "%lu opens and renames, none outside of the directory; %llu names refused, %llu "
               "taken",
               opened.opens, (unsigned long long)n->refused, (unsigned long long)n->taken);
    munmap(n, sizeof(*n));
    end(t, &r);
}

/* ---- row 36 ---- */

static uint64_t p99_of_hits(struct rig *r, unsigned count)
{
    uint64_t *times = calloc(count, sizeof(*times)), p99;
    assert_non_null(times);
    for (unsigned i = 0; i < count; i++) {
        const uint64_t start = times_now();
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        times[i] = times_now() - start;
    }
    times_sort(times, count);
    p99 = times[count * 99 / 100];
    free(times);
    return p99;
}

static int clean_alone(void *argument)
{
    struct rig *r = argument;
    struct rusage before, after;
    int rc;
    rig_open(r);
    getrusage(RUSAGE_SELF, &before);
    rc = wasmcache_clean(r->cache, NULL) || wasmcache_prune(r->cache, NULL, NULL);
    getrusage(RUSAGE_SELF, &after);
    rig_close(r);
    return rc ? 2 : after.ru_maxrss - before.ru_maxrss > 64 << 10;
}

void row_junk(struct row_run *run)
{
    struct tally *t = run->tally;
    const unsigned junk = run->tier == TIER_QUICK  ? 3000
                          : run->tier == TIER_FULL ? 100000
                                                   : 1000000;
    struct rig r;
    char path[4096];
    uint64_t before, after;
    uint64_t seed = run->seed;
    int fd, rc, at;
    rig_init(&r);
    rig_open(&r);
    assert_int_equal(rig_get(&r, wasm, NULL), 0);
    before = p99_of_hits(&r, 2000);
    for (unsigned i = 0; i < junk; i++) {
        static const char *const forms[] = {"%s/junk-%016llx", "%s/%016llX.bin", "%s/.tmp-%016llX",
                                            "%s/.old-%016llX"};
        char *ns = rig_namespace_dir(&r);
        snprintf(path, sizeof(path), forms[i % 4], ns,
                 (unsigned long long)(dice(&seed) << 32 | dice(&seed)));
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (fd >= 0)
            close(fd);
    }
    /* 200 folders in each other. */
    at = open(rig_namespace_dir(&r), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < 200 && at >= 0; i++) {
        int next = mkdirat(at, "deep", 0700) < 0
                       ? -1
                       : openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
    }
    close(at);
    /* An entry that says it has a tebibyte. */
    snprintf(path, sizeof(path), "%s", rig_entry(&r, "a module of a tebibyte"));
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0400);
    assert_true(fd >= 0);
    if (ftruncate(fd, (off_t)1 << 40) < 0)
        assert_int_equal(ftruncate(fd, (off_t)1 << 35), 0);
    close(fd);
    t->runs++;
    rc = rig_load(&r, "a module of a tebibyte", NULL);
    tally_check(t, 'D', rc == WASMCACHE_ECORRUPT, "the sparse entry: %d", rc);
    after = p99_of_hits(&r, 2000);
    t->runs += 4000;
    rc = scratch_child(clean_alone, &r, 0, 300);
    tally_check(t, 'X', rc == 0,
                rc == 1 ? "the clean-up took more than 64 MiB" : "the clean-up: %d", rc);
    tally_check(t, 'K', rig_load(&r, wasm, NULL) == 0, "the good entry is gone");
    tally_check(t, 'T', !strstr(scratch_tree(&r.scratch, r.dir), ".tmp-"),
                "temporary files are left over");
    tally_note(t, "%u files of junk: the 99th percentile of a hit %.1f us, before %.1f us", junk,
               (double)after / 1e3, (double)before / 1e3);
    end(t, &r);
}

/* ---- row 37 ---- */

static struct tally *leak_tally;

/* What a program that is started now has. */
static void start_a_program(void *argument)
{
    char out[100];
    int ends[2], status;
    ssize_t n;
    pid_t child;
    (void)argument;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        execl("/proc/self/exe", "torture", "--descriptors", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    n = read(ends[0], out, sizeof(out) - 1);
    out[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    leak_tally->runs++;
    tally_check(leak_tally, 'L', strcmp(out, "0\n") == 0, "descriptors inherited: %s", out);
}

/* Descriptors above 2 that this program was started with. */
int row_places_descriptors(void)
{
    int found = 0;
    for (int fd = 3; fd < 1024; fd++)
        found += fcntl(fd, F_GETFD) >= 0;
    printf("%d\n", found);
    return 0;
}

void row_leak(struct row_run *run)
{
    struct rig r;
    const unsigned rounds = run->tier == TIER_QUICK ? 5 : 200;
    leak_tally = run->tally;
    /* What this program itself was started with is none of the library's. */
    for (int fd = 3; fd < 1024; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    rig_init(&r);
    r.engine.on_compile = start_a_program; /* with the lock held */
    rig_open(&r);
    for (unsigned i = 0; i < rounds; i++) {
        char name[40];
        snprintf(name, sizeof(name), "module %u", i);
        tally_check(run->tally, 'D', rig_get(&r, name, NULL) == 0, "a get fails");
        start_a_program(NULL);
    }
    r.engine.on_compile = NULL;
    end(run->tally, &r);
}

/* ---- row 42 ---- */

enum hurt { CUT, HALVED, NOISE, OTHER_VERSION, GONE, ANOTHERS, A_FOLDER, HURTS };
static const char *const hurt_names[] = {"cut to nothing",       "cut in half", "noise",
                                         "of another version",   "removed",     "another user's",
                                         "a folder in its place"};

static char *hints_path(struct rig *r)
{
    DIR *walk = opendir(r->dir);
    const struct dirent *entry;
    char *path = NULL;
    while (walk && !path && (entry = readdir(walk)) != NULL)
        if (strncmp(entry->d_name, ".hints", 6) == 0)
            path = scratch_text(&r->scratch, "%s/%s", r->dir, entry->d_name);
    if (walk)
        closedir(walk);
    return path;
}

static void do_harm(const char *path, enum hurt how, uint64_t *seed)
{
    uint8_t noise[4096];
    struct stat st;
    int fd;
    if (lstat(path, &st) < 0)
        return;
    switch (how) {
    case CUT:
        (void)!truncate(path, 0);
        return;
    case HALVED:
        (void)!truncate(path, st.st_size / 2 + 13);
        return;
    case NOISE:
    case OTHER_VERSION:
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return;
        for (off_t offset = how == NOISE ? 0 : 8; offset < st.st_size; offset += 4096) {
            for (size_t i = 0; i < sizeof(noise); i++)
                noise[i] = (uint8_t)dice(seed);
            (void)!pwrite(fd, noise, how == NOISE ? sizeof(noise) : 4, offset);
            if (how == OTHER_VERSION)
                break;
        }
        close(fd);
        return;
    case GONE:
        (void)unlink(path);
        return;
    case ANOTHERS:
        (void)!chown(path, SCRATCH_NOBODY, SCRATCH_NOBODY);
        return;
    case A_FOLDER:
        (void)unlink(path);
        (void)mkdir(path, 0700);
        return;
    case HURTS:
        return;
    }
}

void row_hints(struct row_run *run)
{
    struct tally *t = run->tally;
    const unsigned rounds = run->tier == TIER_QUICK ? 5 : 100;
    uint64_t seed = run->seed;
    for (int how = 0; how < HURTS; how++) {
        struct rig r;
        char *path;
        unsigned descriptors;
        rig_init(&r);
        rig_open(&r);
        assert_int_equal(rig_get(&r, wasm, NULL), 0);
        assert_int_equal(rig_get(&r, wasm, NULL), 0);
        path = hints_path(&r);
        if (!tally_check(t, 'X', path != NULL, "there are no hints to damage")) {
            end(t, &r);
            continue;
        }
        descriptors = scratch_descriptors();
        for (unsigned i = 0; i < rounds; i++) {
            wasmcache_report report = WASMCACHE_REPORT_INIT;
            char name[40];
            tally_about(t, "hints %s, round %u", hurt_names[how], i);
            t->runs++;
            do_harm(path, (enum hurt)how, &seed);
            tally_check(t, 'D', rig_get(&r, wasm, &report) == 0, "a get fails");
            tally_check(t, 'K', report.outcome == WASMCACHE_HIT, "the entry is no hit any more");
            snprintf(name, sizeof(name), "module %u", i);
            tally_check(t, 'D', rig_get(&r, name, NULL) == 0, "a new get fails");
            do_harm(path, (enum hurt)how, &seed);
            rig_reopen(&r); /* a new process has nothing in memory */
            tally_check(t, 'S', rig_get(&r, name, &report) == 0 && report.outcome == WASMCACHE_HIT,
                        "a new process does not find it");
        }
        tally_check(t, 'L', scratch_descriptors() <= descriptors, "descriptors leaked");
        scratch_remove(path);
        end(t, &r);
    }
}
