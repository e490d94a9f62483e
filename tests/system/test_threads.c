/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads on one cache, one attachment, one engine. Meant to be run under TSan too: threads
 * share nothing here but what the library's contract lets them share.
 */
#include "engine_host.h"

#include <pthread.h>
#include <unistd.h>

#define THREADS 8
#define MODULES 16

/* What the threads of a test share. Failures are counted: cmocka's asserts are for one thread. */
static struct team {
    struct host h;
    pthread_barrier_t start;
    atomic_uint next, failures, hits, compiled;
    uint8_t wasm[MODULES][WASM_ANSWER_ROOM(100)];
    size_t size[MODULES];
    wasmcache_module *shared;
    char *dir, *source, *fresh;
} team;

static struct scratch scratch;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: in a thread: %s\n", __FILE__, __LINE__, #condition);           \
            atomic_fetch_add(&team.failures, 1);                                                   \
        }                                                                                          \
    } while (0)

static int set_up(void **state)
{
    (void)state;
    scratch_init(&scratch);
    memset(&team, 0, sizeof(team));
    team.dir = scratch_in(&scratch, "cache");
    team.source = scratch_in(&scratch, "source.wasm");
    team.fresh = scratch_in(&scratch, "fresh.wasm");
    host_open(&team.h, team.dir, 0);
    for (int i = 0; i < MODULES; i++)
        team.size[i] = wasm_answer(team.wasm[i], 100 + i, (size_t)i + 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    host_close(&team.h);
    scratch_end(&scratch);
    return 0;
}

static void run(void *(*body)(void *))
{
    pthread_t threads[THREADS];
    assert_int_equal(pthread_barrier_init(&team.start, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, body, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    pthread_barrier_destroy(&team.start);
    assert_int_equal(team.failures, 0);
}

/* Gets module i through the two touches and runs it. */
static void get_and_run(int i)
{
    engine_module *module =
        engine_get(team.h.wc, team.h.engine, team.wasm[i], team.size[i], NULL, 0);
    CHECK(module);
    if (module) {
        CHECK(call_export(team.h.engine, module, "answer", NULL, 0) == 100 + i);
        engine_module_delete(module);
    }
}

static void *same_module(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&team.start);
    for (int i = 0; i < 30; i++)
        get_and_run(0);
    return NULL;
}

static void all_get_the_same_module(void **state)
{
    const struct seen *seen = &team.h.seen;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    (void)state;
    run(same_module);
    /* One compile: the others wait for it and get clones, or find the entry. */
    assert_int_equal(wasmcache_stats_read(team.h.cache, WASMCACHE_STATS_PROCESS, &stats), 0);
    assert_int_equal(stats.compiles, 1);
    assert_int_equal(seen->count[WASMCACHE_EVENT_SAVED], 1);
    assert_int_equal(seen->count[WASMCACHE_EVENT_KEPT], 0);
    assert_int_equal(1 + stats.joined + seen->count[WASMCACHE_EVENT_HIT], THREADS * 30);
    assert_int_equal(seen->count[WASMCACHE_EVENT_SAVE_FAILED], 0);
    assert_int_equal(seen->count[WASMCACHE_EVENT_REMOVED], 0);
    assert_null(strstr(scratch_tree(&scratch, team.dir), "tmp"));
}

static void *many_modules(void *unused)
{
    const unsigned me = atomic_fetch_add(&team.next, 1);
    (void)unused;
    pthread_barrier_wait(&team.start);
    for (unsigned i = 0; i < 6 * MODULES; i++)
        get_and_run((int)((i * (2 * me + 1) + me) % MODULES));
    return NULL;
}

static void each_gets_many_modules(void **state)
{
    const char *tree;
    unsigned entries = 0;
    (void)state;
    run(many_modules);
    assert_int_equal(team.h.seen.count[WASMCACHE_EVENT_SAVED], MODULES);
    assert_int_equal(team.h.seen.count[WASMCACHE_EVENT_SAVE_FAILED], 0);
    tree = scratch_tree(&scratch, team.dir);
    for (const char *p = tree; (p = strstr(p, ".bin\n")) != NULL; p++)
        entries++;
    assert_int_equal(entries, MODULES);
}

/* Some get, some remove, some look: whatever the order, whoever gets has a module that works. */
static void *everything_at_once(void *unused)
{
    const unsigned me = atomic_fetch_add(&team.next, 1);
    (void)unused;
    pthread_barrier_wait(&team.start);
    for (unsigned i = 0; i < 40; i++) {
        const unsigned which = (i + me) % 3;
        const wasmcache_key key = key_of(team.wasm[which], team.size[which]);
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
        wasmcache_iterator *it;
        int rc;
        switch (me % 4) {
        case 0:
            rc = wasmcache_remove(team.h.cache, host_namespace(&team.h), &key);
            CHECK(rc == 0 || rc == WASMCACHE_EMISS);
            break;
        case 1:
            CHECK(wasmcache_iterate(&it, team.h.cache, NULL, WASMCACHE_CHECK_DIGEST) == 0);
            while ((rc = wasmcache_iterator_next(it, &entry)) == 0)
                CHECK(entry.state == WASMCACHE_REASON_NONE);
            CHECK(rc == WASMCACHE_EMISS);
            wasmcache_iterator_close(it);
            CHECK(wasmcache_clean(team.h.cache, NULL) == 0);
            break;
        default:
            get_and_run((int)which);
        }
    }
    return NULL;
}

static void gets_removals_and_walks_together(void **state)
{
    (void)state;
    run(everything_at_once);
    for (int i = 0; i < 3; i++)
        get_and_run(i);
    assert_int_equal(team.failures, 0);
    host_forget(&team.h.seen);
    for (int i = 0; i < 3; i++)
        get_and_run(i);
    assert_int_equal(team.h.seen.count[WASMCACHE_EVENT_HIT], 3);
    assert_int_equal(team.h.seen.count[WASMCACHE_EVENT_SAVED], 0);
}

static void *share_a_module(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&team.start);
    for (int i = 0; i < 200; i++) {
        wasmcache_module *mine = wasmcache_module_ref(team.shared);
        CHECK(mine == team.shared);
        if (i % 20 == 0)
            CHECK(call_export(team.h.engine, wasmcache_module_native(mine), "answer", NULL, 0) ==
                  103);
        wasmcache_module_release(mine);
    }
    wasmcache_module_release(team.shared); /* the reference that this thread was given */
    return NULL;
}

static void a_counted_module_is_shared_and_freed_once(void **state)
{
    wasmcache_source source = wasmcache_source_bytes(team.wasm[3], team.size[3]);
    (void)state;
    for (int round = 0; round < 2; round++) { /* compiled, then loaded */
        host_forget(&team.h.seen);
        assert_int_equal(
            wasmcache_get(&team.shared, team.h.wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
        for (int i = 1; i < THREADS; i++)
            wasmcache_module_ref(team.shared);
        host_forget(NULL);
        run(share_a_module);
        assert_int_equal(host_called(ENGINE_DELETE), 1);
    }
}

/* Hits of a file whose identity and check are remembered, while its name comes to mean another. */
static void put_source(int i)
{
    scratch_write(team.fresh, team.wasm[i], team.size[i], 0600);
    CHECK(rename(team.fresh, team.source) == 0);
}

static void *by_path(void *unused)
{
    const unsigned me = atomic_fetch_add(&team.next, 1);
    const wasmcache_source source = wasmcache_source_path(team.source);
    (void)unused;
    pthread_barrier_wait(&team.start);
    for (int i = 0; i < 100; i++) {
        wasmcache_module *module = NULL;
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        if (me == 0 && i % 10 == 5)
            put_source(i / 10 % 2);
        CHECK(wasmcache_get(&module, team.h.wc, WASMCACHE_MODULE, &source, NULL, &report) == 0);
        if (module && i % 10 == 0) {
            int32_t answer =
                call_export(team.h.engine, wasmcache_module_native(module), "answer", NULL, 0);
            CHECK(answer == 100 || answer == 101);
        }
        atomic_fetch_add(report.outcome == WASMCACHE_HIT ? &team.hits : &team.compiled, 1);
        wasmcache_module_release(module);
    }
    return NULL;
}

static void a_file_is_hit_by_its_path(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) { /* both are there */
        wasmcache_source source = wasmcache_source_bytes(team.wasm[i], team.size[i]);
        wasmcache_module *module;
        assert_int_equal(wasmcache_get(&module, team.h.wc, WASMCACHE_MODULE, &source, NULL, NULL),
                         0);
        wasmcache_module_release(module);
    }
    put_source(0);
    run(by_path);
    assert_int_equal(team.compiled, 0);
    assert_int_equal(team.hits, THREADS * 100);
}

/* Attachments, caches and engines come and go in the same directory. */
static void *come_and_go(void *unused)
{
    const unsigned me = atomic_fetch_add(&team.next, 1);
    (void)unused;
    pthread_barrier_wait(&team.start);
    for (unsigned i = 0; i < 10; i++) {
        wasmcache_options options = WASMCACHE_OPTIONS_INIT;
        const char *settings = "";
        wasm_engine_t *engine = (me + i) % 2 ? engine_new_other(&settings) : engine_new();
        wasmcache *cache = NULL;
        wasmcache_attachment *own, *common;
        engine_module *module;
        wasmcache_status_info status = WASMCACHE_STATUS_INIT;

        options.dir = team.dir;
        CHECK(wasmcache_open(&cache, &options) == 0);
        own = engine_attach(cache, engine, settings);
        common = engine_attach(team.h.cache, engine, settings);
        CHECK(own && common);
        module = engine_get(i % 2 ? own : common, engine, team.wasm[i], team.size[i], NULL, 0);
        CHECK(module);
        CHECK(wasmcache_status(cache, &status) == 0 && status.state == WASMCACHE_STATE_ON);
        wasmcache_detach(common);
        wasmcache_detach(own);
        wasmcache_close(cache);
        if (module) {
            CHECK(call_export(engine, module, "answer", NULL, 0) == 100 + (int32_t)i);
            engine_module_delete(module);
        }
        wasm_engine_delete(engine);
    }
    return NULL;
}

static void attachments_and_caches_come_and_go(void **state)
{
    const unsigned before = scratch_descriptors();
    (void)state;
    run(come_and_go);
    assert_int_equal(scratch_descriptors(), before);
}

/* A thread's last error is its own. */
static void *fail_in_my_own_way(void *unused)
{
    const unsigned me = atomic_fetch_add(&team.next, 1);
    char path[64];
    wasmcache_key key;
    (void)unused;
    snprintf(path, sizeof(path), "/nowhere/%u.wasm", me);
    pthread_barrier_wait(&team.start);
    CHECK(wasmcache_last_error()->error == 0);
    CHECK(wasmcache_last_error()->message[0] == '\0');
    for (int i = 0; i < 200; i++) {
        if (me % 2) {
            CHECK(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path) == WASMCACHE_EIO);
            CHECK(strstr(wasmcache_last_error()->message, path) != NULL);
        } else {
            CHECK(wasmcache_key_from_hex(&key, "nothing") == WASMCACHE_EMISUSE);
            CHECK(wasmcache_last_error()->error == WASMCACHE_EMISUSE);
        }
    }
    return NULL;
}

static void each_thread_has_its_own_last_error(void **state)
{
    (void)state;
    run(fail_in_my_own_way);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(all_get_the_same_module),
        TEST(each_gets_many_modules),
        TEST(gets_removals_and_walks_together),
        TEST(a_counted_module_is_shared_and_freed_once),
        TEST(a_file_is_hit_by_its_path),
        TEST(attachments_and_caches_come_and_go),
        TEST(each_thread_has_its_own_last_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
