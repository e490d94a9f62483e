/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows 1 to 5, 12 and 13: each system call of each act fails, is cut short, or is the last one,
 * until a run meets no fault. The acts are those of lab.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "torture/lab.h"
#include "torture/rows.h"

enum harm { HARM_NONE, HARM_FAIL, HARM_SHORT, HARM_NOTHING, HARM_KILL_BEFORE, HARM_KILL_AFTER };

/* What goes wrong in a run, and whether it did. */
struct fault {
    enum harm harm;
    unsigned nth; /* of all calls, or of those that `only` says */
    int error;
    uint64_t bytes; /* SHORT: so many; with `part` that part of what was asked for */
    unsigned part;
    unsigned sticky;     /* so many more calls */
    const char *only[2]; /* names of calls; NULL: all */
    unsigned second;     /* another one that fails with the same error, 0 */
    int named;           /* files without a name cannot be had */
    unsigned seen;       /* calls that count */
    int met;
    int without; /* what the act returns if nothing goes wrong */
    char call[32];
};

enum { STICKY = 100000, EINTR_TIMES = 50 };

static int counts(const struct fault *f, const struct trace_call *call)
{
    uint64_t bytes;
    if (f->harm == HARM_SHORT)
        return trace_counts_bytes(call, &bytes) && bytes > 1;
    if (f->harm == HARM_NOTHING)
        /* "read" is the engine's, which takes that for the end of the file. */
        return strcmp(call->name, "write") == 0 || strcmp(call->name, "pwrite64") == 0 ||
               strcmp(call->name, "pread64") == 0;
    return !f->only[0] || strcmp(call->name, f->only[0]) == 0 ||
           (f->only[1] && strcmp(call->name, f->only[1]) == 0);
}

static void at_call(struct trace_call *call, void *payload)
{
    struct fault *f = payload;
    uint64_t bytes = 0;
    int now;
    if (call->at_exit) {
        if (f->harm == HARM_KILL_AFTER && f->seen == f->nth && counts(f, call)) {
            f->met = 1;
            trace_kill(call);
        }
        return;
    }
    if (f->named && strcmp(call->name, "openat") == 0 &&
        (call->arguments[2] & O_TMPFILE) == O_TMPFILE) {
        trace_fail(call, EOPNOTSUPP);
        return;
    }
    if (!counts(f, call))
        return;
    f->seen++;
    now = (f->seen >= f->nth && f->seen <= f->nth + f->sticky) || f->seen == f->second;
    if (!now)
        return;
    switch (f->harm) {
    case HARM_FAIL:
        trace_fail(call, f->error);
        break;
    case HARM_SHORT:
        (void)trace_counts_bytes(call, &bytes);
        (void)trace_shorten(call, f->part ? bytes - bytes / f->part : f->bytes);
        break;
    case HARM_NOTHING:
        trace_answer(call, 0);
        break;
    case HARM_KILL_BEFORE:
        trace_kill(call);
        break;
    case HARM_NONE:
    case HARM_KILL_AFTER:
        return;
    }
    if (!f->met)
        snprintf(f->call, sizeof(f->call), "%s", call->name);
    f->met = 1;
}

enum { SECONDS = 20 };

static void run_one(struct lab *lab, const struct lab_act *act, struct fault *f)
{
    struct trace_end end;
    const int killed = f->harm == HARM_KILL_BEFORE || f->harm == HARM_KILL_AFTER;
    lab_prepare(lab, act);
    f->seen = 0;
    f->met = 0;
    trace(&end, lab_child, lab, at_call, f, SECONDS);
    if (killed && f->met)
        tally_check(lab->tally, 'X', end.signal == SIGKILL, "the kill missed");
    tally_about(lab->tally, "%s%s, call %u (%s)", act->name, f->named ? ", named" : "", f->nth,
                f->met ? f->call : "none");
    if (f->met && f->harm == HARM_FAIL && !f->sticky && !f->second) {
        lab_check_message(lab, f->error);
        if (f->error == EINTR && trace_can_be_interrupted(f->call))
            tally_check(lab->tally, 'X', lab_returned(lab) == f->without,
                        "one EINTR made it return %d", lab_returned(lab));
    }
    lab_check(lab, &end, killed && f->met ? LAB_KILLED : LAB_PLAIN);
}

/* Every point, until a run meets no fault. */
static void sweep(struct lab *lab, const struct lab_act *act, const struct fault *how)
{
    struct fault f = *how;
    if (f.error == EINTR) {
        f.nth = STICKY;
        run_one(lab, act, &f);
        f.without = lab_returned(lab);
    }
    for (f.nth = 1;; f.nth++) {
        run_one(lab, act, &f);
        if (!f.met)
            break;
        if (!tally_check(lab->tally, 'D', f.nth < 5000, "it makes no end of calls"))
            break;
    }
}

