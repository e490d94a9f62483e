/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that end in the middle of requests, at random moments and in all ways, end as they were
 * told to. `make check` tries 300 of them; WASMCACHE_TEST_EXITS=1000 any other number.
 * no-asan: it cannot be loaded after the program, as host_exit loads the library
 * no-tsan: for the same reason
 */
#include "wasmtime_host.h"

#include <time.h>

static struct scratch scratch;

static unsigned dice(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

static void every_process_ends_as_it_was_told(void **state)
{
    static const char *const ways[] = {"exit",    "_exit",      "return",
                                       "dlclose", "destructor", "thread"};
    enum { WAYS = sizeof(ways) / sizeof(*ways) };
    const char *wanted = getenv("WASMCACHE_TEST_EXITS");
    const unsigned count = wanted ? (unsigned)strtoul(wanted, NULL, 10) : 300;
    unsigned seed = (unsigned)time(NULL), abnormal = 0;
    const unsigned first = seed;
    char library_path[1024], out[4096], moment[16];
    const char *build = getenv("WASMCACHE_BINARY_DIR");
    (void)state;

    snprintf(library_path, sizeof(library_path), "%s/src/libwasmcache.so", build ? build : ".");
    /* They do what they should, if one lets them. */
    assert_int_equal(run_program(out, sizeof(out), "host_exit", library_path,
                                 scratch_in(&scratch, "cache"), "load", "0", NULL),
                     0);
    for (unsigned i = 0; i < count; i++) {
        const unsigned way = i % WAYS;
        /* Every other one has a cache to fill, so that it compiles and saves. */
        char *dir = scratch_in(&scratch, i % 2 ? "cache" : "empty");
        int status;
        if (i % 2 == 0)
            scratch_remove(dir);
        snprintf(moment, sizeof(moment), "%u", dice(&seed) % 12000);
        status =
            run_program(out, sizeof(out), "host_exit", library_path, dir, ways[way], moment, NULL);
        if (status != 0) {
            print_message("%s after %s us: status %d\n", ways[way], moment, status);
            abnormal++;
        }
    }
    print_message("%u processes, seed %u: %u abnormal exits\n", count, first, abnormal);
    assert_int_equal(abnormal, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_process_ends_as_it_was_told),
    };
    int failed;
    scratch_init(&scratch);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_end(&scratch);
    return failed;
}
