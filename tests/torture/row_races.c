/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 14 to 16, 18 and 32: what others do at the same time, and in the worst moment. */
#define _GNU_SOURCE
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"
#include "torture/times.h"

static const char wasm[] = "the module that all want";

static void *shared(size_t size)
{
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(bytes != MAP_FAILED);
    return bytes;
}

/* ---- row 14 ---- */

enum { KEYS = 4, SAVERS = 16, READERS = 4 };

struct crowd {
    atomic_ullong loads, wrong, failed, moved, saves;
    atomic_ullong inode[KEYS]; /* the first that was seen */
    atomic_int go, stop;
};

static void watch_inode(struct crowd *c, unsigned k, const char *path)
{
    struct stat st;
    unsigned long long first = 0;
    if (stat(path, &st) < 0)
        return;
    if (!atomic_compare_exchange_strong(&c->inode[k], &first, (unsigned long long)st.st_ino) &&
        first != (unsigned long long)st.st_ino)
        atomic_fetch_add(&c->moved, 1);
}

static int saver(struct rig *r, struct crowd *c, unsigned saves)
{
    rig_open(r);
    while (!atomic_load(&c->go))
        times_pause_us(50);
    for (unsigned i = 0; i < saves; i++) {
        char name[40];
        lab_module_name(name, i % KEYS);
        if (rig_save(r, name, NULL) != 0)
            atomic_fetch_add(&c->failed, 1);
        atomic_fetch_add(&c->saves, 1);
    }
    atomic_fetch_add(&c->wrong, r->engine.wrong);
    return 0;
}

static int reader(struct rig *r, struct crowd *c)
{
    char *paths[KEYS];
    int there[KEYS] = {0};
    rig_open(r);
    for (unsigned k = 0; k < KEYS; k++) {
        char name[40];
        lab_module_name(name, k);
        paths[k] = rig_entry(r, name);
    }
    while (!atomic_load(&c->stop)) {
        for (unsigned k = 0; k < KEYS; k++) {
            wasmcache_module *module = NULL;
            char name[40];
            wasmcache_key key;
            int rc;
            lab_module_name(name, k);
            key = rig_key(name);
            rc = wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &key, NULL);
            if (rc == 0) {
                there[k] = 1;
                atomic_fetch_add(&c->loads, 1);
                if (!fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, name,
                                    strlen(name)))
                    atomic_fetch_add(&c->wrong, 1);
                watch_inode(c, k, paths[k]);
            } else if (rc != WASMCACHE_EMISS || there[k]) {
                atomic_fetch_add(&c->failed, 1); /* nobody removes anything here */
            }
            wasmcache_module_release(module);
        }
    }
    atomic_fetch_add(&c->wrong, r->engine.wrong);
    return 0;
}

static void one_crowd(struct row_run *run, unsigned saves, int named)
{
    struct rig r;
    struct crowd *c = shared(sizeof(*c));
    pid_t savers[SAVERS], readers[READERS];
    int status;
    rig_init(&r);
    r.engine.artifact_size = 30000;
    r.options.verify = named ? WASMCACHE_VERIFY_ONCE : WASMCACHE_VERIFY_ALWAYS;
    fflush(NULL);
    for (unsigned i = 0; i < READERS; i++)
        if ((readers[i] = fork()) == 0)
            _exit(reader(&r, c));
    for (unsigned i = 0; i < SAVERS; i++)
        if ((savers[i] = fork()) == 0)
            _exit(saver(&r, c, saves));
    atomic_store(&c->go, 1);
    for (unsigned i = 0; i < SAVERS; i++) {
        waitpid(savers[i], &status, 0);
        tally_check(run->tally, 'D', WIFEXITED(status) && WEXITSTATUS(status) == 0, "a saver died");
    }
    atomic_store(&c->stop, 1);
    for (unsigned i = 0; i < READERS; i++) {
        waitpid(readers[i], &status, 0);
        tally_check(run->tally, 'D', WIFEXITED(status) && WEXITSTATUS(status) == 0,
                    "a reader died");
    }
    run->tally->runs += c->loads + c->saves;
    tally_add(run->tally, 'W', c->wrong, c->loads, "a partial or mixed read");
    tally_add(run->tally, 'A', c->failed, c->loads + c->saves, "a save or load failed");
    tally_add(run->tally, 'K', c->moved, c->loads, "a good entry was replaced");
    rig_open(&r);
    tally_check(run->tally, 'T',
                wasmcache_clean(r.cache, NULL) == 0 &&
                    !strstr(scratch_tree(&r.scratch, r.dir), ".tmp-"),
                "something is left over");
    munmap(c, sizeof(*c));
    rig_end(&r);
}

