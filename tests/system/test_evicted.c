/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction and replacement against modules that are mapped and run: a process keeps a directory
 * empty, and eight others load modules from it, run them, run again what they loaded long ago, and
 * now and then put a new entry in an old one's place. Nobody dies, and nothing gives a wrong
 * result.
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { READERS = 8, MODULES = 16, FUNCTIONS = 60, KEPT = 8, LONG = 1800 };

/* Of all processes. */
struct board {
    atomic_ulong loads, compiles, replaced, reruns, looks, gone, evicted;
    atomic_int over;
};

struct crowd {
    struct scratch scratch;
    struct board *board;
    unsigned long wanted; /* loads */
    char *dir;
    uint8_t *wasm[MODULES];
    size_t size[MODULES];
    unsigned random;
};

static unsigned below(struct crowd *c, unsigned limit)
{
    c->random = c->random * 1103515245u + 12345u;
    return (c->random >> 16) % limit;
}

static void run(const struct host *h, engine_module *module, unsigned which)
{
    const int32_t seven[] = {7};
    assert_int_equal(call_export(h->engine, module, "work", seven, 1), 7 * (100 + (int)which));
}

/* Files that are mapped here and have no name any more. */
static unsigned mapped_and_gone(const char *dir)
{
    char line[1024];
    unsigned count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof(line), maps))
        count += strstr(line, dir) && strstr(line, " (deleted)");
    if (maps)
        fclose(maps);
    return count;
}

static engine_module *get(struct crowd *c, struct host *h, unsigned which)
{
    wasmcache_source source = wasmcache_source_bytes(c->wasm[which], c->size[which]);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    void *module = NULL, *error = NULL;
    int rc;
    if (below(c, 64) == 0)
        options.flags |= WASMCACHE_GET_RECOMPILE;
    rc = wasmcache_get_native(&module, &error, h->wc, WASMCACHE_MODULE, &source, &options, &report);
    if (rc)
        fail_msg("a get gave %d: %s", rc, wasmcache_last_error()->message);
    atomic_fetch_add(report.outcome == WASMCACHE_HIT           ? &c->board->loads
                     : options.flags & WASMCACHE_GET_RECOMPILE ? &c->board->replaced
                                                               : &c->board->compiles,
                     1);
    return module;
}

static int read_on(void *argument)
{
    struct crowd *c = argument;
    struct {
        engine_module *module;
        unsigned which;
    } kept[KEPT];
    struct host h;
    memset(kept, 0, sizeof(kept));
    host_open(&h, c->dir, 0);
    for (unsigned n = 1; !atomic_load(&c->board->over); n++) {
        const unsigned which = below(c, MODULES), at = below(c, KEPT);
        engine_module *module = get(c, &h, which);
        run(&h, module, which);
        if (kept[at].module) {
            run(&h, kept[at].module, kept[at].which);
            atomic_fetch_add(&c->board->reruns, 1);
        }
        if (n % 256 == 0) {
            atomic_fetch_add(&c->board->looks, 1);
            atomic_fetch_add(&c->board->gone, mapped_and_gone(c->dir));
        }
        if (below(c, 8) == 0) { /* it lives on, whatever happens to its file */
            engine_module *old = kept[at].module;
            kept[at].module = module;
            kept[at].which = which;
            module = old;
        }
        if (module)
            engine_module_delete(module);
        if (atomic_load(&c->board->loads) >= c->wanted &&
            atomic_load(&c->board->evicted) > 2 * MODULES)
            atomic_store(&c->board->over, 1);
    }
    for (unsigned i = 0; i < KEPT; i++)
        if (kept[i].module) {
            run(&h, kept[i].module, kept[i].which);
            engine_module_delete(kept[i].module);
        }
    host_close(&h);
    return 0;
}

static int evict_on(void *argument)
{
    struct crowd *c = argument;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result;
    wasmcache_options of_cache = WASMCACHE_OPTIONS_INIT;
    wasmcache *cache;
    of_cache.dir = c->dir;
    of_cache.evict_after_seconds = 1; /* the least */
    options.max_bytes = 1;
    assert_int_equal(wasmcache_open(&cache, &of_cache), 0);
    while (!atomic_load(&c->board->over)) {
        const struct timespec pause = {0, (long)below(c, 30) * 1000000};
        const wasmcache_prune_result none = WASMCACHE_PRUNE_RESULT_INIT;
        result = none;
        assert_int_equal(wasmcache_prune(cache, &options, &result), 0);
        assert_int_equal(result.failed, 0);
        atomic_fetch_add(&c->board->evicted, result.removed_entries);
        nanosleep(&pause, NULL);
    }
    wasmcache_close(cache);
    return 0;
}

static void living_modules_are_evicted_and_replaced(void **state)
{
    const char *wanted = getenv("WASMCACHE_TEST_LOADS");
    struct crowd c;
    pid_t readers[READERS], evictor;
    struct board *b;
    (void)state;
    memset(&c, 0, sizeof(c));
    scratch_init(&c.scratch);
    c.wanted = wanted ? strtoul(wanted, NULL, 10) : 2000;
    c.dir = scratch_in(&c.scratch, "cache");
    b = c.board = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(b != MAP_FAILED);
    for (unsigned i = 0; i < MODULES; i++) {
        c.wasm[i] = malloc(WASM_WORK_ROOM(FUNCTIONS));
        c.size[i] = wasm_work(c.wasm[i], 100 + (int32_t)i, FUNCTIONS);
    }
    for (unsigned i = 0; i < READERS; i++) {
        c.random = 4711 + i;
        readers[i] = scratch_start(read_on, &c, 0, LONG);
    }
    c.random = 1;
    evictor = scratch_start(evict_on, &c, 0, LONG);
    for (unsigned i = 0; i < READERS; i++) {
        const int status = scratch_wait(readers[i]);
        if (status) {
            atomic_store(&b->over, 1);
            fail_msg("a reader ended with %d (100 and more: by a signal)", status);
        }
    }
    atomic_store(&b->over, 1);
    assert_int_equal(scratch_wait(evictor), 0);
    printf("%lu loads, %lu compiles, %lu replaced, %lu evicted; %lu older modules run again; "
           "%lu mapped files without a name in %lu looks\n",
           b->loads, b->compiles, b->replaced, b->evicted, b->reruns, b->gone, b->looks);
    assert_true(b->evicted > 0 && b->replaced > 0 && b->reruns > 0);
    if (ENGINE_RUNS_FILES)
        assert_true(b->gone > 0);
    munmap(b, sizeof(*b));
    for (unsigned i = 0; i < MODULES; i++)
        free(c.wasm[i]);
    scratch_end(&c.scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(living_modules_are_evicted_and_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
