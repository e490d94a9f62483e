/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 6 to 9: no memory, no room on the disk, limits of the process, a storm of signals. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/allocations.h"
#include "torture/lab.h"
#include "torture/rows.h"

enum { SECONDS = 30 };

/* ---- row 6 ---- */

struct no_memory {
    unsigned nth; /* allocation */
    int sticky;
    uint64_t room; /* of address space that is left; 0: any */
};

static uint64_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%lu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void begin_no_memory(struct lab *lab)
{
    const struct no_memory *how = lab->payload;
    if (how->room) {
        struct rlimit limit;
        const uint64_t now = address_space();
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = now + how->room;
        setrlimit(RLIMIT_AS, &limit);
    } else {
        allocations_fail(how->nth, how->sticky);
    }
}

static void finish_no_memory(struct lab *lab)
{
    const struct no_memory *how = lab->payload;
    struct rlimit limit;
    allocations_stop();
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
    lab_tell_met(lab, how->room ? 1 : allocations_met());
}

void row_memory(struct row_run *run)
{
    static const size_t sizes[] = {0, 3 << 20};
    if (allocations_missing()) {
        tally_skip(run->tally, "%s", allocations_missing());
        return;
    }
    for (size_t s = 0; s < 2; s++) {
        struct no_memory how;
        struct lab lab;
        lab_init(&lab, run->tally, 0, sizes[s]);
        lab.begin = begin_no_memory;
        lab.finish = finish_no_memory;
        lab.payload = &how;
        lab.memory_may_lack = 1;
        for (unsigned i = 0; i < lab_act_count; i++) {
            struct trace_end end;
            if (run->tier == TIER_QUICK && s)
                continue;
            for (int sticky = 0; sticky <= 1; sticky++) {
                how = (struct no_memory){.sticky = sticky};
                do {
                    how.nth++;
                    lab_prepare(&lab, &lab_acts[i]);
                    lab_run(&lab, &end, SECONDS);
                    tally_about(run->tally, "%s, allocation %u%s", lab_acts[i].name, how.nth,
                                sticky ? " and all after it" : "");
                    lab_check(&lab, &end, LAB_PLAIN);
                } while (lab_met(&lab) && how.nth < 1000);
            }
            /* The address space: from nothing more at all in steps of 64 KiB. */
            for (unsigned step = 0; step <= (s ? 128u : 8u) && run->tier != TIER_QUICK; step++) {
                how = (struct no_memory){.room = step ? step * 65536u : 4096};
                lab_prepare(&lab, &lab_acts[i]);
                lab_run(&lab, &end, SECONDS);
                tally_about(run->tally, "%s, %llu bytes of address space left", lab_acts[i].name,
                            (unsigned long long)how.room);
                lab_check(&lab, &end, LAB_PLAIN);
            }
        }
        lab_end(&lab);
    }
}

/* ---- row 7 ---- */

/* A get in a cache that lies on a tmpfs of that size; 0: no limit. */
static void on_small_disk(struct row_run *run, uint64_t bytes, unsigned inodes, size_t artifact)
{
    static const char first[] = "the module that is there first", second[] = "the next module";
    struct tally *t = run->tally;
    struct rig r;
    char options[100];
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t before = 0;
    uint64_t removed;
    const char *tree;
    int rc, there;
    unsigned compiles;

    rig_init(&r);
    r.engine.artifact_size = artifact;
    snprintf(options, sizeof(options), "mode=0700,size=%llu,nr_inodes=%u",
             (unsigned long long)(bytes ? bytes : 1u << 26), inodes);
    assert_int_equal(mkdir(r.dir, 0700), 0);
    if (mount("none", r.dir, "tmpfs", 0, options) < 0) {
        tally_skip(t, "a tmpfs cannot be mounted: %s", strerror(errno));
        rmdir(r.dir);
        rig_init(&r);
        return;
    }
    t->runs++;
    tally_about(t, "%s", options);
    rig_open(&r);
    rc = rig_get(&r, first, &report);
    tally_check(t, 'D', rc == 0, "the first get fails: %d", rc);
    there = report.save_error == 0;
    if (there)
        before = scratch_inode(rig_entry(&r, first));
    else
        tally_check(t, 'X', report.save_error == WASMCACHE_EFULL, "the save says %s",
                    wasmcache_error_name(report.save_error));
    rc = rig_get(&r, second, &report);
    tally_check(t, 'D', rc == 0, "the next get fails: %d", rc);
    if (report.save_error)
        tally_check(t, 'X', report.save_error == WASMCACHE_EFULL, "the next save says %s",
                    wasmcache_error_name(report.save_error));
    rig_reopen(&r);
    if (!report.save_error)
        tally_check(t, 'A', rig_load(&r, second, NULL) == 0, "what was saved is not there");
    if (there)
        tally_check(t, 'K',
                    scratch_exists(rig_entry(&r, first)) &&
                        scratch_inode(rig_entry(&r, first)) == before &&
                        rig_load(&r, first, NULL) == 0,
                    "the entry that was there first is gone");
    rc = wasmcache_clean(r.cache, &removed);
    tree = scratch_tree(&r.scratch, r.dir);
    tally_check(t, 'T', rc == 0 && !strstr(tree, ".tmp-") && !strstr(tree, ".old-"),
                "left over: %s", tree);
    /* Room again: each key can be used. */
    mount("none", r.dir, "tmpfs", MS_REMOUNT, "size=64m,nr_inodes=1000");
    tally_check(t, 'S', rig_get(&r, first, NULL) == 0 && rig_get(&r, second, NULL) == 0,
                "with room again a get fails");
    rig_reopen(&r);
    compiles = r.engine.compiles;
    tally_check(t, 'S',
                rig_get(&r, first, NULL) == 0 && rig_get(&r, second, NULL) == 0 &&
                    r.engine.compiles == compiles,
                "with room again a key is compiled twice");
    rig_close(&r);
    tally_check(t, 'W', !r.engine.wrong, "the engine was handed other bytes");
    tally_check(t, 'L', !r.engine.live_modules && !r.engine.live_artifacts && !r.engine.live_errors,
                "the engine's own leaked");
    umount2(r.dir, MNT_DETACH);
    r.engine.wrong = 0;
    rig_end(&r);
}