void row_writers(struct row_run *run)
{
    const unsigned saves = run->tier == TIER_QUICK ? 60 : 1000;
    one_crowd(run, saves, 0);
    one_crowd(run, saves, 1);
}

/* ---- rows 15 and 16 ---- */

enum { WAITERS = 64 };

struct flight {
    atomic_int go, leader, landed, failed, compiles;
    atomic_ullong again; /* when the next compile began */
    int how;
    int fork_at; /* phase; 0: none */
    atomic_int forked;
};

static struct flight *flight;

static void fork_a_child_that_sleeps(struct flight *f)
{
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);
        pause();
        _exit(0);
    }
    atomic_store(&f->forked, (int)child);
}

static void on_compile(void *payload)
{
    struct flight *f = payload;
    const int nth = atomic_fetch_add(&f->compiles, 1);
    if (nth == 0) {
        if (f->fork_at == WASMCACHE_PHASE_COMPILE)
            fork_a_child_that_sleeps(f);
        atomic_store(&f->leader, (int)getpid());
        times_pause_us(f->how == 0 ? 20000
                                   : 1000000); /* the others ask meanwhile; or it is ended */
    } else {
        unsigned long long none = 0;
        (void)atomic_compare_exchange_strong(&f->again, &none, times_now());
        times_pause_us(5000);
    }
}

static int waiter(struct rig *r, struct flight *f, unsigned wait_ms)
{
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_module *module = NULL;
    int rc;
    alarm(20);
    r->engine.on_compile = on_compile;
    r->engine.on_compile_argument = f;
    rig_open(r);
    while (!atomic_load(&f->go))
        times_pause_us(100);
    options.wait_ms = wait_ms;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, NULL);
    if (rc != 0 ||
        !fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, strlen(wasm)))
        atomic_fetch_add(&f->failed, 1);
    atomic_fetch_add(&f->landed, 1);
    return r->engine.wrong != 0;
}

enum { HEALTHY, KILLED, STOPPED, KILLED_WITH_CHILD };

