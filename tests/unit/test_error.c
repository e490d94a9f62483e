/* SPDX-License-Identifier: Apache-2.0 */
/* Errors: their names, what a failure says, and whose it is. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"
#include "support/fake_engine.h"
#include "support/scratch.h"

/* ---- names ---- */

static void error_names(void **state)
{
    static const struct {
        int error;
        const char *name;
    } all[] = {{WASMCACHE_OK, "ok"},
               {WASMCACHE_EMISS, "miss"},
               {WASMCACHE_ECORRUPT, "corrupt"},
               {WASMCACHE_EMISMATCH, "mismatched"},
               {WASMCACHE_ENEWER, "newer-format"},
               {WASMCACHE_EUNTRUSTED, "untrusted"},
               {WASMCACHE_EBUSY, "busy"},
               {WASMCACHE_EIO, "io"},
               {WASMCACHE_EFULL, "full"},
               {WASMCACHE_EABORTED, "aborted"},
               {WASMCACHE_EENGINE, "engine"},
               {WASMCACHE_EMISUSE, "misuse"},
               {WASMCACHE_ENOMEM, "no-memory"},
               {WASMCACHE_EOFF, "off"}};
    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        assert_int_equal(all[i].error, -(int)i); /* numbers are stable */
        assert_string_equal(wasmcache_error_name(all[i].error), all[i].name);
    }
    assert_string_equal(wasmcache_error_name(-(int)(sizeof(all) / sizeof(*all))), "unknown");
    assert_string_equal(wasmcache_error_name(1), "unknown");
    assert_string_equal(wasmcache_error_name(INT_MIN), "unknown");
    assert_string_equal(wasmcache_error_name(INT_MAX), "unknown");
}

static void reason_names(void **state)
{
    static const char *const names[] = {
        "none",      "not-found",  "corrupt",        "mismatched", "newer-format",
        "untrusted", "unreadable", "engine-refused", "cache-off",  "unattached",
        "recompile", "source",     "expired"};
    enum { COUNT = sizeof(names) / sizeof(*names) };
    (void)state;
    assert_int_equal(COUNT, WASMCACHE_REASON_EXPIRED + 1);
    for (int i = 0; i < COUNT; i++)
        assert_string_equal(wasmcache_reason_name((wasmcache_reason)i), names[i]);
    assert_string_equal(wasmcache_reason_name((wasmcache_reason)COUNT), "unknown");
    assert_string_equal(wasmcache_reason_name((wasmcache_reason)-1), "unknown");
}

static void outcome_names(void **state)
{
    (void)state;
    assert_string_equal(wasmcache_outcome_name(WASMCACHE_FAILED), "failed");
    assert_string_equal(wasmcache_outcome_name(WASMCACHE_HIT), "hit");
    assert_string_equal(wasmcache_outcome_name(WASMCACHE_COMPILED), "compiled");
    assert_string_equal(wasmcache_outcome_name(WASMCACHE_SAVED), "saved");
    assert_string_equal(wasmcache_outcome_name(WASMCACHE_JOINED), "joined");
    assert_string_equal(wasmcache_outcome_name((wasmcache_outcome)5), "unknown");
}

static void version_is_the_headers(void **state)
{
    char text[32];
    (void)state;
    snprintf(text, sizeof(text), "%d.%d.%d", WASMCACHE_VERSION_MAJOR, WASMCACHE_VERSION_MINOR,
             WASMCACHE_VERSION_PATCH);
    assert_string_equal(WASMCACHE_VERSION, text);
    assert_string_equal(wasmcache_version(), text);
}

