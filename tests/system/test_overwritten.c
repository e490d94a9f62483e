/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entry is written to in place, truncated or overwritten, at random moments while a process
 * loads it again and again and runs it. Only who may write there can do that: root, the user itself
 * and whom it trusts. What is promised: a load that begins afterwards refuses it, and the next get
 * is a module again. What is not: that a module whose pages are such a file's survives it, which is
 * counted and told.
 * no-asan: its handlers would report each signal at length
 * no-tsan: for the same reason
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FUNCTIONS = 3000, GETS = 12, SPAN_US = 12000 };

struct board {
    atomic_int ready, harmed; /* this trial */
    atomic_ulong gets, after, accepted, refused, wrong, wrong_after;
};

static struct {
    struct scratch scratch;
    struct board *board;
    char *dir, *path, *keep;
    uint8_t *wasm, *copy;
    size_t wasm_size, size;
    int fd;
    unsigned random;
} lab;

static unsigned below(unsigned limit)
{
    lab.random = lab.random * 1103515245u + 12345u;
    return (lab.random >> 8) % limit;
}

static int right(const struct host *h, engine_module *module)
{
    const int32_t seven[] = {7};
    return call_export(h->engine, module, "work", seven, 1) == 21;
}

/* Loads and runs until the file was harmed and some gets came after it. */
static int use(void *argument)
{
    struct board *b = lab.board;
    struct host h;
    int compiled = 0;
    (void)argument;
    if (!freopen("/dev/null", "w", stderr)) /* an engine that dies there says so at length */
        return 1;
    host_open(&h, lab.dir, 0);
    atomic_store(&b->ready, 1);
    for (unsigned left = GETS; left;) {
        const int harmed = atomic_load(&b->harmed);
        engine_module *module = NULL;
        wasmcache_report report;
        if (get_bytes(&module, &h, lab.wasm, lab.wasm_size, &report) != 0) {
            printf("a get failed: %s\n", wasmcache_last_error()->message);
            return 1;
        }
        atomic_fetch_add(&b->gets, 1);
        atomic_fetch_add(&b->after, (unsigned)harmed);
        atomic_fetch_add(&b->accepted, harmed && !compiled && report.outcome == WASMCACHE_HIT);
        atomic_fetch_add(&b->refused, report.reason == WASMCACHE_REASON_CORRUPT);
        compiled |= report.outcome == WASMCACHE_COMPILED;
        if (!right(&h, module))
            atomic_fetch_add(harmed ? &b->wrong_after : &b->wrong, 1);
        engine_module_delete(module);
        left -= (unsigned)harmed;
    }
    host_close(&h);
    return 0;
}

/* A process that knows nothing of it. */
static int get_afterwards(void *argument)
{
    engine_module *module = NULL;
    wasmcache_report report;
    struct host h;
    int ok;
    (void)argument;
    host_open(&h, lab.dir, 0);
    ok = get_bytes(&module, &h, lab.wasm, lab.wasm_size, &report) == 0 && right(&h, module);
    if (ok)
        engine_module_delete(module);
    host_close(&h);
    return !ok;
}

static int fill(void *argument)
{
    struct host h;
    engine_module *module = NULL;
    wasmcache_report report;
    char *path;
    (void)argument;
    host_open(&h, lab.dir, 0);
    assert_int_equal(get_bytes(&module, &h, lab.wasm, lab.wasm_size, &report), 0);
    assert_int_equal(report.save_error, 0);
    path = entry_path(&lab.scratch, &h, lab.wasm, lab.wasm_size);
    scratch_write(scratch_in(&lab.scratch, "path"), path, strlen(path), 0600);
    engine_module_delete(module);
    host_close(&h);
    return 0;
}

static void restore(void)
{
    assert_int_equal(ftruncate(lab.fd, (off_t)lab.size), 0);
    assert_int_equal(pwrite(lab.fd, lab.copy, lab.size, 0), lab.size);
    (void)unlink(lab.path);
    assert_int_equal(link(lab.keep, lab.path), 0);
}

