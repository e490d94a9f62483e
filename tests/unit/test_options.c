/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs that start with their size: what a newer or older program may pass, and that the library
 * never reads or writes past what the caller has. All of them lie in memory of exactly their size.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache.h"
#include "support/fake_engine.h"
#include "support/scratch.h"

struct fixture {
    struct scratch s;
    char *dir;
    unsigned descriptors;
    struct fake_engine engine;
};

static unsigned seam_calls;

static int count_call(const char *call)
{
    (void)call;
    seam_calls++;
    return 0;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    scratch_init(&f->s);
    f->dir = scratch_in(&f->s, "cache");
    f->descriptors = scratch_descriptors();
    fake_engine_init(&f->engine, 1);
    seam_calls = 0;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    wc_os_hook = NULL;
    fake_engine_end(&f->engine);
    assert_int_equal(scratch_descriptors(), f->descriptors);
    scratch_end(&f->s);
    free(f);
    return 0;
}

static wasmcache *open_cache(struct fixture *f)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache *cache = NULL;
    options.dir = f->dir;
    assert_int_equal(wasmcache_open(&cache, &options), 0);
    assert_non_null(cache);
    return cache;
}

static wasmcache_attach_options attach_options(void)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.compiler = "fake";
    options.engine_version = "1";
    options.artifact_version = 1;
    return options;
}

static wasmcache_attachment *attach(struct fixture *f, wasmcache *cache)
{
    const wasmcache_attach_options options = attach_options();
    wasmcache_attachment *wc = NULL;
    assert_int_equal(wasmcache_attach(&wc, cache, &f->engine.table, &f->engine, &options), 0);
    return wc;
}

/* ---- structs that callers fill ---- */

/* `known` bytes of a struct, or fewer, then `fill`; the size field says `size`. */
static void *sized(const void *from, size_t known, size_t size, int fill)
{
    size_t room = size < sizeof(size) ? sizeof(size) : size > 5000 ? 5000 : size;
    char *out = malloc(room);
    assert_non_null(out);
    memset(out, fill, room);
    memcpy(out, from, room < known ? room : known);
    memcpy(out, &size, sizeof(size));
    return out;
}

/* Calls `use` with a struct of each size, and with each byte behind the known ones set. */
static void try_sizes(const void *good, size_t known,
                      int (*use)(const void *options, void *payload), void *payload)
{
    const size_t large[] = {4097, 5000, 1u << 20u, SIZE_MAX};
    for (size_t size = 0; size <= known + 24; size++) {
        void *options = sized(good, known, size, 0);
        assert_int_equal(use(options, payload), size < known ? WASMCACHE_EMISUSE : 0);
        free(options);
        if (size <= known)
            continue;
        options = sized(good, known, size, 0);
        ((char *)options)[size - 1] = 1; /* a field that only a newer library knows */
        assert_int_equal(use(options, payload), WASMCACHE_EMISUSE);
        free(options);
    }
    for (size_t size = known + 24; size <= 4096; size += 509) {
        void *options = sized(good, known, size, 0);
        assert_int_equal(use(options, payload), 0);
        ((char *)options)[known] = 1;
        assert_int_equal(use(options, payload), WASMCACHE_EMISUSE);
        assert_non_null(strstr(wasmcache_last_error()->message, WASMCACHE_VERSION));
        free(options);
    }
    for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++) { /* not a size at all */
        void *options = sized(good, known, large[i], 0);
        assert_int_equal(use(options, payload), WASMCACHE_EMISUSE);
        free(options);
    }
}

static int use_open(const void *options, void *payload)
{
    wasmcache *cache = (wasmcache *)payload; /* not NULL: must be set in any case */
    int rc = wasmcache_open(&cache, options);
    if (rc < 0)
        assert_null(cache);
    else
        assert_non_null(cache);
    wasmcache_close(cache);
    return rc;
}

static void sizes_of_options(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = f->dir;
    try_sizes(&options, sizeof(options), use_open, f);
}

struct attach_use {
    struct fixture *f;
    wasmcache *cache;
    wasmcache_attachment *wc;
};

static int use_attach(const void *options, void *payload)
{
    struct attach_use *use = payload;
    wasmcache_attachment *wc = NULL;
    int rc = wasmcache_attach(&wc, use->cache, &use->f->engine.table, &use->f->engine, options);
    assert_int_equal(wc != NULL, rc == 0);
    wasmcache_detach(wc);
    return rc;
}

