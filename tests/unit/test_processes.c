/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many processes on one key: savers, readers, one that swaps in bad entries, one that removes, one
 * that cleans up, and killed ones. Bounded by counts, not by time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "seam.h"
#include "spoil.h"
#include "support/rig.h"

static const char wasm[] = "the module that all want";

enum { SAVERS = 16, SAVES = 60, READERS = 4 };

/* What the processes tell each other. */
struct board {
    atomic_uint ready, savers_left;
    atomic_uint reads, hits, misses, damaged, busy, spoilt;
    atomic_int go;
    atomic_ulong first_inode;
    atomic_uint inodes; /* how often a reader saw another than the first */
};

struct part {
    struct rig *r;
    struct board *board;
    unsigned lacking;
    int saves;
    int spoiling; /* bad entries are swapped in */
};

static void wait_for_all(struct board *board)
{
    atomic_fetch_add(&board->ready, 1);
    while (!atomic_load(&board->go))
        usleep(200);
}

/* The entry's inode is the first one that anybody saw, or one more is counted. */
static void see_inode(const struct part *p)
{
    struct stat st;
    unsigned long none = 0;
    if (lstat(rig_entry(p->r, wasm), &st) < 0)
        return;
    if (!atomic_compare_exchange_strong(&p->board->first_inode, &none, (unsigned long)st.st_ino) &&
        none != (unsigned long)st.st_ino)
        atomic_fetch_add(&p->board->inodes, 1);
}

static int be_saver(void *argument)
{
    struct part *p = argument;
    struct rig *r = p->r;
    wc_os_lacking = p->lacking;
    rig_open(r);
    wait_for_all(p->board);
    for (int i = 0; i < p->saves; i++) {
        int rc = rig_save(r, wasm, NULL);
        /* Somebody who spoils without end may keep it from its turn. */
        if (rc && !(p->spoiling && rc == WASMCACHE_EBUSY))
            fail_msg("save %d: %s", i, wasmcache_last_error()->message);
        see_inode(p);
        if (i % 8 == 0)
            assert_int_equal(rig_get(r, wasm, NULL), 0);
    }
    rig_close(r);
    atomic_fetch_sub(&p->board->savers_left, 1);
    if (fake_engine_complaint(&r->engine))
        fail_msg("%s", fake_engine_complaint(&r->engine));
    return 0;
}

static int be_reader(void *argument)
{
    struct part *p = argument;
    struct rig *r = p->r;
    rig_open(r);
    wait_for_all(p->board);
    while (atomic_load(&p->board->savers_left)) {
        const int was_there = atomic_load(&p->board->first_inode) != 0;
        int rc = rig_load(r, wasm, NULL); /* which fails the test for a wrong module */
        atomic_fetch_add(&p->board->reads, 1);
        if (rc == 0)
            atomic_fetch_add(&p->board->hits, 1);
        else if (rc == WASMCACHE_EMISS && (!was_there || p->spoiling))
            atomic_fetch_add(&p->board->misses, 1);
        else if (rc == WASMCACHE_ECORRUPT && p->spoiling)
            atomic_fetch_add(&p->board->damaged, 1);
        else if (rc == WASMCACHE_EBUSY)
            atomic_fetch_add(&p->board->busy, 1);
        else
            fail_msg("load: %s", wasmcache_last_error()->message);
    }
    rig_close(r);
    if (fake_engine_complaint(&r->engine))
        fail_msg("%s", fake_engine_complaint(&r->engine));
    return 0;
}

static int be_spoiler(void *argument)
{
    struct part *p = argument;
    size_t size;
    uint8_t *bytes = scratch_read(scratch_in(&p->r->scratch, "bad"), &size);
    char *path = rig_entry(p->r, wasm); /* before the others: the rig is open here */
    wait_for_all(p->board);
    while (atomic_load(&p->board->savers_left)) {
        char *folder = strdup(path);
        *strrchr(folder, '/') = '\0';
        if (scratch_exists(folder)) {
            scratch_write(path, bytes, size, 0400);
            atomic_fetch_add(&p->board->spoilt, 1);
        }
        free(folder);
        usleep(300);
    }
    free(bytes);
    return 0;
}

static int be_cleaner(void *argument)
{
    struct part *p = argument;
    rig_open(p->r);
    wait_for_all(p->board);
    while (atomic_load(&p->board->savers_left)) {
        if (wasmcache_clean(p->r->cache, NULL) != 0)
            fail_msg("clean: %s", wasmcache_last_error()->message);
        usleep(500);
    }
    rig_close(p->r);
    return 0;
}

static int be_remover(void *argument)
{
    struct part *p = argument;
    wasmcache_key key = rig_key(wasm);
    char *ns;
    rig_open(p->r);
    ns = scratch_text(&p->r->scratch, "%s", rig_namespace(p->r));
    wait_for_all(p->board);
    while (atomic_load(&p->board->savers_left)) {
        int rc = wasmcache_remove(p->r->cache, ns, &key);
        if (rc && rc != WASMCACHE_EMISS)
            fail_msg("remove: %s", wasmcache_last_error()->message);
        usleep(700);
    }
    rig_close(p->r);
    return 0;
}

/* Runs the parts together and waits for all. */
static void run(struct part *part, int (*const *bodies)(void *), unsigned count)
{
    pid_t children[32];
    assert_true(count <= 32);
    for (unsigned i = 0; i < count; i++)
        children[i] = scratch_start(bodies[i], part, 0, 50);
    while (atomic_load(&part->board->ready) < count)
        usleep(500);
    atomic_store(&part->board->go, 1);
    for (unsigned i = 0; i < count; i++) {
        int status = scratch_wait(children[i]);
        if (status)
            fail_msg("process %u: %d", i, status);
    }
}