static int can_trace(struct row_run *run)
{
    if (trace_missing())
        tally_skip(run->tally, "%s", trace_missing());
    return !trace_missing();
}

/* ---- rows 1 to 3 ---- */

static const int errors[] = {EIO, ENOSPC, EDQUOT, EROFS, EACCES, ENOMEM, EMFILE, EINTR};
enum { ERRORS = sizeof(errors) / sizeof(*errors) };

/* Also in the quick tier: locks that a security module denies, which once hung for a minute; and a
 * signal while an entry is written. */
static int is_always_run(const struct lab_act *act, int error, unsigned sticky, int named)
{
    if (error == EINTR)
        return !sticky && !named && strcmp(act->name, "save") == 0;
    return act->start == LAB_NO_FOLDERS && error == EACCES && sticky && !named;
}

static void errors_of(struct row_run *run, int row)
{
    struct lab lab;
    unsigned sweeps = 0;
    if (!can_trace(run))
        return;
    lab_init(&lab, run->tally, 0, 0);
    for (unsigned i = 0; i < lab_act_count; i++) {
        const struct lab_act *act = &lab_acts[i];
        if (act->row != row)
            continue;
        for (int named = 0; named <= (row == 1); named++)
            for (unsigned e = 0; e < ERRORS; e++)
                for (unsigned sticky = 0; sticky <= 1; sticky++) {
                    struct fault f = {.harm = HARM_FAIL, .error = errors[e], .named = named};
                    /* No system interrupts for ever. */
                    if (sticky)
                        f.sticky = errors[e] == EINTR ? EINTR_TIMES : STICKY;
                    /* The quick tier has one error for each act, another one for the next. */
                    if (run->tier == TIER_QUICK && !is_always_run(act, errors[e], sticky, named) &&
                        (sticky || named != (int)(i + run->seed) % 2 * (row == 1) ||
                         e != (i * 3 + run->seed) % ERRORS))
                        continue;
                    sweep(&lab, act, &f);
                    sweeps++;
                }
    }
    lab_end(&lab);
    tally_note(run->tally, "%u sweeps", sweeps);
}

void row_save(struct row_run *run)
{
    errors_of(run, 1);
}

void row_load(struct row_run *run)
{
    errors_of(run, 2);
}

void row_rest(struct row_run *run)
{
    errors_of(run, 3);
}

/* ---- row 5 ---- */

void row_short(struct row_run *run)
{
    /* one byte, half, all but some; and nothing at all */
    static const struct {
        uint64_t bytes;
        unsigned part;
        enum harm harm;
    } cuts[] = {{1, 0, HARM_SHORT}, {0, 2, HARM_SHORT}, {0, 7, HARM_SHORT}, {0, 0, HARM_NOTHING}};
    struct lab lab;
    if (!can_trace(run))
        return;
    lab_init(&lab, run->tally, 0, 300);
    for (unsigned i = 0; i < lab_act_count; i++)
        for (unsigned c = 0; c < 4; c++)
            for (unsigned sticky = 0; sticky <= 1; sticky++) {
                struct fault f = {.harm = cuts[c].harm,
                                  .bytes = cuts[c].bytes,
                                  .part = cuts[c].part,
                                  .sticky = sticky ? STICKY : 0};
                if (run->tier == TIER_QUICK && (c != i % 4 || sticky != i / 4 % 2))
                    continue;
                sweep(&lab, &lab_acts[i], &f);
            }
    lab_end(&lab);
}

/* ---- row 12 ---- */

