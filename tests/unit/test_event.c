/* SPDX-License-Identifier: Apache-2.0 */
/* Events: their names, what is filled in, and that off and on are told once each. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache.h"
#include "support/fake_engine.h"
#include "support/scratch.h"

static void event_names(void **state)
{
    static const char *const names[] = {"hit",         "miss",    "saved",         "kept",
                                        "save-failed", "removed", "remove-failed", "fallback",
                                        "off",         "on",      "unattached",    "wait"};
    enum { COUNT = sizeof(names) / sizeof(*names) };
    (void)state;
    assert_int_equal(WASMCACHE_EVENT_HIT, 1);
    assert_int_equal(WASMCACHE_EVENT_WAIT, COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_string_equal(wasmcache_event_name((wasmcache_event_type)(i + 1)), names[i]);
    assert_string_equal(wasmcache_event_name((wasmcache_event_type)0), "unknown");
    assert_string_equal(wasmcache_event_name((wasmcache_event_type)(COUNT + 1)), "unknown");
    assert_string_equal(wasmcache_event_name((wasmcache_event_type)-1), "unknown");
}

/* What a callback saw; strings are borrowed, so they are copied. */
struct heard {
    unsigned count, of_type[WASMCACHE_EVENT_UNATTACHED + 1];
    wasmcache_event last;
    char path[200], message[200];
};

static void hear(const wasmcache_event *event, void *payload)
{
    struct heard *heard = payload;
    heard->count++;
    assert_in_range(event->type, WASMCACHE_EVENT_HIT, WASMCACHE_EVENT_UNATTACHED);
    heard->of_type[event->type]++;
    heard->last = *event;
    strncpy(heard->path, event->path, sizeof(heard->path) - 1);
    strncpy(heard->message, event->message, sizeof(heard->message) - 1);
    heard->path[sizeof(heard->path) - 1] = heard->message[sizeof(heard->message) - 1] = '\0';
}

static void strings_are_never_null(void **state)
{
    struct heard heard = {0};
    wasmcache cache = {.on_event = hear, .payload = &heard};
    wasmcache_event fill = {0};
    (void)state;
    fill.bytes = 5;
    fill.ns = 6;
    fill.reason = WASMCACHE_REASON_CORRUPT;
    fill.error = WASMCACHE_ECORRUPT;
    wc_event(&cache, WASMCACHE_EVENT_MISS, fill);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.last.size, sizeof(wasmcache_event));
    assert_int_equal(heard.last.type, WASMCACHE_EVENT_MISS);
    assert_int_equal(heard.last.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(heard.last.error, WASMCACHE_ECORRUPT);
    assert_int_equal(heard.last.bytes, 5);
    assert_int_equal(heard.last.ns, 6);
    assert_string_equal(heard.last.engine_namespace, "");
    assert_string_equal(heard.last.key, "");
    assert_string_equal(heard.last.path, "");
    assert_string_equal(heard.last.message, "");

    fill.engine_namespace = "n-v1";
    fill.key = "AB";
    fill.path = "/p";
    fill.message = "m";
    wc_event(&cache, WASMCACHE_EVENT_HIT, fill);
    assert_int_equal(heard.count, 2);
    assert_string_equal(heard.last.engine_namespace, "n-v1");
    assert_string_equal(heard.last.key, "AB");
    assert_string_equal(heard.path, "/p");
    assert_string_equal(heard.message, "m");
}

static void nobody_listens(void **state)
{
    wasmcache cache = {.on_event = NULL};
    struct wc_error err;
    wasmcache_event fill = {0};
    (void)state;
    wc_event(NULL, WASMCACHE_EVENT_HIT, fill);
    wc_event(&cache, WASMCACHE_EVENT_HIT, fill);
    wc_error_init(&err);
    err.off = 1;
    wc_cache_note(&cache, WASMCACHE_EIO, &err);
    assert_true(cache.off); /* noted all the same */
}

