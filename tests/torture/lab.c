/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "torture/lab.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/allocations.h"
#include "torture/lab_seen.h"

static const char by_wasm[] = "a module that nobody touches";
static const char left_wasm[] = "a module whose removal was cut off";
static const char left_mark[] = "0123456789ABCDEF";

/* ---- the child ---- */

/* Files of the cache that are mapped. */
static int mappings_in(const char *dir)
{
    char line[1024];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return 0;
    while (fgets(line, sizeof(line), maps))
        found += strstr(line, dir) != NULL;
    fclose(maps);
    return found;
}

static void *no_body(void *argument)
{
    return argument;
}

/* What libc keeps for the next thread and of the last dlopen() that failed, and libcrypto for a
 * thread's errors, is no leak. */
static void warm_up(void)
{
    wasmcache_key key;
    pthread_t threads[2];
    int made = 0;
    (void)dlopen("/nowhere/at/all", RTLD_NOW);
    while (made < 2 && pthread_create(&threads[made], NULL, no_body, NULL) == 0)
        made++;
    while (made)
        pthread_join(threads[--made], NULL);
    for (unsigned nth = 1; nth < 5; nth++) {
        allocations_fail(nth, 0);
        (void)wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, "", 0);
        allocations_stop();
    }
}

int lab_child(void *argument)
{
    struct lab *lab = argument;
    struct lab_seen *seen = lab->seen;
    struct rig *r = &lab->r;
    const int opens = (lab->act->promises & LAB_OPENS) != 0;
    long live;
    int before;
    if (!opens)
        rig_open(r);
    before = (int)scratch_descriptors();
    warm_up();
    allocations_watch();
    live = allocations_live();
    if (lab->begin)
        lab->begin(lab);
    seen->ran = lab->act->run(r, seen);
    seen->done = 1;
    if (lab->finish)
        lab->finish(lab);
    seen->mappings = mappings_in(r->dir);
    if (opens) {
        rig_close(r);
        seen->allocations = (int)(allocations_live() - live);
    }
    seen->descriptors = (int)scratch_descriptors() - before;
    rig_close(r);
    seen->wrong = r->engine.wrong;
    seen->live_modules = r->engine.live_modules;
    seen->live_errors = r->engine.live_errors;
    seen->live_artifacts = r->engine.live_artifacts;
    seen->finished = 1;
    return 0;
}

/* ---- the start ---- */

static void begin_trace(struct lab *lab)
{
    (void)lab;
    trace_on();
}

static void finish_trace(struct lab *lab)
{
    (void)lab;
    trace_off();
}

void lab_tell_met(struct lab *lab, int met)
{
    lab->seen->met = met;
}

int lab_met(const struct lab *lab)
{
    return lab->seen->met;
}