void row_full(struct row_run *run)
{
    const unsigned step = run->tier == TIER_QUICK ? 4 : 1;
    if (geteuid() != 0) {
        tally_skip(run->tally, "a tmpfs of its own needs root");
        return;
    }
    for (unsigned i = 1; i <= 64; i += step) {
        on_small_disk(run, i * 65536u, 1000, 1500000);
        on_small_disk(run, 0, i, 1500000);
    }
}

/* ---- row 8 ---- */

struct limited {
    int resource;
    uint64_t limit;
};

/* 1 + the highest descriptor that is open, and all below it taken. */
static uint64_t descriptors_used(void)
{
    int fd = dup(0);
    if (fd >= 0)
        close(fd);
    return (uint64_t)fd;
}

static void begin_limited(struct lab *lab)
{
    const struct limited *how = lab->payload;
    struct rlimit limit;
    getrlimit((__rlimit_resource_t)how->resource, &limit);
    limit.rlim_cur = how->limit + (how->resource == RLIMIT_NOFILE ? descriptors_used() : 0);
    setrlimit((__rlimit_resource_t)how->resource, &limit);
}

static void finish_limited(struct lab *lab)
{
    const struct limited *how = lab->payload;
    struct rlimit limit;
    getrlimit((__rlimit_resource_t)how->resource, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit((__rlimit_resource_t)how->resource, &limit);
}

static void *on_small_stack(void *argument)
{
    return (void *)(intptr_t)lab_child(argument);
}

/* The whole child on a thread of 64 KiB. */
static int small_stack_child(void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *result = (void *)(intptr_t)99;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    if (pthread_create(&thread, &attributes, on_small_stack, argument) == 0)
        pthread_join(thread, &result);
    return (int)(intptr_t)result;
}

static void limited_runs(struct row_run *run, struct lab *lab, const struct lab_act *act,
                         struct limited *how)
{
    static const uint64_t file_sizes[] = {0, 1, 100, 4096, 8192, 65536, 500000, 1500000};
    struct trace_end end;
    for (size_t i = 0; i < sizeof(file_sizes) / sizeof(*file_sizes); i++) {
        *how = (struct limited){RLIMIT_FSIZE, file_sizes[i]};
        lab_prepare(lab, act);
        lab_run(lab, &end, SECONDS);
        tally_about(run->tally, "%s, files of at most %llu bytes", act->name,
                    (unsigned long long)how->limit);
        lab_check(lab, &end, LAB_PLAIN);
    }
    for (uint64_t more = 0; more <= 8; more++) {
        *how = (struct limited){RLIMIT_NOFILE, more};
        lab_prepare(lab, act);
        lab_run(lab, &end, SECONDS);
        tally_about(run->tally, "%s, %llu descriptors more", act->name, (unsigned long long)more);
        lab_check(lab, &end, LAB_PLAIN);
    }
}

void row_process_limits(struct row_run *run)
{
    struct limited how;
    struct lab lab;
    lab_init(&lab, run->tally, 0, 1000000);
    lab.payload = &how;
    lab.begin = begin_limited;
    lab.finish = finish_limited;
    for (unsigned i = 0; i < lab_act_count; i++)
        limited_runs(run, &lab, &lab_acts[i], &how);
    lab.begin = lab.finish = NULL;
    for (unsigned i = 0; i < lab_act_count; i++) {
        struct trace_end end;
        lab.body = small_stack_child;
        lab_prepare(&lab, &lab_acts[i]);
        lab_run(&lab, &end, SECONDS);
        tally_about(run->tally, "%s, on a stack of 64 KiB", lab_acts[i].name);
        lab_check(&lab, &end, LAB_PLAIN);
    }
    lab_end(&lab);
}

/* ---- row 9 ---- */

static void look_on(struct trace_call *call, void *payload)
{
    (void)call;
    (void)payload;
}

static volatile sig_atomic_t signals;
static void on_storm(int signal)
{
    (void)signal;
    signals++;
}

/* What a kernel answers when a signal came, at random: on a local file system it hardly ever does.
 */
struct interruptions {
    uint64_t seed;
    unsigned long given;
};

static void interrupt(struct trace_call *call, void *payload)
{
    struct interruptions *i = payload;
    i->seed = i->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    if (call->at_exit || !trace_can_be_interrupted(call->name) || (i->seed >> 40) % 3)
        return;
    i->given++;
    trace_fail(call, EINTR);
}

static void interrupted_acts(struct row_run *run)
{
    struct lab lab;
    struct interruptions i = {run->seed, 0};
    const unsigned rounds = run->tier == TIER_QUICK ? 4 : 40;
    if (trace_missing())
        return;
    lab_init(&lab, run->tally, WASMCACHE_DURABLE, 0);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned a = 0; a < lab_act_count; a++) {
            struct trace_end end;
            int without;
            lab_prepare(&lab, &lab_acts[a]);
            trace(&end, lab_child, &lab, look_on, NULL, SECONDS);
            without = lab_returned(&lab);
            lab_prepare(&lab, &lab_acts[a]);
            trace(&end, lab_child, &lab, interrupt, &i, SECONDS);
            tally_about(run->tally, "%s, a third of all calls interrupted", lab_acts[a].name);
            tally_check(run->tally, 'X', lab_returned(&lab) == without, "it returned %d, not %d",
                        lab_returned(&lab), without);
            lab_check(&lab, &end, LAB_PLAIN);
        }
    tally_check(run->tally, 'X', i.given > 50, "only %lu calls were interrupted", i.given);
    lab_end(&lab);
}