static void sizes_of_attach_options(void **state)
{
    struct fixture *f = *state;
    struct attach_use use = {f, open_cache(f), NULL};
    const wasmcache_attach_options options = attach_options();
    try_sizes(&options, sizeof(options), use_attach, &use);
    wasmcache_close(use.cache);
}

static int use_table(const void *table, void *payload)
{
    struct attach_use *use = payload;
    const wasmcache_attach_options options = attach_options();
    wasmcache_attachment *wc = NULL;
    int rc = wasmcache_attach(&wc, use->cache, table, &use->f->engine, &options);
    assert_int_equal(wc != NULL, rc == 0);
    wasmcache_detach(wc);
    return rc;
}

static void sizes_of_engine_tables(void **state)
{
    struct fixture *f = *state;
    struct attach_use use = {f, open_cache(f), NULL};
    try_sizes(&f->engine.table, sizeof(f->engine.table), use_table, &use);
    wasmcache_close(use.cache);
}

static int use_get(const void *options, void *payload)
{
    struct attach_use *use = payload;
    const wasmcache_source source = wasmcache_source_bytes("\0asm", 4);
    wasmcache_module *module = NULL;
    int rc = wasmcache_get(&module, use->wc, WASMCACHE_MODULE, &source, options, NULL);
    assert_int_equal(module != NULL, rc == 0);
    wasmcache_module_release(module);
    return rc;
}

static void sizes_of_get_options(void **state)
{
    struct fixture *f = *state;
    const wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    struct attach_use use = {f, open_cache(f), NULL};
    use.wc = attach(f, use.cache);
    try_sizes(&options, sizeof(options), use_get, &use);
    assert_int_equal(f->engine.compiles, 1); /* misuse asks the engine for nothing */
    wasmcache_detach(use.wc);
    wasmcache_close(use.cache);
}

static int use_source(const void *source, void *payload)
{
    struct attach_use *use = payload;
    wasmcache_module *module = NULL;
    int rc = wasmcache_get(&module, use->wc, WASMCACHE_MODULE, source, NULL, NULL);
    assert_int_equal(module != NULL, rc == 0);
    wasmcache_module_release(module);
    return rc;
}

static void sizes_of_sources(void **state)
{
    struct fixture *f = *state;
    const wasmcache_source source = wasmcache_source_bytes("\0asm", 4);
    struct attach_use use = {f, open_cache(f), NULL};
    use.wc = attach(f, use.cache);
    try_sizes(&source, sizeof(source), use_source, &use);
    assert_int_equal(f->engine.compiles, 1);
    wasmcache_detach(use.wc);
    wasmcache_close(use.cache);
}

static int use_save(const void *options, void *payload)
{
    struct attach_use *use = payload;
    void *native = fake_module_new(&use->f->engine, WASMCACHE_MODULE, "\0asm", 4);
    wasmcache_key key;
    int rc;
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, "\0asm", 4), 0);
    rc = wasmcache_save(use->wc, WASMCACHE_MODULE, &key, native, options, NULL);
    use->f->engine.table.module_free(WASMCACHE_MODULE, native);
    return rc;
}

static void sizes_of_save_options(void **state)
{
    struct fixture *f = *state;
    const wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    struct attach_use use = {f, open_cache(f), NULL};
    use.wc = attach(f, use.cache);
    try_sizes(&options, sizeof(options), use_save, &use);
    for (unsigned bit = 0; bit < 32; bit++) {
        wasmcache_save_options flags = options;
        flags.flags = 1u << bit;
        assert_int_equal(use_save(&flags, &use), bit < 1 ? 0 : WASMCACHE_EMISUSE);
        flags = options;
        flags.reserved = 1u << bit; /* may mean something to a newer library */
        assert_int_equal(use_save(&flags, &use), WASMCACHE_EMISUSE);
    }
    wasmcache_detach(use.wc);
    wasmcache_close(use.cache);
}

/* ---- what options may say ---- */

static void assert_misuse(const wasmcache_options *options, const char *dir)
{
    wasmcache *cache = (wasmcache *)(uintptr_t)options;
    wc_os_hook = count_call;
    seam_calls = 0;
    assert_int_equal(wasmcache_open(&cache, options), WASMCACHE_EMISUSE);
    wc_os_hook = NULL;
    assert_null(cache);
    assert_int_equal(seam_calls, 0); /* nothing was touched */
    assert_false(scratch_exists(dir));
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EMISUSE);
    assert_true(strlen(wasmcache_last_error()->message) > 20);
}

