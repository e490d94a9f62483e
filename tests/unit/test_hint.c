/* SPDX-License-Identifier: Apache-2.0 */
/* The table of hints: what it gives back, who else's it does not believe, and that nothing that
 * happens to its file can make it say what nobody put there. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "hint.h"
#include "seam.h"
#include "support/scratch.h"

static const char *const names[] = {".hints-1-le", ".hints-1-be"};

struct lab {
    struct scratch s;
    char *dir;
    char *table; /* the file of this machine's byte order */
    char *other; /* of the other one */
    int fd;      /* of the directory */
    struct wc_hints hints;
    struct wc_hint_look look;
};

static void start(struct lab *l)
{
    wc_hints_init(&l->hints, 1);
    wc_hints_find_boot(&l->hints);
    wc_hint_look_start(&l->look, &l->hints);
    wc_hint_look_at(&l->look, l->fd, WC_HINT_INSIDE, (uint32_t)geteuid());
}

static void stop(struct lab *l)
{
    wc_hint_look_end(&l->look);
    wc_hints_release(&l->hints);
}

/* What another process would see: nothing in memory. */
static void again(struct lab *l)
{
    stop(l);
    start(l);
}

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    const uint16_t one = 1;
    const int little = *(const uint8_t *)&one;
    if (!l)
        return -1;
    scratch_init(&l->s);
    l->dir = scratch_in(&l->s, "cache");
    assert_int_equal(mkdir(l->dir, 0700), 0);
    l->table = scratch_in(&l->s, "cache/%s", names[!little]);
    l->other = scratch_in(&l->s, "cache/%s", names[little]);
    l->fd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(l->fd >= 0);
    start(l);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    seam_off();
    wc_os_lacking = 0;
    wc_os_wall_forced = -1;
    wc_os_settles_forced = -1;
    stop(l);
    close(l->fd);
    scratch_end(&l->s);
    free(l);
    return 0;
}

/* ---- hints that are a function of a number, so that any answer can be checked ---- */

static struct wc_hint_about about(uint64_t number)
{
    struct wc_os_stat st = {.dev = 1, .ino = number, .type = WC_OS_FILE};
    struct wc_hints fixed = {.has_boot = 1};
    struct wc_hint_about out;
    assert_int_equal(wc_hint_of_file(&out, &fixed, WC_HINT_SOURCE, &st), 1);
    return out;
}

static void value_of(uint8_t value[32], uint64_t number)
{
    for (unsigned i = 0; i < 32; i++)
        value[i] = (uint8_t)((number * 0x9E3779B97F4A7C15u + i) >> (i % 8 * 8));
}

static void put(struct lab *l, uint64_t number)
{
    const struct wc_hint_about it = about(number);
    uint8_t value[32];
    value_of(value, number);
    wc_hint_put_now(&l->look, &it, value);
}

/* 1: it is known, and right. */
static int has(struct lab *l, uint64_t number)
{
    const struct wc_hint_about it = about(number);
    struct wc_hint hint;
    uint8_t value[32];
    if (!wc_hint_get(&l->look, &it, &hint))
        return 0;
    value_of(value, number);
    assert_memory_equal(hint.value, value, sizeof(value));
    return 1;
}

/* ---- what it does ---- */

static void what_was_put_is_there_here_and_in_another_process(void **state)
{
    struct lab *l = *state;
    struct wc_hint_about it = about(7);
    struct wc_hint hint;
    assert_int_equal(has(l, 7), 0);
    assert_false(scratch_exists(l->table)); /* looking makes nothing */
    wc_os_wall_forced = INT64_C(1700000000) * 1000000000;
    put(l, 7);
    assert_int_equal(has(l, 7), 1);
    assert_int_equal(has(l, 8), 0);
    again(l);
    assert_int_equal(has(l, 7), 1);
    assert_int_equal(has(l, 8), 0);
    assert_int_equal(wc_hint_get(&l->look, &it, &hint), 1);
    assert_int_equal(hint.time, 1700000000);
    assert_int_equal(scratch_mode(l->table), 0600);
    /* It takes as much of the disk as is used of it. */
    struct stat st;
    assert_int_equal(stat(l->table, &st), 0);
    assert_true(st.st_blocks * 512 <= 65536);
}