void row_signals(struct row_run *run)
{
    struct tally *t = run->tally;
    const unsigned operations = run->tier == TIER_QUICK ? 1000 : 10000;
    const struct itimerval storm = {{0, 1000}, {0, 1000}}, calm = {{0, 0}, {0, 0}};
    struct sigaction action, old;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct rig r;
    unsigned descriptors;
    rig_init(&r);
    r.engine.artifact_size = 40000;
    r.options.flags = WASMCACHE_DURABLE;
    r.options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(&r);
    descriptors = scratch_descriptors();
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_storm; /* and not SA_RESTART */
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &storm, NULL);
    /* Until enough of them were hit: on a fast machine a thousand operations are over too soon. */
    for (unsigned i = 0; i < operations || (signals <= 100 && i < 100 * operations); i++) {
        char wasm[40];
        wasmcache_key key;
        int rc;
        snprintf(wasm, sizeof(wasm), "module %u", i % 500);
        tally_about(t, "operation %u", i);
        rc = rig_get(&r, wasm, &report);
        tally_check(t, 'D', rc == 0, "a get fails: %d, errno %d", rc,
                    wasmcache_last_error()->system_errno);
        tally_check(t, 'X', report.save_error == 0 || report.save_error == WASMCACHE_EOFF,
                    "a save fails: %s", wasmcache_error_name(report.save_error));
        if (report.outcome == WASMCACHE_COMPILED)
            tally_check(t, 'A', rig_load(&r, wasm, NULL) == 0, "what was saved is not there");
        if (i % 7 == 0) {
            key = rig_key(wasm);
            rc = wasmcache_remove(r.cache, rig_namespace(&r), &key);
            tally_check(t, 'X', rc == 0, "a removal fails: %d", rc);
        }
        if (i % 50 == 0)
            tally_check(t, 'T', wasmcache_clean(r.cache, NULL) == 0, "a clean-up fails");
        t->runs++;
    }
    setitimer(ITIMER_REAL, &calm, NULL);
    sigaction(SIGALRM, &old, NULL);
    tally_check(t, 'X', signals > 100, "only %d signals came", (int)signals);
    tally_check(t, 'L', scratch_descriptors() == descriptors, "descriptors leaked");
    tally_check(t, 'W', !r.engine.wrong, "the engine was handed other bytes");
    tally_note(t, "%d signals in %lu operations", (int)signals, t->runs);
    r.engine.wrong = 0;
    rig_end(&r);
    interrupted_acts(run);
}