static void unknown_flags_and_shares(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = f->dir;
    for (unsigned bit = 4; bit < 32; bit++) {
        options.flags = 1u << bit;
        if (options.flags == WASMCACHE_MAP_REMOTE)
            continue;
        assert_misuse(&options, f->dir);
        options.flags |= WASMCACHE_DURABLE;
        assert_misuse(&options, f->dir);
    }
    options.flags = 0;
    for (int share = 3; share < 300; share += 33) {
        options.share = (wasmcache_share)share;
        assert_misuse(&options, f->dir);
    }
    options.share = (wasmcache_share)-1;
    assert_misuse(&options, f->dir);
    for (unsigned flags = 0; flags < 16; flags++)
        for (int share = 0; share < 3; share++) {
            options.flags = flags;
            options.share = (wasmcache_share)share;
            assert_int_equal(use_open(&options, f), 0);
        }
}

static void directories(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache *cache = NULL;
    options.dir = "";
    assert_misuse(&options, f->dir);

    /* NULL: off, and nothing is opened or made. */
    options.dir = NULL;
    wc_os_hook = count_call;
    assert_int_equal(wasmcache_open(&cache, &options), 0);
    assert_non_null(cache);
    assert_int_equal(wasmcache_status(cache, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_OFF);
    wasmcache_close(cache);
    assert_int_equal(wasmcache_open(&cache, NULL), 0);
    assert_int_equal(wasmcache_status(cache, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_OFF);
    assert_string_equal(info.dir, "");
    assert_true(info.message[0] != '\0');
    wasmcache_close(cache);
    wc_os_hook = NULL;
    assert_int_equal(seam_calls, 0);
    assert_string_equal(scratch_tree(&f->s, f->s.dir), "");
}

/* Options are the caller's again once open returned. */
static void options_are_copied(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    char *dir = strdup(f->dir);
    uint32_t *uids = malloc(2 * sizeof(*uids));
    wasmcache *cache = NULL;
    assert_non_null(dir);
    assert_non_null(uids);
    uids[0] = 4711;
    uids[1] = 4712;
    options.dir = dir;
    options.trust_uids = uids;
    options.trust_uid_count = 2;
    assert_int_equal(wasmcache_open(&cache, &options), 0);
    memset(dir, 'x', strlen(dir));
    memset(uids, 0, 2 * sizeof(*uids));
    free(dir);
    free(uids);
    memset(&options, 0xEE, sizeof(options));
    assert_int_equal(wasmcache_status(cache, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_ON);
    assert_string_equal(info.dir, f->dir);
    assert_int_equal(cache->store.gate.trust_uid_count, 2);
    assert_int_equal(cache->store.gate.trust_uids[0], 4711);
    assert_int_equal(cache->store.gate.trust_uids[1], 4712);
    wasmcache_close(cache);
}

static void relative_directory_is_of_the_moment(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attachment *wc;
    char before[4096];
    struct attach_use use = {f, NULL, NULL};
    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(chdir(f->s.dir), 0);
    options.dir = "cache";
    assert_int_equal(wasmcache_open(&use.cache, &options), 0);
    assert_int_equal(chdir("/"), 0);
    use.wc = wc = attach(f, use.cache);
    assert_int_equal(use_get(NULL, &use), 0);
    assert_int_equal(chdir(before), 0);
    assert_true(scratch_exists(f->dir)); /* made by the save, where it was when it was opened */
    assert_false(scratch_exists("/cache"));
    wasmcache_detach(wc);
    wasmcache_close(use.cache);
}

static void trusted_users(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    uint32_t uids[65] = {0};
    options.dir = f->dir;
    options.trust_uid_count = 1;
    assert_misuse(&options, f->dir); /* NULL */
    options.trust_uids = uids;
    options.trust_uid_count = 65;
    assert_misuse(&options, f->dir);
    options.trust_uid_count = SIZE_MAX;
    assert_misuse(&options, f->dir);
    options.trust_uid_count = 64;
    assert_int_equal(use_open(&options, f), 0);
    options.trust_uid_count = 0; /* and a pointer that is not looked at */
    assert_int_equal(use_open(&options, f), 0);
}

static void null_out(void **state)
{
    struct fixture *f = *state;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options how = attach_options();
    wasmcache_attachment *wc = NULL;
    options.dir = f->dir;
    assert_int_equal(wasmcache_open(NULL, &options), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_open(NULL, NULL), WASMCACHE_EMISUSE);
    assert_false(scratch_exists(f->dir));
    assert_int_equal(wasmcache_status(NULL, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_attachment_status(NULL, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_attach(NULL, NULL, &f->engine.table, &f->engine, &how),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_attach(&wc, NULL, NULL, &f->engine, &how), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_attach(&wc, NULL, &f->engine.table, NULL, &how), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_attach(&wc, NULL, &f->engine.table, &f->engine, NULL),
                     WASMCACHE_EMISUSE);
    assert_null(wc);
    assert_int_equal(wasmcache_iterate(NULL, NULL, NULL, 0), WASMCACHE_EMISUSE);
    wasmcache_close(NULL);
    wasmcache_detach(NULL);
    wasmcache_iterator_close(NULL);
}

static void flags_of_other_calls(void **state)
{
    struct fixture *f = *state;
    wasmcache *cache = open_cache(f);
    wasmcache_attachment *wc = attach(f, cache);
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it = NULL;
    wasmcache_key key;
    struct attach_use use = {f, cache, wc};
    assert_int_equal(wasmcache_key_from_hex(&key, "0CC78860D414714C"), 0);
    for (unsigned bit = 0; bit < 32; bit++) {
        wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
        options.flags = 1u << bit;
        assert_int_equal(use_get(&options, &use), bit < 4 ? 0 : WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_entry_check(&entry, cache, "a-v1", &key, 1u << bit),
                         bit < 1 ? 0 : WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_iterate(&it, cache, NULL, 1u << bit),
                         bit < 1 ? 0 : WASMCACHE_EMISUSE);
        wasmcache_iterator_close(it);
        it = NULL;
    }
    wasmcache_detach(wc);
    wasmcache_close(cache);
}

/* ---- structs that the library fills ---- */

/* Bytes that differ from call to call: times, and what compilers leave free between fields. */
struct range {
    size_t from, to;
};

#define END_OF(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))
#define GAP(type, field, next)                                                                     \
    {                                                                                              \
        END_OF(type, field), offsetof(type, next)                                                  \
    }

/*
 * Calls `use` with a struct of each size up to a few bytes more than there are. Its size must stay,
 * what both know must be as in a struct of full size, and nothing behind that is written (nor
 * behind the end, which the sanitizers would see).
 */
static void try_outs(size_t known, int (*use)(void *out, void *payload), void *payload,
                     const struct range *ignored, size_t ignored_count)
{
    char *full = malloc(known);
    assert_non_null(full);
    memset(full, 0, known);
    memcpy(full, &known, sizeof(known));
    assert_int_equal(use(full, payload), 0);
    for (size_t size = 0; size <= known + 40; size++) {
        const size_t room = size < sizeof(size) ? sizeof(size) : size;
        char *out = malloc(room);
        size_t after;
        assert_non_null(out);
        memset(out, 0xEE, room);
        memcpy(out, &size, sizeof(size));
        assert_int_equal(use(out, payload), size < sizeof(size) ? WASMCACHE_EMISUSE : 0);
        memcpy(&after, out, sizeof(after));
        assert_true(after == size);
        for (size_t i = sizeof(size); i < size; i++) {
            int skipped = 0;
            for (size_t j = 0; j < ignored_count; j++)
                skipped |= i >= ignored[j].from && i < ignored[j].to;
            if (i >= known)
                assert_int_equal(out[i], (char)0xEE);
            else if (!skipped)
                assert_int_equal(out[i], full[i]);
        }
        free(out);
    }
    free(full);
}

static int fill_status(void *out, void *payload)
{
    return wasmcache_status(payload, out);
}

static void status_is_never_written_past(void **state)
{
    static const struct range end = {END_OF(wasmcache_status_info, message),
                                     sizeof(wasmcache_status_info)};
    struct fixture *f = *state;
    wasmcache *cache = open_cache(f);
    try_outs(sizeof(wasmcache_status_info), fill_status, cache, &end, 1);
    try_outs(sizeof(wasmcache_status_info), fill_status, NULL, &end, 1);
    wasmcache_close(cache);
}

static int fill_attachment(void *out, void *payload)
{
    return wasmcache_attachment_status(payload, out);
}

static void attachment_info_is_never_written_past(void **state)
{
    static const struct range gap = GAP(wasmcache_attachment_info, error, engine);
    struct fixture *f = *state;
    wasmcache *cache = open_cache(f);
    wasmcache_attachment *wc = attach(f, cache);
    try_outs(sizeof(wasmcache_attachment_info), fill_attachment, wc, &gap, 1);
    try_outs(sizeof(wasmcache_attachment_info), fill_attachment, NULL, &gap, 1);
    wasmcache_detach(wc);
    wasmcache_close(cache);
}

static int fill_entry(void *out, void *payload)
{
    struct attach_use *use = payload;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_key key;
    assert_int_equal(wasmcache_attachment_status(use->wc, &info), 0);
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, "\0asm", 4), 0);
    return wasmcache_entry_check(out, use->cache, info.engine_namespace, &key,
                                 WASMCACHE_CHECK_DIGEST);
}

static int fill_next(void *out, void *payload)
{
    struct attach_use *use = payload;
    wasmcache_iterator *it = NULL;
    int rc;
    assert_int_equal(wasmcache_iterate(&it, use->cache, NULL, 0), 0);
    rc = wasmcache_iterator_next(it, out);
    wasmcache_iterator_close(it);
    return rc;
}

static int fill_report(void *out, void *payload)
{
    struct attach_use *use = payload;
    const wasmcache_source source = wasmcache_source_bytes("\0asm", 4);
    wasmcache_module *module = NULL;
    int rc = wasmcache_get(&module, use->wc, WASMCACHE_MODULE, &source, NULL, out);
    wasmcache_module_release(module);
    return rc;
}

static void entries_and_reports_are_never_written_past(void **state)
{
    static const struct range times[] = {
        GAP(wasmcache_report, key, wasm_bytes),
        {offsetof(wasmcache_report, key_ns), sizeof(wasmcache_report)}};
    static const struct range gaps[] = {GAP(wasmcache_entry, key, kind),
                                        GAP(wasmcache_entry, kind, engine_namespace)};
    struct fixture *f = *state;
    struct attach_use use = {f, open_cache(f), NULL};
    use.wc = attach(f, use.cache);
    assert_int_equal(use_get(NULL, &use), 0); /* the one entry that there is */
    try_outs(sizeof(wasmcache_report), fill_report, &use, times, 2);
    try_outs(sizeof(wasmcache_entry), fill_entry, &use, gaps, 2);
    try_outs(sizeof(wasmcache_entry), fill_next, &use, gaps, 2);
    assert_int_equal(f->engine.compiles, 1);
    wasmcache_detach(use.wc);
    wasmcache_close(use.cache);
}

static void path_is_never_written_past(void **state)
{
    struct fixture *f = *state;
    wasmcache *cache = open_cache(f);
    char expected[500];
    wasmcache_key key;
    size_t need;
    assert_int_equal(wasmcache_key_from_hex(&key, "0CC78860D414714C"), 0);
    snprintf(expected, sizeof(expected), "%s/a-v1/0CC78860D414714C.bin", f->dir);
    need = strlen(expected) + 1;
    for (size_t size = 0; size < need + 4; size++) {
        char *out = malloc(size ? size : 1);
        assert_non_null(out);
        memset(out, 0x5A, size ? size : 1);
        assert_int_equal(wasmcache_entry_path(out, size, cache, "a-v1", &key),
                         size < need ? WASMCACHE_EMISUSE : 0);
        if (size < need)
            assert_int_equal(out[0], 0x5A); /* nothing is cut */
        else
            assert_string_equal(out, expected);
        free(out);
    }
    wasmcache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(sizes_of_options),
        TEST(sizes_of_attach_options),
        TEST(sizes_of_engine_tables),
        TEST(sizes_of_get_options),
        TEST(sizes_of_sources),
        TEST(sizes_of_save_options),
        TEST(unknown_flags_and_shares),
        TEST(directories),
        TEST(options_are_copied),
        TEST(relative_directory_is_of_the_moment),
        TEST(trusted_users),
        TEST(null_out),
        TEST(flags_of_other_calls),
        TEST(status_is_never_written_past),
        TEST(attachment_info_is_never_written_past),
        TEST(entries_and_reports_are_never_written_past),
        TEST(path_is_never_written_past),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