static void beside_a_folder_it_is_the_same_table(void **state)
{
    struct lab *l = *state;
    int folder;
    assert_int_equal(mkdir(scratch_in(&l->s, "cache/ns-v1"), 0700), 0);
    folder = open(scratch_in(&l->s, "cache/ns-v1"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    put(l, 1);
    again(l);
    wc_hint_look_at(&l->look, folder, WC_HINT_BESIDE, (uint32_t)geteuid());
    assert_int_equal(has(l, 1), 1);
    put(l, 2);
    again(l);
    assert_int_equal(has(l, 2), 1);
    close(folder);
}

static void without_a_directory_it_lives_in_the_process(void **state)
{
    struct lab *l = *state;
    wc_hint_look_at(&l->look, -1, WC_HINT_INSIDE, 0);
    put(l, 1);
    assert_int_equal(has(l, 1), 1);
    assert_false(scratch_exists(l->table));
    again(l);
    assert_int_equal(has(l, 1), 0);
}

static void who_may_not_write_reads(void **state)
{
    struct lab *l = *state;
    put(l, 1);
    stop(l);
    wc_hints_init(&l->hints, 0);
    wc_hints_find_boot(&l->hints);
    wc_hint_look_start(&l->look, &l->hints);
    wc_hint_look_at(&l->look, l->fd, WC_HINT_INSIDE, (uint32_t)geteuid());
    put(l, 2);
    assert_int_equal(has(l, 2), 1); /* in the process */
    again(l);
    assert_int_equal(has(l, 1), 1);
    assert_int_equal(has(l, 2), 0);
}

static void later_values_replace_earlier_ones(void **state)
{
    struct lab *l = *state;
    const struct wc_hint_about it = about(1);
    struct wc_hint hint;
    uint8_t value[32] = {1};
    for (unsigned i = 0; i < 20; i++) {
        value[5] = (uint8_t)i;
        wc_hint_put_now(&l->look, &it, value);
        assert_int_equal(wc_hint_get(&l->look, &it, &hint), 1);
        assert_memory_equal(hint.value, value, sizeof(value));
        again(l);
        assert_int_equal(wc_hint_get(&l->look, &it, &hint), 1);
        assert_memory_equal(hint.value, value, sizeof(value));
    }
}

/* Nobody waits for what is only remembered. */
static void what_another_thread_is_at_is_left_to_it(void **state)
{
    struct lab *l = *state;
    stop(l);
    wc_hints_init(&l->hints, 0); /* without a file, so that it is seen what is in the process */
    wc_hint_look_start(&l->look, &l->hints);
    pthread_mutex_lock(&l->hints.lock);
    put(l, 1);
    pthread_mutex_unlock(&l->hints.lock);
    assert_int_equal(has(l, 1), 0);
    put(l, 1);
    assert_int_equal(has(l, 1), 1);
}

/* A set that is full forgets its oldest. */
static void the_newest_stay(void **state)
{
    struct lab *l = *state;
    struct wc_hint hint;
    enum { MANY = 24 };
    struct wc_hint_about same_set[MANY];
    uint8_t value[32] = {0};
    for (unsigned i = 0; i < MANY; i++) {
        same_set[i] = about(1); /* the first eight bytes say which set */
        same_set[i].id[15] = (uint8_t)i;
        value[0] = (uint8_t)i;
        wc_os_wall_forced = INT64_C(1000000000) * (1000 + i);
        wc_hint_put_now(&l->look, &same_set[i], value);
    }
    again(l);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(wc_hint_get(&l->look, &same_set[i], &hint), i >= MANY - 8);
        if (i >= MANY - 8)
            assert_int_equal(hint.value[0], i);
    }
}

/* ---- what a hint is about ---- */

static void each_part_of_a_files_identity_counts(void **state)
{
    struct lab *l = *state;
    const struct wc_os_stat st = {.dev = 1, .ino = 2, .size = 3, .mtime_ns = 4, .ctime_ns = 5};
    struct wc_hint_about all[8];
    struct wc_hints other = l->hints;
    struct wc_os_stat s;
    unsigned n = 0;
    assert_int_equal(l->hints.has_boot, 1);
#define ONE(change)                                                                                \
    s = st;                                                                                        \
    change;                                                                                        \
    assert_int_equal(wc_hint_of_file(&all[n++], &l->hints, WC_HINT_SOURCE, &s), 1)
    ONE(s.dev = 1);
    ONE(s.dev++);
    ONE(s.ino++);
    ONE(s.size++);
    ONE(s.mtime_ns++);
    ONE(s.ctime_ns++);
#undef ONE
    assert_int_equal(wc_hint_of_file(&all[n++], &l->hints, WC_HINT_VERIFIED, &st), 1);
    other.boot[15] ^= 1; /* the machine was started anew */
    assert_int_equal(wc_hint_of_file(&all[n++], &other, WC_HINT_SOURCE, &st), 1);
    for (unsigned i = 0; i < n; i++)
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(&all[i], &all[j], sizeof(all[i]));
}

static void without_a_boot_id_nothing_is_known_of_files(void **state)
{
    struct lab *l = *state;
    const struct wc_os_stat st = {.dev = 1};
    struct wc_hint_about ignored;
    wc_os_lacking = WC_OS_NO_PROC;
    again(l);
    assert_int_equal(wc_hint_of_file(&ignored, &l->hints, WC_HINT_SOURCE, &st), 0);
    wc_os_lacking = 0;
    seam_fail_call("boot_id", 1, EMFILE);
    again(l);
    seam_off();
    assert_int_equal(wc_hint_of_file(&ignored, &l->hints, WC_HINT_SOURCE, &st), 0);
}

static void a_file_is_settled_when_the_next_write_must_show(void **state)
{
    struct lab *l = *state;
    const int64_t second = 1000000000, now = 1000 * second;
    struct wc_os_stat st = {.mtime_ns = 0};
    wc_os_wall_forced = now;
    wc_os_settles_forced = 2 * second;
    st.ctime_ns = now - 2 * second;
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 1);
    st.ctime_ns++;
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 0);
    wc_os_settles_forced = second / 50;
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 1);
    st.ctime_ns = now - second / 50 + 1;
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 0);
    st.ctime_ns = now + 3600 * second; /* the clock was set back since */
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 0);
    st.ctime_ns = now - 3600 * second;
    st.mtime_ns = now + 1;
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 0);
    st.mtime_ns = 0;
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 1);
    wc_os_settles_forced = 0; /* a server's */
    assert_int_equal(wc_hint_is_settled(l->fd, &st), 0);
}

