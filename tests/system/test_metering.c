/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Wasmer engine with metering: it compiles one module, and ends the process at a second; and what
 * it compiled counts with the costs of then, whatever engine loads it. So nothing else may be
 * compiled on it, and the costs are in the settings.
 *
 * Each use is a process of its own, so that one that is ended is seen, and counted.
 *
 * only-wasmer
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include <sys/mman.h>
#include <unistd.h>

enum { LIMIT = 1000000 };

static struct scratch scratch;

/* What a child does and what it found; in memory that both see. */
static struct use {
    uint64_t cost;
    const char *settings;
    int bare;    /* without a cache */
    int counted; /* got with wasmcache_get() */
    unsigned modules;
    /* answers */
    uint64_t points; /* consumed by one call of each module */
    unsigned hits, saved, compiled, loads;
    char engine_namespace[192];
} * use;

static unsigned aborts, wrong_loads;

static uint64_t cost_now;

static uint64_t cost_of(wasmer_parser_operator_t operator)
{
    (void)operator;
    return cost_now;
}

static wasm_engine_t *metering_engine(uint64_t cost)
{
    wasm_config_t *config = wasm_config_new();
    wasmer_metering_t *metering = wasmer_metering_new(LIMIT, cost_of);
    cost_now = cost;
    wasm_config_push_middleware(config, wasmer_metering_as_middleware(metering));
    return wasm_engine_new_with_config(config);
}

/* What a call of the export "work" consumes. */
static uint64_t points_of(wasm_engine_t *engine, wasm_module_t *module)
{
    wasm_store_t *store = wasm_store_new(engine);
    wasm_extern_vec_t imports = WASM_EMPTY_VEC, exports;
    wasm_val_t argument = WASM_I32_VAL(5), result = WASM_INIT_VAL;
    wasm_val_vec_t in = {1, &argument}, out = {1, &result};
    wasm_trap_t *trap = NULL;
    wasm_instance_t *instance = wasm_instance_new(store, module, &imports, &trap);
    uint64_t before, after;
    if (!instance || trap)
        broken("instantiate", NULL);
    wasm_instance_exports(instance, &exports);
    before = wasmer_metering_get_remaining_points(instance);
    trap = wasm_func_call(wasm_extern_as_func(exports.data[0]), &in, &out);
    after = wasmer_metering_get_remaining_points(instance);
    if (trap || result.of.i32 != 15 || before != LIMIT)
        broken("work", "a trap, a wrong result, or points that are not those of the engine");
    wasm_extern_vec_delete(&exports);
    wasm_instance_delete(instance);
    wasm_store_delete(store);
    return before - after;
}

static wasm_module_t *get(struct host *h, const uint8_t *wasm, size_t size)
{
    wasmcache_source source = wasmcache_source_bytes(wasm, size);
    wasmcache_module *counted = NULL;
    wasm_module_t *module;
    if (!use->counted)
        return engine_get(use->bare ? NULL : h->wc, h->engine, wasm, size, NULL, 0);
    if (wasmcache_get(&counted, h->wc, WASMCACHE_MODULE, &source, NULL, NULL) != 0)
        return NULL;
    module = wasmcache_module_into_native(counted);
    return module;
}

static int run(void *unused)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    struct host h;
    (void)unused;
    /* What the engine says when it ends the process is long. */
    if (use->bare && use->modules > 1 && !freopen("/dev/null", "w", stderr))
        return 2;
    options.dir = scratch_in(&scratch, "cache");
    host_open_with(&h, &options, metering_engine(use->cost), use->settings);
    snprintf(use->engine_namespace, sizeof(use->engine_namespace), "%s", host_namespace(&h));
    host_forget(&h.seen);
    for (unsigned i = 0; i < use->modules; i++) {
        uint8_t wasm[WASM_WORK_ROOM(10)];
        const size_t size = wasm_work(wasm, 3, 5 + i);
        wasm_module_t *module = get(&h, wasm, size);
        if (!module)
            return 1;
        use->points = points_of(h.engine, module);
        wasm_module_delete(module);
    }
    use->hits = h.seen.count[WASMCACHE_EVENT_HIT];
    use->saved = h.seen.count[WASMCACHE_EVENT_SAVED];
    use->compiled = host_called(ENGINE_COMPILE);
    use->loads = host_loads();
    host_close(&h);
    return 0;
}

/* Runs one use; what it found is in *use. */
static int run_use(uint64_t cost, const char *settings, unsigned modules)
{
    int status;
    use->cost = cost;
    use->settings = settings;
    use->modules = modules;
    use->points = 0;
    use->hits = use->saved = use->compiled = use->loads = 0;
    status = scratch_child(run, NULL, 0, 60);
    aborts += status >= 100;
    return status;
}

