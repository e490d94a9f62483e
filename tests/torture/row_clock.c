/* SPDX-License-Identifier: Apache-2.0 */
/* Row 21: clocks that are wrong. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"

static const char wasm[] = "a module that was there before";

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
            lab_rig_end(t, &r);
        }
}

/* What the other clock is for: `torture --act WHAT DIR`. */
int row_clock_act(const char *what, char *dir)
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
    printf("%s\n", wasmcache_outcome_name(report.outcome));
    rig_end(&r);
    return rc != 0;
}