static uint64_t one_flight(struct row_run *run, unsigned waiters, int how)
{
    struct tally *t = run->tally;
    struct flight *f = flight;
    struct rig r;
    pid_t children[WAITERS];
    int ended = 0, status, leader;
    uint64_t hit_at = 0, took = 0;
    const int most = how == HEALTHY ? 1 : 2;
    /* Who is frozen is waited for; others' limit is short, so that the row is. */
    const unsigned wait_ms = how == STOPPED || how == KILLED_WITH_CHILD ? 150 : 10000;
    memset(f, 0, sizeof(*f));
    f->how = how;
    f->fork_at = how == KILLED_WITH_CHILD ? WASMCACHE_PHASE_COMPILE : 0;
    rig_init(&r);
    fflush(NULL);
    for (unsigned i = 0; i < waiters; i++)
        if ((children[i] = fork()) == 0)
            _exit(waiter(&r, f, wait_ms));
    times_pause_us(3000);
    atomic_store(&f->go, 1);
    while ((leader = atomic_load(&f->leader)) == 0)
        times_pause_us(200);
    if (how != HEALTHY) {
        times_pause_us(15000);
        hit_at = times_now();
        kill(leader, how == STOPPED ? SIGSTOP : SIGKILL);
    }
    for (unsigned i = 0; i < waiters; i++) {
        if (how == STOPPED && children[i] == leader)
            continue;
        waitpid(children[i], &status, 0);
        if (children[i] == leader && how != HEALTHY)
            continue;
        ended += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    if (how == STOPPED) {
        kill(leader, SIGKILL);
        waitpid(leader, &status, 0);
    }
    if (f->forked)
        kill(f->forked, SIGKILL);
    if (hit_at && f->again > hit_at)
        took = f->again - hit_at;
    t->runs++;
    tally_check(t, 'D', ended == (int)waiters - (how != HEALTHY) && !f->failed,
                "%d of %u came back with their module", ended, waiters);
    tally_check(t, 'X', f->compiles <= most, "%d compiles instead of %d", f->compiles, most);
    r.engine.on_compile = NULL;
    rig_open(&r);
    tally_check(t, 'S', rig_load(&r, wasm, NULL) == 0, "the key cannot be used afterwards");
    rig_end(&r);
    return took;
}

void row_stampede(struct row_run *run)
{
    const unsigned rounds = run->tier == TIER_QUICK ? 3 : run->tier == TIER_FULL ? 150 : 1000;
    uint64_t *killed = calloc(rounds, sizeof(*killed)), *stopped = calloc(rounds, sizeof(*stopped));
    assert_true(killed && stopped);
    flight = shared(sizeof(*flight));
    for (unsigned i = 0; i < rounds; i++) {
        (void)one_flight(run, WAITERS, HEALTHY);
        killed[i] = one_flight(run, WAITERS, KILLED);
        stopped[i] = one_flight(run, WAITERS, STOPPED);
    }
    times_sort(killed, rounds);
    times_sort(stopped, rounds);
    tally_note(run->tally,
               "the next leader after a kill: median %.1f ms, longest %.1f; after a stop, with a "
               "limit of 150 ms: %.1f, %.1f",
               (double)killed[rounds / 2] / 1e6, (double)killed[rounds - 1] / 1e6,
               (double)stopped[rounds / 2] / 1e6, (double)stopped[rounds - 1] / 1e6);
    free(killed);
    free(stopped);
    munmap(flight, sizeof(*flight));
}

void row_forked(struct row_run *run)
{
    const unsigned rounds = run->tier == TIER_QUICK ? 4 : 200;
    flight = shared(sizeof(*flight));
    for (unsigned i = 0; i < rounds; i++)
        (void)one_flight(run, 8, KILLED_WITH_CHILD);
    munmap(flight, sizeof(*flight));
}

/* ---- rows 18 and 32: in the worst moment ---- */

struct moment {
    struct lab *lab;
    unsigned nth;
    int at_exit;
    int met;
    unsigned engine_opens; /* the call with which the engine opens what it was given; 0 */
    void (*act)(struct moment *);
    char call[32];
};

static void at_moment(struct trace_call *call, void *payload)
{
    struct moment *m = payload;
    char path[64];
    if (!m->engine_opens && !call->at_exit && strcmp(call->name, "openat") == 0 &&
        strstr(trace_path(call, path, sizeof(path)), "/fd/"))
        m->engine_opens = call->nth;
    if (m->met || call->nth != m->nth || call->at_exit != m->at_exit)
        return;
    m->met = 1;
    snprintf(m->call, sizeof(m->call), "%s", call->name);
    m->act(m);
}

/* Another process saves a good entry under the name. */
static void publish_good(struct moment *m)
{
    /* As publish does it: a complete file that takes the name, whatever has it. */
    scratch_write(m->lab->entry, m->lab->good, m->lab->good_size, 0400);
    m->lab->inode = scratch_inode(m->lab->entry);
}

void row_removal(struct row_run *run)
{
    static const char *const acts[] = {"load of a damaged entry", "get of a damaged entry",
                                       "remove what is damaged", "save over a damaged entry"};
    struct tally *t = run->tally;
    struct lab lab;
    unsigned long there = 0, of = 0;
    const unsigned rounds = run->tier == TIER_QUICK ? 1 : 8;
    if (trace_missing()) {
        tally_skip(t, "%s", trace_missing());
        return;
    }
    lab_init(&lab, t, 0, 0);
    for (unsigned round = 0; round < rounds; round++)
        for (size_t a = 0; a < sizeof(acts) / sizeof(*acts); a++)
            for (int at_exit = 0; at_exit <= 1; at_exit++)
                for (unsigned nth = 1;; nth++) {
                    struct moment m = {
                        .lab = &lab, .nth = nth, .at_exit = at_exit, .act = publish_good};
                    struct trace_end end;
                    lab_prepare(&lab, lab_act_of(acts[a]));
                    trace(&end, lab_child, &lab, at_moment, &m, 20);
                    if (!m.met)
                        break;
                    tally_about(t, "%s, a good one is saved %s call %u (%s)", acts[a],
                                at_exit ? "after" : "before", nth, m.call);
                    of++;
                    /* The very file; a get that had found the damaged one puts its own there. */
                    there += (unsigned long)tally_check(
                        t, 'K', scratch_exists(lab.entry) && lab_loads(&lab),
                        "the good entry is gone");
                    lab_check(&lab, &end, LAB_PLAIN);
                }
    lab_end(&lab);
    tally_note(t, "the good entry was there afterwards %lu of %lu times", there, of);
}

/* Somebody who may writes into the very file. */
static void rewrite(struct moment *m)
{
    static const char other[] = "OVERWRITTEN";
    int fd;
    assert_int_equal(chmod(m->lab->entry, 0600), 0);
    fd = open(m->lab->entry, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && pwrite(fd, other, sizeof(other), 60) == (ssize_t)sizeof(other));
    close(fd);
}

void row_changed_in_use(struct row_run *run)
{
    static const char *const acts[] = {"hit", "load", "open and hit"};
    struct tally *t = run->tally;
    struct lab lab;
    unsigned long seen = 0, of = 0;
    if (trace_missing()) {
        tally_skip(t, "%s", trace_missing());
        return;
    }
    lab_init(&lab, t, 0, 100000);
    for (size_t a = 0; a < sizeof(acts) / sizeof(*acts); a++)
        for (int at_exit = 0; at_exit <= 1; at_exit++)
            for (unsigned nth = 1;; nth++) {
                struct moment m = {.lab = &lab, .nth = nth, .at_exit = at_exit, .act = rewrite};
                struct trace_end end;
                int wrong;
                lab_prepare(&lab, lab_act_of(acts[a]));
                trace(&end, lab_child, &lab, at_moment, &m, 20);
                if (!m.met)
                    break;
                tally_about(t, "%s, rewritten %s call %u (%s)", acts[a],
                            at_exit ? "after" : "before", nth, m.call);
                t->runs++;
                of++;
                wrong = lab_handed_wrong(&lab);
                seen += (unsigned long)wrong;
                /* The engine's own calls begin with the open of the path that it was given; what is
                 * written before that is found. */
                tally_check(t, 'W',
                            !wrong || (m.engine_opens && nth + (unsigned)at_exit >= m.engine_opens),
                            "the engine was handed what was changed before the last look");
                tally_check(t, 'D', end.exit_status == 0 && !end.late,
                            "it ended with status %d, signal %d", end.exit_status, end.signal);
            }
    lab_end(&lab);
    tally_note(t,
               "%lu of %lu rewrites came after the last look, while the engine read the file: as "
               "docs/trust.md says of a directory's own writers",
               seen, of);
}