static int set_up(void **state)
{
    (void)state;
    scratch_init(&scratch);
    use = mmap(NULL, sizeof(*use), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(use != MAP_FAILED);
    aborts = wrong_loads = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(use, sizeof(*use));
    scratch_end(&scratch);
    return 0;
}

/* That it is as this file's first sentence has it; if not, all below is too careful. */
static void the_engine_alone_ends_the_process_at_a_second_module(void **state)
{
    (void)state;
    use->bare = 1;
    assert_int_equal(run_use(1, "metering 1", 1), 0);
    assert_true(use->points > 0);
    assert_int_equal(run_use(1, "metering 1", 2), 100 + 6 /* SIGABRT */);
    printf("without a cache: %u of 2 processes were ended, the one with two modules\n", aborts);
    assert_int_equal(aborts, 1);
}

/* Compile and save, then hit in a new process, the points of both being the engine's own. */
static void hits_count_as_the_compiled_module_did(void **state)
{
    uint64_t own;
    (void)state;
    for (int counted = 0; counted < 2; counted++)
        for (uint64_t cost = 1; cost <= 3; cost++) {
            const char *settings =
                scratch_text(&scratch, "metering %u counted %d", (unsigned)cost, counted);
            use->counted = 0;
            use->bare = 1;
            assert_int_equal(run_use(cost, settings, 1), 0);
            own = use->points;
            assert_true(own > 0 && own % cost == 0);
            use->bare = 0;
            use->counted = counted;
            for (int round = 0; round < 3; round++) {
                assert_int_equal(run_use(cost, settings, 1), 0);
                assert_int_equal(use->points, own);
                assert_int_equal(use->saved, round == 0);
                assert_int_equal(use->hits, round > 0);
                assert_int_equal(use->compiled, round == 0);
                assert_int_equal(use->loads, round > 0);
            }
        }
    assert_int_equal(aborts, 0);
}

/* One process, all modules from the cache: as many as it likes, since none is compiled. */
static void many_modules_are_loaded_by_one_engine(void **state)
{
    (void)state;
    use->bare = 0;
    use->counted = 0;
    for (unsigned modules = 1; modules <= 5; modules++) {
        /* All but the last are there. */
        assert_int_equal(run_use(2, "metering 2", modules), 0);
        assert_int_equal(use->compiled, 1);
        assert_int_equal(use->hits, modules - 1);
    }
    assert_int_equal(run_use(2, "metering 2", 5), 0);
    assert_int_equal(use->compiled, 0);
    assert_int_equal(use->hits, 5);
    assert_int_equal(aborts, 0);
}

static void another_cost_is_another_entry(void **state)
{
    char first[192];
    uint64_t points[4] = {0};
    (void)state;
    use->bare = use->counted = 0;
    for (uint64_t cost = 1; cost <= 3; cost++) {
        assert_int_equal(run_use(cost, scratch_text(&scratch, "metering %u", (unsigned)cost), 1),
                         0);
        points[cost] = use->points;
        /* Nothing that another cost left was loaded: not from this folder, not from another. */
        wrong_loads += use->hits + use->loads;
        assert_int_equal(use->saved, 1);
        assert_int_equal(points[cost], cost * points[1]);
        if (cost == 1)
            snprintf(first, sizeof(first), "%s", use->engine_namespace);
        else
            assert_string_not_equal(use->engine_namespace, first);
    }
    /* An engine without metering has settings of its own. */
    assert_int_equal(wrong_loads, 0);
    assert_int_equal(aborts, 0);
    printf("0 processes ended, 0 loads of another cost; points %u, %u, %u\n", (unsigned)points[1],
           (unsigned)points[2], (unsigned)points[3]);
}

/* Copied into the folder of another cost, an entry is somebody else's. */
static void an_entry_of_another_cost_is_not_loaded_where_it_does_not_belong(void **state)
{
    uint8_t wasm[WASM_WORK_ROOM(10)];
    const size_t size = wasm_work(wasm, 3, 5);
    const wasmcache_key key = key_of(wasm, size);
    char hex[WASMCACHE_KEY_HEX_SIZE], *one, *two;
    uint64_t own;
    uint8_t *entry;
    size_t bytes;
    (void)state;
    use->bare = use->counted = 0;
    wasmcache_key_to_hex(hex, &key);
    assert_int_equal(run_use(1, "metering 1", 1), 0);
    one = scratch_in(&scratch, "cache/%s/%s.bin", use->engine_namespace, hex);
    assert_int_equal(run_use(2, "metering 2", 1), 0);
    two = scratch_in(&scratch, "cache/%s/%s.bin", use->engine_namespace, hex);
    own = use->points;
    entry = scratch_read(one, &bytes);
    scratch_write(two, entry, bytes, 0400);
    free(entry);
    assert_int_equal(run_use(2, "metering 2", 1), 0);
    assert_int_equal(use->loads, 0);
    assert_int_equal(use->compiled, 1);
    assert_int_equal(use->points, own);
    assert_int_equal(aborts, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_engine_alone_ends_the_process_at_a_second_module),
        TEST(hits_count_as_the_compiled_module_did),
        TEST(many_modules_are_loaded_by_one_engine),
        TEST(another_cost_is_another_entry),
        TEST(an_entry_of_another_cost_is_not_loaded_where_it_does_not_belong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