/* One write or truncation, which leaves another content in any case. */
static void harm(void)
{
    const size_t at = below((unsigned)lab.size - 4096);
    uint8_t noise[4096];
    switch (below(3)) {
    case 0:
        assert_int_equal(ftruncate(lab.fd, (off_t)at), 0);
        break;
    case 1:
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (uint8_t)(lab.copy[at + i] ^ (1 + below(255)));
        assert_int_equal(pwrite(lab.fd, noise, sizeof(noise), (off_t)at), sizeof(noise));
        break;
    default: { /* the rest is zeros */
        assert_int_equal(ftruncate(lab.fd, (off_t)at), 0);
        assert_int_equal(ftruncate(lab.fd, (off_t)lab.size), 0);
    }
    }
    atomic_store(&lab.board->harmed, 1);
}

static void a_file_is_changed_in_place_while_it_is_used(void **state)
{
    const char *wanted = getenv("WASMCACHE_TEST_TRIALS");
    const unsigned trials = wanted ? (unsigned)strtoul(wanted, NULL, 10) : 40;
    unsigned ended[65] = {0}, stuck = 0;
    struct board *b;
    uint8_t *path;
    size_t length;
    (void)state;

    scratch_init(&lab.scratch);
    lab.random = 99;
    lab.dir = scratch_in(&lab.scratch, "cache");
    lab.keep = scratch_in(&lab.scratch, "keep");
    lab.wasm = malloc(WASM_WORK_ROOM(FUNCTIONS));
    lab.wasm_size = wasm_work(lab.wasm, 3, FUNCTIONS);
    b = lab.board =
        mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(b != MAP_FAILED);
    assert_int_equal(scratch_child(fill, NULL, 0, 60), 0);
    path = scratch_read(scratch_in(&lab.scratch, "path"), &length);
    lab.path = (char *)path;
    lab.copy = scratch_read(lab.path, &lab.size);
    assert_int_equal(link(lab.path, lab.keep), 0);
    assert_int_equal(chmod(lab.keep, 0600), 0);
    lab.fd = open(lab.keep, O_RDWR | O_CLOEXEC);
    assert_true(lab.fd >= 0);
    assert_int_equal(fchmod(lab.fd, 0400), 0);

    for (unsigned i = 0; i < trials; i++) {
        pid_t child;
        int status;
        atomic_store(&b->ready, 0);
        atomic_store(&b->harmed, 0);
        /* Every other time so old that a check is remembered; else its digest is compared. */
        if (i % 2)
            nanosleep(&(const struct timespec){0, 40000000}, NULL);
        child = scratch_start(use, NULL, 0, 60);
        for (unsigned ms = 0; !atomic_load(&b->ready) && ms < 60000; ms++)
            nanosleep(&(const struct timespec){0, 1000000}, NULL);
        nanosleep(&(const struct timespec){0, (long)below(SPAN_US) * 1000}, NULL);
        harm();
        status = scratch_wait(child);
        if (status > 100 && status < 165)
            ended[status - 100]++;
        else if (status)
            fail_msg("trial %u: the process ended with %d", i, status);
        stuck += scratch_child(get_afterwards, NULL, 0, 60) != 0;
        restore();
    }
    printf(
        "%u trials, %lu gets, %lu of them afterwards: %lu accepted what was changed, %lu refused "
        "it, %lu wrong results\n",
        trials, b->gets, b->after, b->accepted, b->refused, b->wrong_after);
    printf("loaded before it was changed: %lu wrong results, SIGBUS %u, SIGSEGV %u, SIGILL %u, "
           "SIGABRT (by the engine) %u\n",
           b->wrong, ended[SIGBUS], ended[SIGSEGV], ended[SIGILL], ended[SIGABRT]);
    assert_int_equal(ended[SIGALRM], 0);
    assert_int_equal(b->accepted, 0);
    assert_int_equal(b->wrong_after, 0);
    assert_int_equal(stuck, 0);
    assert_true(b->refused > 0);
    munmap(b, sizeof(*b));
    close(lab.fd);
    free(lab.wasm);
    free(lab.copy);
    free(path);
    scratch_end(&lab.scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_changed_in_place_while_it_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