static void reasons_of_errors(void **state)
{
    (void)state;
    assert_int_equal(wc_reason_of_error(WASMCACHE_OK), WASMCACHE_REASON_NONE);
    assert_int_equal(wc_reason_of_error(WASMCACHE_EMISS), WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(wc_reason_of_error(WASMCACHE_ECORRUPT), WASMCACHE_REASON_CORRUPT);
    assert_int_equal(wc_reason_of_error(WASMCACHE_EMISMATCH), WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(wc_reason_of_error(WASMCACHE_ENEWER), WASMCACHE_REASON_NEWER_FORMAT);
    assert_int_equal(wc_reason_of_error(WASMCACHE_EUNTRUSTED), WASMCACHE_REASON_UNTRUSTED);
    assert_int_equal(wc_reason_of_error(WASMCACHE_EENGINE), WASMCACHE_REASON_ENGINE_REFUSED);
    /* What says nothing about the entry never says that it is bad. */
    assert_int_equal(wc_reason_of_error(WASMCACHE_EIO), WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(wc_reason_of_error(WASMCACHE_ENOMEM), WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(wc_reason_of_error(WASMCACHE_EBUSY), WASMCACHE_REASON_UNREADABLE);
}

static void errors_of_errno(void **state)
{
    static const int full[] = {ENOSPC, EDQUOT, EFBIG}, io[] = {EIO, EACCES, EROFS, EMFILE, ESTALE};
    (void)state;
    for (size_t i = 0; i < sizeof(full) / sizeof(*full); i++) {
        assert_int_equal(wc_error_of_errno(full[i]), WASMCACHE_EFULL);
        assert_int_equal(wc_error_of_errno(-full[i]), WASMCACHE_EFULL);
    }
    assert_int_equal(wc_error_of_errno(ENOMEM), WASMCACHE_ENOMEM);
    assert_int_equal(wc_error_of_errno(-ENOMEM), WASMCACHE_ENOMEM);
    for (size_t i = 0; i < sizeof(io) / sizeof(*io); i++) {
        assert_int_equal(wc_error_of_errno(io[i]), WASMCACHE_EIO);
        assert_int_equal(wc_error_of_errno(-io[i]), WASMCACHE_EIO);
    }
}

/* ---- what a failure says ---- */

static void a_failure_is_described(void **state)
{
    struct wc_error err;
    (void)state;
    wc_error_init(&err);
    assert_int_equal(err.error, 0);
    assert_string_equal(err.call, "");
    assert_int_equal(
        wc_fail(&err, WASMCACHE_EIO, -ENOENT, "open", "/a/b", "Cannot open %s %d", "/a/b", 7),
        WASMCACHE_EIO);
    assert_int_equal(err.error, WASMCACHE_EIO);
    assert_int_equal(err.system_errno, ENOENT); /* positive, whatever was given */
    assert_string_equal(err.call, "open");
    assert_string_equal(err.path, "/a/b");
    assert_string_equal(err.message, "Cannot open /a/b 7: No such file or directory");

    assert_int_equal(wc_fail(&err, WASMCACHE_EFULL, ENOSPC, NULL, NULL, "Full"), WASMCACHE_EFULL);
    assert_int_equal(err.system_errno, ENOSPC);
    assert_string_equal(err.call, "");
    assert_string_equal(err.path, "");
    assert_string_equal(err.message, "Full: No space left on device");

    assert_int_equal(wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL, "100%% wrong"),
                     WASMCACHE_EMISUSE);
    assert_int_equal(err.system_errno, 0);
    assert_string_equal(err.message, "100% wrong");
}

static void long_texts_are_cut(void **state)
{
    struct wc_error *err = malloc(sizeof(*err)); /* so that a write past it is seen */
    char path[5000];
    (void)state;
    assert_non_null(err);
    memset(path, 'p', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    for (size_t length = 0; length < sizeof(path) - 1; length += length < 800 ? 1 : 300) {
        const char *tail = path + sizeof(path) - 1 - length;
        memset(err, 0xEE, sizeof(*err));
        wc_error_init(err);
        wc_error_describe(err, WASMCACHE_EIO, EIO, "read", tail, "%s", tail);
        assert_non_null(memchr(err->path, 0, sizeof(err->path)));
        assert_non_null(memchr(err->message, 0, sizeof(err->message)));
        assert_int_equal(strlen(err->path),
                         length < sizeof(err->path) ? length : sizeof(err->path) - 1);
        if (length < 512)
            assert_non_null(strstr(err->message, strerror(EIO)));
    }
    free(err);
}

/* ---- whose it is ---- */

static void fail_on(const char *path)
{
    wasmcache_key key;
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), WASMCACHE_EIO);
}

static void *look_at_first(void *argument)
{
    const wasmcache_error_detail *detail = wasmcache_last_error();
    int *ok = argument;
    *ok = detail && detail->size == sizeof(*detail) && detail->error == 0 &&
          detail->system_errno == 0 && detail->call && !detail->call[0] && detail->path &&
          !detail->path[0] && detail->message && !detail->message[0];
    return NULL;
}

static void a_new_thread_has_no_error(void **state)
{
    pthread_t thread;
    int ok = 0;
    (void)state;
    fail_on("/missing/of/the/main/thread");
    assert_int_equal(pthread_create(&thread, NULL, look_at_first, &ok), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(ok);
    assert_string_equal(wasmcache_last_error()->path, "/missing/of/the/main/thread");
}

enum { THREADS = 6 };

struct own {
    pthread_barrier_t *barrier;
    int number;
    int ok;
};

/* All fail in the same way about different things, then all look. Asserts are for one thread. */
static void *fail_together(void *argument)
{
    struct own *own = argument;
    char path[64];
    own->ok = 1;
    for (int round = 0; round < 50; round++) {
        const wasmcache_error_detail *detail;
        wasmcache_key key;
        snprintf(path, sizeof(path), "/missing/%d/%d", own->number, round);
        pthread_barrier_wait(own->barrier);
        if (own->number % 2)
            wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path);
        else
            wasmcache_key_from_hex(&key, path);
        pthread_barrier_wait(own->barrier);
        detail = wasmcache_last_error();
        if (own->number % 2)
            own->ok &= detail->error == WASMCACHE_EIO && detail->system_errno == ENOENT &&
                       strcmp(detail->path, path) == 0 && strstr(detail->message, path) != NULL;
        else
            own->ok &= detail->error == WASMCACHE_EMISUSE && !detail->path[0];
    }
    return NULL;
}

static void threads_do_not_see_each_others(void **state)
{
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    struct own own[THREADS];
    (void)state;
    fail_on("/missing/before");
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        own[i] = (struct own){&barrier, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, fail_together, &own[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(own[i].ok);
    }
    pthread_barrier_destroy(&barrier);
    assert_string_equal(wasmcache_last_error()->path, "/missing/before");
}

static void assert_untouched(void)
{
    const wasmcache_error_detail *detail = wasmcache_last_error();
    assert_int_equal(detail->error, WASMCACHE_EIO);
    assert_int_equal(detail->system_errno, ENOENT);
    assert_string_equal(detail->call, "open");
    assert_string_equal(detail->path, "/missing/first");
    assert_string_equal(detail->message, "Cannot open /missing/first: No such file or directory");
}

static void a_success_leaves_it(void **state)
{
    wasmcache *cache = NULL;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache_key key;
    struct wc_error err;
    char hex[WASMCACHE_KEY_HEX_SIZE];
    (void)state;
    fail_on("/missing/first");
    assert_untouched();
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, "abc", 3), 0);
    assert_int_equal(wasmcache_key_from_hex(&key, wasmcache_key_to_hex(hex, &key)), 0);
    assert_int_equal(wasmcache_open(&cache, NULL), 0);
    assert_int_equal(wasmcache_status(cache, &info), 0);
    wasmcache_close(cache);
    assert_untouched();
    wc_error_init(&err);
    assert_int_equal(wc_error_publish(&err, 0), 0);
    assert_int_equal(wc_error_publish(&err, 7), 7);
    assert_untouched();
}

/* What the library deals with itself is no failure of the call. */
static void a_failure_that_is_dealt_with_leaves_it(void **state)
{
    struct scratch s;
    struct fake_engine engine;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_source source = wasmcache_source_bytes("\0asm", 4);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache *cache = NULL;
    wasmcache_attachment *wc = NULL;
    wasmcache_module *module = NULL;
    (void)state;
    scratch_init(&s);
    fake_engine_init(&engine, 1);
    scratch_write(scratch_in(&s, "file"), "x", 1, 0600);
    options.dir = scratch_in(&s, "file/cache"); /* can never be made */
    attach.compiler = "fake";
    attach.engine_version = "1";
    fail_on("/missing/first");
    assert_int_equal(wasmcache_open(&cache, &options), 0);
    assert_int_equal(wasmcache_attach(&wc, cache, &engine.table, &engine, &attach), 0);
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(report.save_error < 0);
    assert_untouched();
    wasmcache_module_release(module);
    wasmcache_detach(wc);
    wasmcache_close(cache);
    fake_engine_end(&engine);
    scratch_end(&s);
}

static void the_next_failure_replaces_all_of_it(void **state)
{
    wasmcache_key key;
    const wasmcache_error_detail *detail;
    struct wc_error err;
    (void)state;
    fail_on("/missing/first");
    assert_int_equal(wasmcache_key_from_hex(&key, "x"), WASMCACHE_EMISUSE);
    detail = wasmcache_last_error();
    assert_int_equal(detail->error, WASMCACHE_EMISUSE);
    assert_int_equal(detail->system_errno, 0);
    assert_string_equal(detail->call, "");
    assert_string_equal(detail->path, "");
    assert_null(strstr(detail->message, "/missing"));

    /* Whoever fails without a word has its name for a message. */
    wc_error_init(&err);
    assert_int_equal(wc_error_publish(&err, WASMCACHE_EMISS), WASMCACHE_EMISS);
    assert_int_equal(detail->error, WASMCACHE_EMISS);
    assert_string_equal(detail->message, "miss");

    /* The stack frame that failed is gone; the detail is not. */
    fail_on("/missing/second");
    memset(&err, 0xEE, sizeof(err));
    assert_string_equal(wasmcache_last_error()->path, "/missing/second");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_names),
        cmocka_unit_test(reason_names),
        cmocka_unit_test(outcome_names),
        cmocka_unit_test(version_is_the_headers),
        cmocka_unit_test(reasons_of_errors),
        cmocka_unit_test(errors_of_errno),
        cmocka_unit_test(a_failure_is_described),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(a_new_thread_has_no_error),
        cmocka_unit_test(threads_do_not_see_each_others),
        cmocka_unit_test(a_success_leaves_it),
        cmocka_unit_test(a_failure_that_is_dealt_with_leaves_it),
        cmocka_unit_test(the_next_failure_replaces_all_of_it),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