static void off_and_on_are_told_once(void **state)
{
    struct heard heard = {0};
    char dir[] = "/the/cache";
    wasmcache cache = {.on_event = hear, .payload = &heard, .store = {.dir = dir}};
    struct wc_error off, one, missing, fine;
    (void)state;
    wc_error_init(&off);
    wc_error_init(&one);
    wc_error_init(&missing);
    wc_error_init(&fine);
    (void)wc_fail(&off, WASMCACHE_EUNTRUSTED, EACCES, "open", "/the/cache", "Not to be trusted");
    off.off = 1;
    (void)wc_fail(&one, WASMCACHE_ECORRUPT, 0, NULL, "/the/cache/x", "One entry only");
    (void)wc_fail(&missing, WASMCACHE_EMISS, ENOENT, "open", "/the/cache", "Not there");

    for (int round = 1; round <= 3; round++) {
        /* Works, and one entry that fails is not the directory. */
        wc_cache_note(&cache, 0, &fine);
        wc_cache_note(&cache, WASMCACHE_ECORRUPT, &one);
        assert_int_equal(heard.count, 2 * round - 2);
        for (int again = 0; again < 5; again++)
            wc_cache_note(&cache, WASMCACHE_EUNTRUSTED, &off);
        assert_int_equal(heard.count, 2 * round - 1);
        assert_int_equal(heard.last.type, WASMCACHE_EVENT_OFF);
        assert_int_equal(heard.last.reason, WASMCACHE_REASON_CACHE_OFF);
        assert_int_equal(heard.last.error, WASMCACHE_EUNTRUSTED);
        assert_int_equal(heard.last.system_errno, EACCES);
        assert_string_equal(heard.path, "/the/cache");
        assert_string_equal(heard.message, "Not to be trusted: Permission denied");
        /* That something else is wrong, or missing, does not say that it works. */
        wc_cache_note(&cache, WASMCACHE_ECORRUPT, &one);
        wc_cache_note(&cache, WASMCACHE_EMISS, &missing);
        assert_int_equal(heard.count, 2 * round - 1);
        for (int again = 0; again < 5; again++)
            wc_cache_note(&cache, 0, &fine);
        assert_int_equal(heard.count, 2 * round);
        assert_int_equal(heard.last.type, WASMCACHE_EVENT_ON);
        assert_int_equal(heard.last.error, 0);
        assert_string_equal(heard.path, "/the/cache");
    }
}

static int cannot_make(const char *call)
{
    return strcmp(call, "mkdir_at") == 0 ? -EROFS : 0;
}

/* It is off once, however many gets try. */
static void a_directory_that_cannot_be_made_is_told_once(void **state)
{
    struct scratch s;
    struct fake_engine engine;
    struct heard heard = {0};
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options how = WASMCACHE_ATTACH_OPTIONS_INIT;
    const wasmcache_source source = wasmcache_source_bytes("\0asm", 4);
    wasmcache *cache = NULL;
    wasmcache_attachment *wc = NULL;
    (void)state;
    scratch_init(&s);
    fake_engine_init(&engine, 1);
    options.dir = scratch_in(&s, "cache");
    options.on_event = hear;
    options.payload = &heard;
    how.compiler = "fake";
    how.engine_version = "1";
    wc_os_hook = cannot_make;
    assert_int_equal(wasmcache_open(&cache, &options), 0);
    assert_int_equal(wasmcache_attach(&wc, cache, &engine.table, &engine, &how), 0);
    for (int i = 0; i < 4; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, WASMCACHE_EIO);
        wasmcache_module_release(module);
    }
    assert_int_equal(heard.of_type[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(heard.of_type[WASMCACHE_EVENT_ON], 0);
    wc_os_hook = NULL;
    for (int i = 0; i < 2; i++) { /* and on once it can be made */
        wasmcache_module *module = NULL;
        assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
        wasmcache_module_release(module);
    }
    assert_int_equal(heard.of_type[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(heard.of_type[WASMCACHE_EVENT_ON], 1);
    assert_int_equal(heard.of_type[WASMCACHE_EVENT_SAVED], 1);
    assert_int_equal(heard.of_type[WASMCACHE_EVENT_HIT], 1);
    wasmcache_detach(wc);
    wasmcache_close(cache);
    fake_engine_end(&engine);
    scratch_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_names),
        cmocka_unit_test(strings_are_never_null),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(off_and_on_are_told_once),
        cmocka_unit_test(a_directory_that_cannot_be_made_is_told_once),
    };
    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