static void this_machines_file_systems_are_known(void **state)
{
    struct lab *l = *state;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(wc_os_settles_after_ns(l->fd) > 0);
    assert_int_equal(wc_os_settles_after_ns(proc), 0);
    assert_int_equal(wc_os_settles_after_ns(-1), 0);
    close(proc);
}

/* ---- tables that are not ours ---- */

static void another_users_table_is_not_believed(void **state)
{
    struct lab *l = *state;
    put(l, 1);
    again(l);
    wc_hint_look_at(&l->look, l->fd, WC_HINT_INSIDE, (uint32_t)geteuid() + 1);
    assert_int_equal(has(l, 1), 0);
}

static void a_table_of_another_byte_order_or_version_is_not_touched(void **state)
{
    struct lab *l = *state;
    const char *newer = scratch_in(&l->s, "cache/.hints-2-le");
    scratch_write(l->other, "theirs", 6, 0600);
    scratch_write(newer, "theirs", 6, 0600);
    put(l, 1);
    again(l);
    assert_int_equal(has(l, 1), 1);
    for (int i = 0; i < 2; i++) {
        size_t size;
        uint8_t *bytes = scratch_read(i ? newer : l->other, &size);
        assert_int_equal(size, 6);
        assert_memory_equal(bytes, "theirs", 6);
        free(bytes);
    }
}

static void put_socket(const struct lab *l)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && strlen(l->table) < sizeof(address.sun_path));
    strcpy(address.sun_path, l->table);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

/* A good one in all but whose it is. */
static void put_table_of_another(struct lab *l)
{
    again(l);
    put(l, 2);
    assert_int_equal(chown(l->table, 4242, (gid_t)-1), 0);
}

