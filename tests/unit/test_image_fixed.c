/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that is not position independent ("no-pie": it is linked so): the address of a function
 * of a library is one in the program itself, and the library that defines it has to be looked for.
 * no-tsan: it wants a program that is position independent.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "os/os.h"
#include "support/allocation.h"
#include "support/below.h"
#include "support/rig.h"

static const void *function(void)
{
    /* Not to be known when it is compiled, or another way would be taken to the address. */
    unsigned (*const volatile known)(void) = XXH_versionNumber;
    return (const void *)(uintptr_t)known;
}

static int ask(uint8_t out[32], int *own)
{
    static const char here;
    return wc_os_build_id("XXH_versionNumber", function(), &here, out, 32, own);
}

static int set_up(void **state)
{
    (void)state;
    (void)function();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)below_off();
    allocation_off();
    return 0;
}

/* 0: the linker found another way, and there is nothing to see. */
static int is_in_the_program(void)
{
    Dl_info there, here;
    return dladdr(function(), &there) && dladdr((const void *)(uintptr_t)ask, &here) &&
           there.dli_fbase == here.dli_fbase;
}

static void the_library_that_defines_a_function_is_found(void **state)
{
    uint8_t found[32], want[32], host[32];
    void *library = dlopen("libxxhash.so.0", RTLD_LAZY | RTLD_NOLOAD);
    int own = 7, length;
    (void)state;
    if (!is_in_the_program() || !library)
        skip();
    length = wc_os_build_id(NULL, dlsym(library, "XXH_versionNumber"), &own, want, 32, &own);
    assert_int_equal(ask(found, &own), length);
    assert_memory_equal(found, want, (size_t)length);
    assert_int_equal(own, 0);
    assert_int_not_equal(wc_os_build_id(NULL, (const void *)(uintptr_t)ask,
                                        (const void *)(uintptr_t)ask, host, 32, &own),
                         -1);
    assert_int_equal(own, 1);
    dlclose(library);
}

static void it_cannot_be_told_without_memory(void **state)
{
    uint8_t out[32];
    int own;
    unsigned failed = 0;
    (void)state;
    if (!is_in_the_program())
        skip();
    for (unsigned nth = 1;; nth++) {
        int rc;
        allocation_fail(nth, 0);
        rc = ask(out, &own);
        allocation_off();
        if (!allocation_met()) {
            assert_true(rc >= 0);
            break;
        }
        assert_int_equal(rc, -ENOMEM);
        failed++;
    }
    assert_true(failed > 0);
}

static void it_cannot_be_told_if_the_loader_does_not_say(void **state)
{
    uint8_t out[32];
    int own;
    (void)state;
    if (!is_in_the_program())
        skip();
    below_fail("dlopen", ENOENT, 1); /* unloaded meanwhile */
    assert_int_equal(ask(out, &own), -ENOMEM);
    assert_int_equal(below_off(), 0);
}

static void a_function_that_no_library_defines_is_where_it_was_seen(void **state)
{
    uint8_t out[32];
    int own = 7;
    (void)state;
    if (!is_in_the_program())
        skip();
    below_fail("dlinfo", EINVAL, 1000);
    assert_true(ask(out, &own) >= 0);
    assert_true(below_off() < 1000);
    assert_int_equal(own, 1);
}

/* What the libraries before it only link has the same name there. */
static void a_function_is_that_of_the_library_that_has_it_itself(void **state)
{
    pid_t (*const volatile known)(void) = getpid;
    static const char here;
    uint8_t found[32], want[32];
    void *library = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    int own = 7, length;
    (void)state;
    if (!is_in_the_program() || !library)
        skip();
    length = wc_os_build_id(NULL, dlsym(library, "getpid"), &here, want, 32, &own);
    assert_int_equal(
        wc_os_build_id("getpid", (const void *)(uintptr_t)known, &here, found, 32, &own), length);
    assert_memory_equal(found, want, (size_t)length);
    assert_int_equal(own, 0);
    dlclose(library);
}

/* Then it runs uncached, until there is memory. */
static void without_memory_an_engine_is_not_told_apart(void **state)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    static struct rig r; /* the engine's table is in the host's image */
    unsigned failed = 0;
    (void)state;
    if (!is_in_the_program())
        skip();
    rig_init(&r);
    r.attach.code = function();
    r.attach.code_symbol = "XXH_versionNumber";
    for (unsigned nth = 1; nth < 100; nth++) {
        int met;
        rig_open(&r);
        allocation_fail(nth, 0);
        assert_int_equal(wasmcache_attachment_status(r.wc, &info), 0);
        allocation_off();
        met = allocation_met();
        failed += info.error != 0;
        assert_true(info.error == 0 || info.error == WASMCACHE_ENOMEM);
        assert_int_equal(wasmcache_attachment_status(r.wc, &info), 0);
        assert_int_equal(info.error, 0);
        rig_close(&r);
        if (!met)
            break;
    }
    assert_true(failed > 1);
    rig_end(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_library_that_defines_a_function_is_found),
        TEST(it_cannot_be_told_without_memory),
        TEST(it_cannot_be_told_if_the_loader_does_not_say),
        TEST(a_function_that_no_library_defines_is_where_it_was_seen),
        TEST(a_function_is_that_of_the_library_that_has_it_itself),
        TEST(without_memory_an_engine_is_not_told_apart),
    };
    return cmocka_run_group_tests_name("image, not position independent", tests, NULL, NULL);
}