static struct board *board_new(unsigned savers)
{
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(board, MAP_FAILED);
    memset(board, 0, sizeof(*board));
    atomic_store(&board->savers_left, savers);
    return board;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    rig_init(r);
    r->engine.artifact_size = 20000;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    wc_os_lacking = 0;
    rig_end(r);
    free(r);
    return 0;
}

static void nothing_is_left(struct rig *r, int before_clean_up)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    wasmcache_key key = rig_key(wasm);
    const char *ns = rig_namespace(r);
    if (!before_clean_up)
        assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
    assert_string_equal(scratch_tree(&r->scratch, r->dir),
                        scratch_text(&r->scratch, "CACHEDIR.TAG\n%s/\n%s/%s.bin\n", ns, ns,
                                     wasmcache_key_to_hex(hex, &key)));
}

static void all_save_one_key(struct rig *r, unsigned lacking)
{
    int (*bodies[SAVERS + READERS])(void *);
    struct board *board = board_new(SAVERS);
    struct part part = {r, board, lacking, SAVES, 0};

    for (unsigned i = 0; i < SAVERS; i++)
        bodies[i] = be_saver;
    for (unsigned i = 0; i < READERS; i++)
        bodies[SAVERS + i] = be_reader;
    run(&part, bodies, SAVERS + READERS);
    rig_open(r);
    /* One inode for good: the first one that had the name. */
    assert_int_equal(board->inodes, 0);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), board->first_inode);
    assert_int_equal(board->busy, 0);
    assert_int_equal(board->hits + board->misses, board->reads);
    nothing_is_left(r, 1);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    rig_close(r);
    printf("%d processes, %d saves: one inode, 0 wrong of %u reads, %u of them hits\n", SAVERS,
           SAVERS * SAVES, board->reads, board->hits);
    munmap(board, sizeof(*board));
}

static void sixteen_save_one_key_and_four_read(void **state)
{
    all_save_one_key(*state, 0);
}

static void and_with_named_temporary_files(void **state)
{
    all_save_one_key(*state, WC_OS_NO_TMPFILE);
}

static void with_bad_entries_swapped_in(void **state)
{
    struct rig *r = *state;
    int (*bodies[10])(void *);
    static const unsigned lacking[] = {0, WC_OS_NO_TMPFILE};

    rig_open(r);
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
    assert_int_equal(rename(rig_entry(r, wasm), scratch_in(&r->scratch, "bad")), 0);
    for (size_t v = 0; v < 2; v++) {
        struct board *board = board_new(4);
        struct part part = {r, board, lacking[v], 500, 1};
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        for (unsigned i = 0; i < 4; i++)
            bodies[i] = be_saver;
        bodies[4] = bodies[5] = be_reader;
        bodies[6] = be_cleaner;
        bodies[7] = be_remover;
        bodies[8] = be_spoiler;
        run(&part, bodies, 9);
        assert_true(board->spoilt > 0);
        /* Whatever is there now: one get makes it good. */
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(rig_load(r, wasm, NULL), 0);
        nothing_is_left(r, 0);
        printf("%u bad entries swapped in: 0 wrong of %u reads, %u damaged ones seen, %u busy\n",
               board->spoilt, board->reads, board->damaged, board->busy);
        munmap(board, sizeof(*board));
    }
}

/* ---- killed at random ---- */

static int save_without_end(void *argument)
{
    struct part *p = argument;
    wc_os_lacking = p->lacking;
    rig_open(p->r);
    for (int i = 0; i < 1000000; i++) {
        wasmcache_key key = rig_key(wasm);
        (void)rig_get_with(p->r, wasm, WASMCACHE_GET_RECOMPILE, NULL);
        (void)wasmcache_remove(p->r->cache, rig_namespace(p->r), &key);
        (void)rig_get(p->r, wasm, NULL);
    }
    return 0;
}

static void killed_ones_leave_nothing_for_long(void **state)
{
    struct rig *r = *state;
    static const unsigned lacking[] = {0, WC_OS_NO_TMPFILE};
    unsigned kills = 0, left = 0, seed = 12345;

    r->engine.artifact_size = 300000;
    rig_open(r);
    for (size_t v = 0; v < 2; v++) {
        for (unsigned i = 0; i < 50; i++) {
            struct part part = {r, NULL, lacking[v], 0, 0};
            pid_t children[2];
            for (int c = 0; c < 2; c++)
                children[c] = scratch_start(save_without_end, &part, 0, 30);
            seed = seed * 1103515245u + 12345u;
            usleep(1000 + seed / 65536u % 4000);
            for (int c = 0; c < 2; c++) {
                kill(children[c], SIGKILL);
                assert_int_equal(scratch_wait(children[c]), 100 + SIGKILL);
                kills++;
            }
            left += strstr(scratch_tree(&r->scratch, r->dir), "/.") != NULL;
            /* The next save works at once, and then the key can be used. */
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            assert_int_equal(rig_load(r, wasm, NULL), 0);
            nothing_is_left(r, 0);
        }
    }
    printf("%u processes killed: %u times files were left, 0 after a clean-up\n", kills, left);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(sixteen_save_one_key_and_four_read),
        TEST(and_with_named_temporary_files),
        TEST(with_bad_entries_swapped_in),
        TEST(killed_ones_leave_nothing_for_long),
    };
    return cmocka_run_group_tests_name("processes", tests, NULL, NULL);
}