static void what_lies_in_its_place_is_not_written_through(void **state)
{
    struct lab *l = *state;
    const char *victim = scratch_in(&l->s, "victim");
    size_t size;
    for (int kind = 0; kind < 7; kind++) {
        if (kind == 6 && !scratch_is_root("another user's table"))
            continue;
        scratch_write(victim, "precious", 8, 0600);
        scratch_remove(l->table);
        if (kind == 0)
            assert_int_equal(symlink(victim, l->table), 0);
        else if (kind == 1)
            assert_int_equal(link(victim, l->table), 0);
        else if (kind == 2)
            assert_int_equal(mkfifo(l->table, 0600), 0);
        else if (kind == 3)
            assert_int_equal(mkdir(l->table, 0700), 0);
        else if (kind == 4)
            scratch_write(l->table, "rubbish", 7, 0666);
        else if (kind == 5)
            put_socket(l);
        else
            put_table_of_another(l);
        again(l);
        assert_int_equal(has(l, 1), 0);
        put(l, 1);
        again(l);
        /* A folder stays, and there is no table; all else gives way. */
        assert_int_equal(has(l, 1), kind != 3);
        uint8_t *bytes = scratch_read(victim, &size);
        assert_int_equal(size, 8);
        assert_memory_equal(bytes, "precious", 8);
        free(bytes);
    }
}

/* ---- damage ---- */

enum { TRIES = 400, KNOWN = 50 };

static void fill(struct lab *l)
{
    scratch_remove(l->table);
    again(l);
    for (uint64_t i = 0; i < KNOWN; i++)
        put(l, i);
    again(l);
}

static unsigned count(struct lab *l)
{
    unsigned known = 0;
    for (uint64_t i = 0; i < KNOWN; i++)
        known += (unsigned)has(l, i); /* and what it says is right */
    for (uint64_t i = KNOWN; i < 2 * (uint64_t)KNOWN; i++)
        assert_int_equal(has(l, i), 0);
    return known;
}

static void cut_anywhere_it_says_less_but_nothing_wrong(void **state)
{
    struct lab *l = *state;
    struct stat st;
    fill(l);
    assert_int_equal(count(l), KNOWN);
    assert_int_equal(stat(l->table, &st), 0);
    for (unsigned i = 0; i < TRIES; i++) {
        const off_t length = (off_t)((uint64_t)st.st_size * (TRIES - 1 - i) / TRIES) + i % 64;
        fill(l);
        assert_int_equal(truncate(l->table, length), 0);
        (void)count(l);
        put(l, 3); /* and goes on */
        again(l);
        assert_int_equal(has(l, 3), 1);
    }
}

static void noise_is_no_hint(void **state)
{
    struct lab *l = *state;
    static uint8_t noise[1 << 16];
    srandom(4);
    fill(l);
    for (unsigned i = 0; i < TRIES; i++) {
        int fd = open(l->table, O_WRONLY | O_CLOEXEC);
        for (size_t b = 0; b < sizeof(noise); b++)
            noise[b] = (uint8_t)random();
        assert_true(fd >= 0);
        /* All over it, in pieces, the slots that are in use among them. */
        for (off_t at = i; at < 4200000; at += (off_t)sizeof(noise))
            assert_true(pwrite(fd, noise, sizeof(noise) - i % 3 * 20000, at) > 0);
        close(fd);
        again(l);
        assert_int_equal(count(l), 0);
        put(l, 1);
        again(l);
        assert_int_equal(has(l, 1), 1);
        if (i == 20)
            break; /* 4 MB each */
    }
}

static void one_bit_is_enough_to_forget(void **state)
{
    struct lab *l = *state;
    struct wc_hint_about it = about(1);
    uint64_t number, offset;
    fill(l);
    memcpy(&number, it.id, sizeof(number));
    offset = 4096 + number % 8192 * 512;
    for (unsigned bit = 0; bit < 512; bit++) {
        scratch_remove(l->table);
        again(l);
        put(l, 1);
        again(l);
        assert_int_equal(has(l, 1), 1);
        again(l);
        scratch_flip(l->table, offset * 8 + bit);
        assert_int_equal(has(l, 1), 0);
    }
}

static void every_failure_costs_time_only(void **state)
{
    struct lab *l = *state;
    static const int errors[] = {EIO, ENOSPC, EACCES, EMFILE, ENOMEM};
    const unsigned before = scratch_descriptors();
    unsigned points = 0;
    for (unsigned e = 0; e < sizeof(errors) / sizeof(*errors); e++)
        for (int there = 0; there < 2; there++)
            for (unsigned nth = 1;; nth++, points++) {
                scratch_remove(l->table);
                again(l);
                if (there) {
                    put(l, 1);
                    again(l);
                }
                seam_fail(nth, errors[e], 0);
                (void)has(l, 1);
                put(l, 2);
                (void)has(l, 2);
                wc_hint_look_end(&l->look);
                seam_off();
                assert_int_equal(scratch_descriptors(), before);
                again(l);
                put(l, 3);
                again(l);
                assert_int_equal(has(l, 3), 1);
                if (!seam_met())
                    break;
            }
    printf("%u points\n", points);
    assert_true(points > 50);
}