void lab_init(struct lab *lab, struct tally *t, unsigned flags, size_t artifact)
{
    struct rig *r = &lab->r;
    memset(lab, 0, sizeof(*lab));
    lab->begin = begin_trace;
    lab->finish = finish_trace;
    lab->body = lab_child;
    lab->tally = t;
    lab->flags = flags;
    rig_init(r);
    r->engine.artifact_size = artifact;
    r->engine.table.artifact_version = fake_artifact_version;
    r->options.max_entries = 0;
    r->options.evict_after_seconds = 1; /* nothing here is that old: what a save evicts is none */
    lab->seen =
        mmap(NULL, sizeof(*lab->seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(lab->seen != MAP_FAILED);
    rig_open(r);
#define NAME(of) strrchr(rig_entry(r, of), '/') + 1
    lab->ns = scratch_text(&r->scratch, "%s/%s", r->dir, rig_namespace(r));
    lab->entry = scratch_text(&r->scratch, "%s/%s", lab->ns, NAME(LAB_WASM));
    lab->by = scratch_text(&r->scratch, "%s/%s", lab->ns, NAME(by_wasm));
    lab->left_entry = scratch_text(&r->scratch, "%s/%s", lab->ns, NAME(left_wasm));
    lab->left_name =
        scratch_text(&r->scratch, "%s/.old-%s-%s", lab->ns, NAME(left_wasm), left_mark);
#undef NAME
    lab->temp_name = scratch_text(&r->scratch, "%s/.tmp-%s", lab->ns, left_mark);
    lab->source = scratch_in(&r->scratch, "source.wasm");
    lab->attic = scratch_in(&r->scratch, "attic");
    scratch_write(lab->source, LAB_WASM, strlen(LAB_WASM), 0600);
    assert_int_equal(rig_get(r, LAB_WASM, NULL), 0);
    assert_int_equal(rig_get(r, by_wasm, NULL), 0);
    assert_int_equal(rig_get(r, left_wasm, NULL), 0);
    lab->good = scratch_read(lab->entry, &lab->good_size);
    lab->left = scratch_read(lab->left_entry, &lab->left_size);
    assert_int_equal(unlink(lab->left_entry), 0);
    lab->by_inode = scratch_inode(lab->by);
    rig_close(r);
}

void lab_end(struct lab *lab)
{
    free(lab->good);
    free(lab->left);
    munmap(lab->seen, sizeof(*lab->seen));
    lab->r.cache = NULL;
    rig_end(&lab->r);
}

static void put(struct lab *lab, const char *path, const uint8_t *bytes, size_t size)
{
    (void)lab;
    scratch_write(path, bytes, size, 0400);
}

void lab_prepare(struct lab *lab, const struct lab_act *act)
{
    struct stat st;
    uint8_t *bad;
    size_t size;
    lab->act = act;
    lab->r.options.flags = act->flags | lab->flags;
    memset(lab->seen, 0, sizeof(*lab->seen));
    if (lstat(lab->ns, &st) < 0) {
        if (mkdir(lab->r.dir, 0700) < 0)
            (void)chmod(lab->r.dir, 0700);
        assert_int_equal(mkdir(lab->ns, 0700), 0);
    }
    if (!scratch_exists(lab->by)) {
        size_t by_size;
        uint8_t *by;
        rig_open(&lab->r);
        assert_int_equal(rig_get(&lab->r, by_wasm, NULL), 0);
        rig_close(&lab->r);
        by = scratch_read(lab->by, &by_size);
        free(by);
        lab->by_inode = scratch_inode(lab->by);
    }
    lab->inode = 0;
    switch (act->start) {
    case LAB_ABSENT:
        unlink(lab->entry);
        break;
    case LAB_GOOD:
        put(lab, lab->entry, lab->good, lab->good_size);
        break;
    case LAB_DAMAGED:
        bad = malloc(lab->good_size);
        assert_non_null(bad);
        memcpy(bad, lab->good, lab->good_size);
        bad[lab->good_size / 4] ^= 4;
        put(lab, lab->entry, bad, lab->good_size);
        free(bad);
        break;
    case LAB_OLD:
        bad = fake_artifact(&size, &lab->r.engine, WASMCACHE_MODULE, LAB_WASM, strlen(LAB_WASM));
        put(lab, lab->entry, bad, size);
        free(bad);
        break;
    case LAB_NO_FOLDERS:
        scratch_remove(lab->r.dir);
        break;
    }
    if (act->start != LAB_NO_FOLDERS && scratch_exists(lab->entry))
        lab->inode = scratch_inode(lab->entry);
    if (act->promises & LAB_LEFT) {
        put(lab, lab->left_name, lab->left, lab->left_size);
        scratch_write(lab->temp_name, "half", 4, 0600);
        unlink(lab->left_entry);
    } else if (act->promises & LAB_MANY) {
        put(lab, lab->left_entry, lab->left, lab->left_size);
    }
}

void lab_resume(struct lab *lab, struct lab_act *act)
{
    act->promises &= LAB_GIVES | LAB_OPENS;
    act->start = LAB_ABSENT;
    lab->act = act;
    lab->r.options.flags = act->flags | lab->flags;
    memset(lab->seen, 0, sizeof(*lab->seen));
}

void lab_run(struct lab *lab, struct trace_end *end, unsigned seconds)
{
    int status = 0;
    pid_t child;
    memset(end, 0, sizeof(*end));
    end->exit_status = -1;
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(seconds); /* nobody catches it */
        _exit(lab->body(lab));
    }
    while (waitpid(child, &status, 0) < 0)
        ;
    end->late = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    if (WIFEXITED(status))
        end->exit_status = WEXITSTATUS(status);
    else
        end->signal = WTERMSIG(status);
}

/* ---- what must hold ---- */

int lab_acknowledged(const struct lab *lab)
{
    return lab->seen->acknowledged;
}

void lab_check_message(struct lab *lab, int error)
{
    const struct lab_seen *seen = lab->seen;
    if (!seen->save_failed || seen->ran == WASMCACHE_ENOMEM)
        return;
    tally_check(lab->tally, 'X',
                seen->save_errno == error && seen->call[0] &&
                    strstr(seen->message, strerror(error)),
                "the save does not say what failed: errno %d, call \"%s\", \"%s\"",
                seen->save_errno, seen->call, seen->message);
}

/* A name in the folder that is no entry and none of the files that belong there. */
static const char *left_over(const char *dir, char out[300])
{
    DIR *walk = opendir(dir);
    const struct dirent *entry;
    out[0] = '\0';
    while (walk && (entry = readdir(walk)) != NULL)
        if (strncmp(entry->d_name, ".tmp-", 5) == 0 || strncmp(entry->d_name, ".old-", 5) == 0 ||
            strncmp(entry->d_name, ".new-", 5) == 0)
            snprintf(out, 300, "%s", entry->d_name);
    if (walk)
        closedir(walk);
    return out;
}

/* Loads the module in a cache that is opened anew; what the library says. */
static int load_anew(struct lab *lab, const char *wasm)
{
    wasmcache_key key = rig_key(wasm);
    wasmcache_module *module = NULL;
    int rc;
    rig_open(&lab->r);
    rc = wasmcache_load(&module, lab->r.wc, WASMCACHE_MODULE, &key, NULL);
    if (rc == 0 &&
        !fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, strlen(wasm)))
        rc = 1;
    wasmcache_module_release(module);
    rig_close(&lab->r);
    return rc;
}

