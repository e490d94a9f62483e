/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a load and a save need of memory beside the engine's own calls.
 *
 * A limit on private writable memory (RLIMIT_DATA) is lowered, each time in a fresh process, to the
 * least with which the call still works: that is what it needs at its peak, to the granule, and no
 * matter of timing. Mapped files that are only read do not count, as they are not memory that is
 * taken from anybody.
 *
 * no-asan, no-tsan: their own memory is what would be measured
 */
#include "engine_host.h"

#include <sys/resource.h>

#define MIB ((size_t)1 << 20)
#define GRANULE ((size_t)64 << 10)

static struct fixture {
    struct scratch scratch;
    char *dir, *wasm; /* the cache with the module in it, its source */
    wasmcache_key key;
    char *entry; /* its path */
    size_t wasm_size;
} fixture;

/* The module is compiled by another process, so that this one and its forks begin with nothing. */
static int set_up(void **state)
{
    /* A module of our own, since the artifact of a small one is less than what a save may take: a
     * copy of it would not show. */
    const unsigned functions = 60000;
    char out[512], ns[192], hex[WASMCACHE_KEY_HEX_SIZE];
    struct fixture *f = &fixture;
    uint8_t *wasm = getenv("WASMCACHE_TEST_LARGE") ? real_module("php", &f->wasm_size) : NULL;
    (void)state;
    printf("%s\n", wasm ? "php.wasm" : "not php.wasm (make check-large): a made module");
    if (!wasm) {
        wasm = malloc(WASM_WORK_ROOM(functions));
        f->wasm_size = wasm_work(wasm, 3, functions);
    }
    scratch_init(&f->scratch);
    f->dir = scratch_in(&f->scratch, "cache");
    f->wasm = scratch_in(&f->scratch, "module.wasm");
    scratch_write(f->wasm, wasm, f->wasm_size, 0444);
    f->key = key_of(wasm, f->wasm_size);
    free(wasm);
    assert_int_equal(run_program(out, sizeof(out), "host_module", f->dir, f->wasm, "-", NULL), 0);
    assert_int_equal(sscanf(out, "hit none %191s ", ns), 1);
    f->entry = scratch_in(&f->scratch, "cache/%s/%s.bin", ns, wasmcache_key_to_hex(hex, &f->key));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_end(&fixture.scratch);
    return 0;
}

/* A number of kB in /proc/self/status, as bytes. */
static size_t status_of(const char *field)
{
    char line[256];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtoul(line + strlen(field) + 1, NULL, 10);
    fclose(file);
    return kib * 1024;
}

/* ---- trials ---- */

/* In memory that is shared with the child. */
struct trial {
    int (*call)(struct host *h);
    size_t more; /* bytes over what the process has when the call begins */
    char *target;
    size_t anonymous; /* answer: what the process has after it, over what it had before */
};

static engine_module *loaded;

static int load_by_engine(struct host *h)
{
    loaded = engine_load_file(h->engine, fixture.entry);
    return loaded != NULL;
}

static int load_by_us(struct host *h)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_source source = wasmcache_source_sha256(fixture.key.bytes, NULL, NULL);
    void *native = NULL, *error = NULL;
    const int rc =
        wasmcache_get_native(&native, &error, h->wc, WASMCACHE_MODULE, &source, NULL, &report);
    loaded = native;
    /* From the file where that can be, or it does not count. */
    return rc == 0 && host_loaded_best();
}

/* The whole way of a host that has a path: the source is hashed, too. */
static int get_by_us(struct host *h)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_source source = wasmcache_source_path(fixture.wasm);
    void *native = NULL, *error = NULL;
    const int rc =
        wasmcache_get_native(&native, &error, h->wc, WASMCACHE_MODULE, &source, NULL, &report);
    loaded = native;
    return rc == 0 && report.outcome == WASMCACHE_HIT && host_loaded_best();
}

static wasm_byte_vec_t serialized;

static int save_by_engine(struct host *h)
{
    (void)h;
    return engine_serialize(loaded, &serialized) == 0;
}

static int save_by_us(struct host *h)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    return wasmcache_save(h->wc, WASMCACHE_MODULE, &fixture.key, loaded, NULL, &report) == 0;
}

/* 0: it worked under the limit. */
static int run_trial(void *payload)
{
    struct trial *t = payload;
    const int saves = t->call == save_by_engine || t->call == save_by_us;
    struct rlimit limit = {0, 0};
    struct host h;
    size_t before;
    int ok;

    /* The engine makes noise when it has to give up. */
    if (t->more != SIZE_MAX && !freopen("/dev/null", "w", stderr))
        return 2;
    /* The cache is the same in all trials, so that all have the same before the call. */
    host_open(&h, saves ? t->target : fixture.dir, 0);
    if (saves && !load_by_engine(&h))
        return 2;
    before = status_of("RssAnon:");
    limit.rlim_max = RLIM_INFINITY;
    limit.rlim_cur = t->more == SIZE_MAX ? RLIM_INFINITY : status_of("VmData:") + t->more;
    if (setrlimit(RLIMIT_DATA, &limit) < 0)
        return 2;
    ok = t->call(&h);
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_DATA, &limit);
    if (t->more == SIZE_MAX)
        printf("    after it: %.1f MiB anonymous more, peak resident %.1f MiB in all\n",
               ((double)status_of("RssAnon:") - (double)before) / MIB,
               (double)status_of("VmHWM:") / MIB);
    return ok ? 0 : 1;
}

/* The least, to the granule, with which the call works. */
static size_t least(const char *what, int (*call)(struct host *h))
{
    struct trial t = {call, SIZE_MAX, scratch_in(&fixture.scratch, "target"), 0};
    size_t low = 0, high = (size_t)1 << 30; /* low does not do, high does */
    assert_int_equal(scratch_child(run_trial, &t, 0, 120), 0);
    while (high - low > GRANULE) {
        int status;
        t.more = low + (high - low) / 2 / GRANULE * GRANULE;
        scratch_remove(t.target);
        status = scratch_child(run_trial, &t, 0, 120);
        assert_int_not_equal(status, 2);
        if (status == 0)
            high = t.more;
        else
            low = t.more;
    }
    scratch_remove(t.target);
    printf("%s needs %.2f MiB\n", what, (double)high / MIB);
    return high;
}

/* ---- tests ---- */

static void load_needs_what_the_engine_needs_and_a_mebibyte(void **state)
{
    size_t bare, ours, whole;
    (void)state;
    bare = least("a load by the engine itself", load_by_engine);
    ours = least("a load by key", load_by_us);
    whole = least("a hit from a path", get_by_us);
    assert_true(ours <= bare + MIB);
    assert_true(whole <= bare + MIB);
}

static void save_needs_the_serialized_bytes_and_four_mebibytes(void **state)
{
    size_t bare, ours;
    (void)state;
    bare = least("to serialize by the engine itself", save_by_engine);
    ours = least("a save", save_by_us);
    assert_true(bare > 4 * MIB);
    assert_true(ours <= bare + 4 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_needs_what_the_engine_needs_and_a_mebibyte),
        cmocka_unit_test(save_needs_the_serialized_bytes_and_four_mebibytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