static void a_limit_on_file_sizes_is_not_met(void **state)
{
    struct lab *l = *state;
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (uint64_t i = 0; i < 100; i++)
        put(l, i); /* SIGXFSZ would end us */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_false(scratch_exists(l->table));
}

/* ---- many at a time ---- */

enum { PROCESSES = 8, NUMBERS = 4000 };

struct crowd {
    struct lab *l;
    unsigned seed, operations;
};

static int member(void *argument)
{
    struct crowd *c = argument;
    struct lab *l = c->l;
    unsigned seed = c->seed;
    start(l);
    for (unsigned i = 0; i < c->operations; i++) {
        const uint64_t number = (uint64_t)rand_r(&seed) % NUMBERS;
        switch (rand_r(&seed) % 64) {
        case 0:
            again(l);
            break;
        case 1:
            if (rand_r(&seed) % 200 == 0)
                (void)unlink(l->table);
            else if (rand_r(&seed) % 200 == 0 && truncate(l->table, rand_r(&seed) % 4000000) < 0)
                assert_int_equal(errno, ENOENT);
            break;
        default:
            if (rand_r(&seed) % 3)
                (void)has(l, number); /* fails here if it is wrong */
            else
                put(l, number);
            wc_hint_look_end(&l->look);
            wc_hint_look_start(&l->look, &l->hints);
            wc_hint_look_at(&l->look, l->fd, WC_HINT_INSIDE, (uint32_t)geteuid());
        }
    }
    stop(l);
    return 0;
}

/* One million with the argument "everything". */
static unsigned operations = 200000;

static void nothing_wrong_is_read_while_others_write_and_die(void **state)
{
    struct lab *l = *state;
    const unsigned rounds = 10, each = operations / rounds / PROCESSES;
    unsigned killed = 0, known = 0;
    srandom(11);
    for (unsigned round = 0; round < rounds; round++) {
        struct crowd crowd[PROCESSES];
        pid_t child[PROCESSES];
        for (unsigned i = 0; i < PROCESSES; i++) {
            crowd[i] = (struct crowd){l, round * PROCESSES + i + 1, each};
            child[i] = scratch_start(member, &crowd[i], 0, 120);
        }
        /* Half of them do not come to their end. */
        for (unsigned i = 0; i < PROCESSES / 2; i++) {
            usleep((useconds_t)(random() % 20000));
            killed += kill(child[i], SIGKILL) == 0;
        }
        for (unsigned i = 0; i < PROCESSES; i++) {
            const int status = scratch_wait(child[i]);
            assert_true(status == 0 || (i < PROCESSES / 2 && status == 100 + SIGKILL));
        }
        again(l);
        for (uint64_t i = 0; i < NUMBERS; i++)
            known += (unsigned)has(l, i);
    }
    printf("%u operations of %d processes, %u killed, %u hints read afterwards, none wrong\n",
           operations, PROCESSES, killed, known);
    assert_true(known > 0);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_was_put_is_there_here_and_in_another_process),
        TEST(beside_a_folder_it_is_the_same_table),
        TEST(without_a_directory_it_lives_in_the_process),
        TEST(who_may_not_write_reads),
        TEST(later_values_replace_earlier_ones),
        TEST(what_another_thread_is_at_is_left_to_it),
        TEST(the_newest_stay),
        TEST(each_part_of_a_files_identity_counts),
        TEST(without_a_boot_id_nothing_is_known_of_files),
        TEST(a_file_is_settled_when_the_next_write_must_show),
        TEST(this_machines_file_systems_are_known),
        TEST(another_users_table_is_not_believed),
        TEST(a_table_of_another_byte_order_or_version_is_not_touched),
        TEST(what_lies_in_its_place_is_not_written_through),
        TEST(cut_anywhere_it_says_less_but_nothing_wrong),
        TEST(noise_is_no_hint),
        TEST(one_bit_is_enough_to_forget),
        TEST(every_failure_costs_time_only),
        TEST(a_limit_on_file_sizes_is_not_met),
        TEST(nothing_wrong_is_read_while_others_write_and_die),
    };
    if (argc > 1 && strcmp(argv[1], "everything") == 0)
        operations = 1000000;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