int lab_returned(const struct lab *lab)
{
    return lab->seen->ran;
}

int lab_loads(struct lab *lab)
{
    return load_anew(lab, LAB_WASM) == 0;
}

int lab_handed_wrong(const struct lab *lab)
{
    return lab->seen->wrong != 0;
}

static void check_child(struct lab *lab, const struct trace_end *end, int how)
{
    const struct lab_seen *seen = lab->seen;
    struct tally *t = lab->tally;
    const unsigned promises = lab->act->promises;
    tally_check(t, 'W', !seen->wrong && seen->gave != 2, "the engine was handed other bytes");
    if (how == LAB_KILLED)
        return;
    tally_check(t, 'D', end->exit_status == 0 && !end->late,
                end->late ? "it hangs" : "it ended with status %d, signal %d", end->exit_status,
                end->signal);
    if (!seen->finished)
        return;
    if (promises & LAB_GIVES)
        tally_check(t, 'D',
                    seen->gave == 1 || (lab->memory_may_lack && seen->ran == WASMCACHE_ENOMEM),
                    "no module: it returned %d", seen->ran);
    tally_check(t, 'L', seen->descriptors == 0, "%d descriptors more", seen->descriptors);
    tally_check(t, 'L', seen->mappings == 0, "%d mappings of its files", seen->mappings);
    tally_check(t, 'L', seen->allocations <= 0, "%d allocations", seen->allocations);
    tally_check(t, 'L', !seen->live_modules && !seen->live_errors && !seen->live_artifacts,
                "%d modules, %d errors, %d artifacts of the engine", seen->live_modules,
                seen->live_errors, seen->live_artifacts);
}

void lab_check(struct lab *lab, const struct trace_end *end, int how)
{
    const struct lab_seen *seen = lab->seen;
    struct tally *t = lab->tally;
    struct rig *r = &lab->r;
    const unsigned promises = lab->act->promises;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    uint64_t removed = 0;
    char name[300];
    int rc;

    t->runs++;
    check_child(lab, end, how);

    if (seen->acknowledged && (!lab->power || r->options.flags & WASMCACHE_DURABLE))
        tally_check(t, 'A', load_anew(lab, LAB_WASM) == 0, "what was saved is not there");
    if (promises & LAB_KEEPS)
        tally_check(t, 'K',
                    scratch_exists(lab->entry) && scratch_inode(lab->entry) == lab->inode &&
                        load_anew(lab, LAB_WASM) == 0,
                    "the good entry is gone");
    if (lab->act->start != LAB_NO_FOLDERS && !(promises & LAB_MANY))
        tally_check(t, 'K', scratch_exists(lab->by) && scratch_inode(lab->by) == lab->by_inode,
                    "another entry is gone");
    if (promises & LAB_STAYS)
        tally_check(t, 'K', load_anew(lab, LAB_WASM) == 0, "no good entry is there");

    r->options.flags = lab->act->flags | lab->flags;
    rig_open(r);
    rc = wasmcache_clean(r->cache, &removed);
    tally_check(t, 'T', rc == 0 && !left_over(lab->ns, name)[0] && !left_over(r->dir, name)[0],
                "the clean-up returned %d and left \"%s\"", rc, name);
    if (promises & LAB_LEFT)
        tally_check(t, 'K', rig_load(r, left_wasm, NULL) == 0,
                    "the entry whose removal was cut off is not back");
    if (promises & LAB_REMOVES && seen->done && !seen->removed_said)
        tally_check(t, 'K', rig_load(r, LAB_WASM, NULL) == 0,
                    "it says that it failed, and the entry is gone");
    rc = rig_get(r, LAB_WASM, NULL);
    tally_check(t, 'S', rc == 0, "with the fault gone a get fails: %d", rc);
    rig_close(r);
    rig_open(r);
    rc = rig_get(r, LAB_WASM, &report);
    tally_check(t, 'S', rc == 0 && report.outcome == WASMCACHE_HIT,
                "the key cannot be used after a get: %d, %s", rc,
                wasmcache_outcome_name(report.outcome));
    rig_close(r);
    tally_check(t, 'W', !r->engine.wrong, "the engine was handed other bytes afterwards");
    fake_engine_reset(&r->engine);
    r->engine.wrong = 0;
    if (promises & (LAB_LEFT | LAB_MANY))
        unlink(lab->left_entry);
}

void lab_module_name(char out[40], unsigned number)
{
    snprintf(out, 40, "module %u", number);
}

uint64_t lab_dice(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *seed >> 33;
}

void lab_rig_end(struct tally *t, struct rig *r)
{
    tally_check(t, 'W', !r->engine.wrong, "the engine was handed other bytes");
    tally_check(t, 'L',
                !r->engine.live_modules && !r->engine.live_artifacts && !r->engine.live_errors,
                "the engine's own leaked");
    r->engine.wrong = 0;
    rig_end(r);
}