/* A file whose contents may not be on the disk gets no name. */
void row_fsync(struct row_run *run)
{
    static const int failing[] = {EIO, ENOSPC, EDQUOT};
    struct lab lab;
    unsigned long published = 0, runs = 0;
    const unsigned rounds = run->tier == TIER_QUICK ? 1 : 6;
    if (!can_trace(run))
        return;
    lab_init(&lab, run->tally, WASMCACHE_DURABLE, 0);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < lab_act_count; i++)
            for (unsigned e = 0; e < 3; e++)
                for (int named = 0; named <= 1; named++) {
                    const struct lab_act *act = &lab_acts[i];
                    struct fault f = {.harm = HARM_FAIL,
                                      .nth = 1,
                                      .error = failing[e],
                                      .named = named,
                                      .only = {"fdatasync", NULL}};
                    struct trace_end end;
                    if (act->row != 1 || (act->start != LAB_ABSENT && act->start != LAB_DAMAGED))
                        continue;
                    lab_prepare(&lab, act);
                    trace(&end, lab_child, &lab, at_call, &f, SECONDS);
                    tally_about(run->tally, "%s%s", act->name, named ? ", named" : "");
                    tally_check(run->tally, 'X', f.met, "no fdatasync was made");
                    if (act->start == LAB_ABSENT) {
                        runs++;
                        published += (unsigned long)scratch_exists(lab.entry);
                        tally_check(run->tally, 'X', !scratch_exists(lab.entry),
                                    "published, and its fdatasync failed");
                    }
                    tally_check(run->tally, 'A', !lab_acknowledged(&lab),
                                "the save was acknowledged, and its fdatasync failed");
                    lab_check(&lab, &end, LAB_PLAIN);
                    /* The folder's own: said to have failed, though the entry is there. */
                    f.only[0] = "fsync";
                    f.seen = 0;
                    f.met = 0;
                    lab_prepare(&lab, act);
                    trace(&end, lab_child, &lab, at_call, &f, SECONDS);
                    tally_check(run->tally, 'X', f.met, "no fsync was made");
                    tally_check(run->tally, 'A', !f.met || !lab_acknowledged(&lab),
                                "the save was acknowledged, and the folder's fsync failed");
                    lab_check(&lab, &end, LAB_PLAIN);
                }
    lab_end(&lab);
    tally_note(run->tally, "%lu of %lu published after their fdatasync failed", published, runs);
}

/* ---- row 4: at each call ---- */

void row_killed(struct row_run *run)
{
    struct lab lab;
    unsigned long points = 0;
    if (!can_trace(run))
        return;
    lab_init(&lab, run->tally, 0, 0);
    for (unsigned i = 0; i < lab_act_count; i++)
        for (int named = 0; named <= (lab_acts[i].row == 1); named++)
            for (int after = 0; after <= 1; after++) {
                const struct fault f = {.harm = after ? HARM_KILL_AFTER : HARM_KILL_BEFORE,
                                        .named = named};
                if (run->tier == TIER_QUICK &&
                    (lab_acts[i].row == 2 || after != (int)(i % 2) || named != (int)(i / 2 % 2)))
                    continue;
                sweep(&lab, &lab_acts[i], &f);
            }
    points = run->tally->runs;
    lab_end(&lab);
    tally_note(run->tally, "killed at %lu points", points);
}

/* ---- row 13 ---- */

/* `first` goes wrong, and then, in what it left, each call of `then` fails. */
static void fails_after(struct lab *lab, const struct lab_act *act, struct fault *first,
                        const char *then, unsigned step)
{
    for (first->nth = 1;; first->nth += step) {
        for (unsigned second = 1;; second += step) {
            struct fault f = {.harm = HARM_FAIL, .nth = second, .error = EIO};
            struct trace_end end;
            struct lab_act again = *lab_act_of(then);
            lab_prepare(lab, act);
            first->seen = 0;
            first->met = 0;
            trace(&end, lab_child, lab, at_call, first, SECONDS);
            if (!first->met)
                return;
            lab_resume(lab, &again);
            trace(&end, lab_child, lab, at_call, &f, SECONDS);
            tally_about(lab->tally, "%s, call %u, then %s, call %u (%s)", act->name, first->nth,
                        then, second, f.call);
            lab_check(lab, &end, LAB_PLAIN);
            if (!f.met)
                break;
        }
    }
}

/* Two calls of the same run fail, each pair. */
static void both_fail(struct lab *lab, const struct lab_act *act, unsigned step)
{
    for (unsigned first = 1;; first += step) {
        struct fault f = {.harm = HARM_FAIL, .nth = first, .error = EIO};
        for (f.second = first + 1;; f.second += step) {
            run_one(lab, act, &f);
            if (f.seen < f.second)
                break;
        }
        if (!f.met)
            break;
    }
}

void row_compound(struct row_run *run)
{
    struct lab lab;
    const unsigned step = run->tier == TIER_QUICK ? 7 : 1;
    struct fault kill = {.harm = HARM_KILL_BEFORE};
    struct fault full = {.harm = HARM_FAIL, .error = ENOSPC, .sticky = STICKY};
    if (!can_trace(run))
        return;
    lab_init(&lab, run->tally, 0, 0);
    fails_after(&lab, lab_act_of("save"), &kill, "clean", step);
    kill.named = 1;
    fails_after(&lab, lab_act_of("save over a damaged entry"), &kill, "get that compiles", step);
    fails_after(&lab, lab_act_of("get that compiles"), &full, "get that compiles", step);
    both_fail(&lab, lab_act_of("get of a damaged entry"), step);
    lab_end(&lab);
}
