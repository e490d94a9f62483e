/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is the files beside the entries that processes share, as somebody may have left them,
 * and what is then done: `.tally-1` (tally.c), into which the counters of a process go (stats.c),
 * and `.lock` in a namespace's folder (lock.c).
 *
 * Of the tally what is read must be what a second reader finds in the bytes; what was counted is
 * there afterwards, exactly once, in the slot that was not the newest; totals neither wrap nor go
 * below nothing. Of the lock no content and no size may keep a key from being locked, or let two
 * have it; its words decide no more than whether one that waited compiles too.
 *
 * No mutation gets past a check of 64 bits, so flags say of each slot whether its magic and check
 * are made right.
 *
 * covers: src/tally.c src/stats.c src/lock.c
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "cache.h"
#include "fuzz/fuzz.h"
#include "lock.h"
#include "number.h"
#include "tally.h"

enum { SLOT = 2048, TALLY = 2 * SLOT, LOCK_MAX = 8192, FOLDER_MODE = 0700 };

/* What the first byte says. */
enum {
    RIGHT_FIRST = 1,
    RIGHT_SECOND = 2,
    CUT = 4,      /* the tally is as long as is said */
    OPEN_TO = 8,  /* others may write to the tally */
    NO_FILE = 16, /* there is no tally */
    LOCK_OPEN_TO = 32,
    REPRODUCIBLE = 64,
    NO_LOCK_FILE = 128
};

/* What the second says is done. */
enum { TALLY_ONLY, LOCK_ONLY, BOTH };

struct input {
    unsigned flags, what;
    size_t tally_size;
    int64_t bytes, entries; /* what was published or removed */
    unsigned counter;
    uint64_t counted;
    uint64_t now;
    wasmcache_key key, other;
    uint8_t tally[TALLY], lock[LOCK_MAX];
    size_t lock_size;
};

static struct wasmcache cache;
static struct wc_folder folder = WC_FOLDER_INIT;

static void set_up(void)
{
    static const struct wc_folder closed = WC_FOLDER_INIT;
    if (cache.store.dir)
        return;
    cache.store.dir = (char *)(uintptr_t)fuzz_directory();
    cache.stats = wc_stats_new();
    must(cache.stats != NULL);
    folder = closed;
    must(mkdirat(fuzz_directory_fd(), "fuzz-v1", FOLDER_MODE) == 0);
    folder.fd = openat(fuzz_directory_fd(), "fuzz-v1", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(folder.fd >= 0);
    wc_os_settles_forced = 1;                             /* locks work, wherever this runs */
    wc_os_wall_forced = INT64_C(1700000000) * 1000000000; /* no tick while it runs */
}

/* ---- the second reader ---- */

FUZZ_ORACLE static int is_sound(const uint8_t *slot)
{
    return memcmp(slot, "wctally1", 8) == 0 &&
           wc_get_number(slot + SLOT - 8, 8) == XXH3_64bits(slot, SLOT - 8);
}

FUZZ_ORACLE static void make_right(uint8_t *slot)
{
    memcpy(slot, "wctally1", 8);
    wc_put_number(slot + SLOT - 8, XXH3_64bits(slot, SLOT - 8), 8);
}

/* The slot that counts, NULL: none. Sequences go round. */
FUZZ_ORACLE static const uint8_t *newest(const uint8_t tally[TALLY])
{
    const uint8_t *second = tally + SLOT;
    if (!is_sound(tally))
        return is_sound(second) ? second : NULL;
    if (!is_sound(second))
        return tally;
    return wc_get_number(second + 8, 8) - wc_get_number(tally + 8, 8) - 1 < INT64_MAX ? second
                                                                                      : tally;
}

/* What is in a slot; of none nothing. */
FUZZ_ORACLE static void read_slot(struct wc_tally *out, const uint8_t *slot)
{
    memset(out, 0, sizeof(*out));
    if (!slot)
        return;
    out->since = wc_get_number(slot + 16, 8);
    out->known = wc_get_number(slot + 24, 8) != 0;
    out->bytes = wc_get_number(slot + 32, 8);
    out->entries = wc_get_number(slot + 40, 8);
    out->cleaned = wc_get_number(slot + 48, 8);
    for (size_t i = 0; i < WC_STAT_COUNT; i++)
        out->counts[i] = wc_get_number(slot + 64 + 8 * i, 8);
}

FUZZ_ORACLE static int is_same(const struct wc_tally *a, const struct wc_tally *b)
{
    return a->since == b->since && a->known == b->known && a->bytes == b->bytes &&
           a->entries == b->entries && a->cleaned == b->cleaned &&
           memcmp(a->counts, b->counts, sizeof(a->counts)) == 0;
}

FUZZ_ORACLE static uint64_t moved(uint64_t value, int64_t by)
{
    if (by < 0)
        return value < (uint64_t)-by ? 0 : value - (uint64_t)-by;
    return value > UINT64_MAX - (uint64_t)by ? UINT64_MAX : value + (uint64_t)by;
}

/* All of the file, zeros behind its end; its size, -1: there is none. */
FUZZ_ORACLE static long read_file(int at, const char *name, void *out, size_t room)
{
    struct stat st;
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    memset(out, 0, room);
    if (fd < 0)
        return -1;
    must(pread(fd, out, room, 0) >= 0 && fstat(fd, &st) == 0);
    close(fd);
    return (long)st.st_size;
}

/* ---- the tally ---- */

static void check_read(const uint8_t tally[TALLY], int trusted, int missing)
{
    struct wc_tally found, expected;
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    rc = wc_tally_read(&found, &cache.store, &err);
    read_slot(&expected, newest(tally));
    if (missing || (trusted && !newest(tally)))
        must(rc == WASMCACHE_EMISS);
    else if (!trusted)
        must(rc == WASMCACHE_EUNTRUSTED);
    else
        must(rc == 0 && is_same(&found, &expected));
    must(rc == 0 || (err.error == rc && err.message[0]));
}

/* The right to evict is one's at a time, and keeps nobody from counting. */
static void check_evict_lock(int usable)
{
    struct wc_tally_lock first, second;
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    rc = wc_tally_lock(&first, &cache.store, 0, &err);
    must((rc == 0) == usable);
    if (rc == 0) {
        must(wc_tally_lock(&second, &cache.store, 0, &err) == WASMCACHE_EBUSY);
        wc_tally_unlock(&second);
        wc_tally_unlock(&first);
        must(wc_tally_lock(&second, &cache.store, 0, &err) == 0);
        wc_tally_unlock(&second);
    }
    wc_tally_unlock(&first);
}

static void check_count(const struct input *in, int trusted, int missing)
{
    uint8_t before[TALLY], after[TALLY];
    const uint8_t *was, *is;
    struct wc_tally expected, left, found;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    struct wc_error err;
    const int reproducible = (in->flags & REPRODUCIBLE) != 0;
    long size = read_file(fuzz_directory_fd(), WC_TALLY_NAME, before, sizeof(before));
    int rc;

    wc_error_init(&err);
    was = newest(before);
    read_slot(&expected, was);
    if (!was)
        expected.since = wc_os_wall_seconds();
    expected.counts[in->counter] += in->counted;
    expected.bytes = moved(expected.bytes, in->bytes);
    expected.entries = moved(expected.entries, in->entries);

    wc_stats_add(cache.stats, in->counter, in->counted);
    rc = wc_stats_flush(&cache, in->bytes, in->entries, &left, &err);
    if (!trusted || (missing && reproducible)) {
        must(rc == (missing ? WASMCACHE_EMISS : WASMCACHE_EUNTRUSTED));
        must(read_file(fuzz_directory_fd(), WC_TALLY_NAME, after, sizeof(after)) == size);
        must(memcmp(before, after, TALLY) == 0);
        /* It is not lost: it goes where it can, next time. */
        must(unlinkat(fuzz_directory_fd(), WC_TALLY_NAME, 0) == 0 || missing);
        cache.store.flags = 0;
        must(wc_stats_flush(&cache, 0, 0, &left, &err) == 0);
        must(left.counts[in->counter] == in->counted && !left.bytes && !left.entries);
        return;
    }
    must(rc == 0 && is_same(&left, &expected));
    must(wc_tally_read(&found, &cache.store, &err) == 0 && is_same(&found, &expected));

    must(read_file(fuzz_directory_fd(), WC_TALLY_NAME, after, sizeof(after)) >= SLOT);
    is = newest(after);
    must(is != NULL);
    if (was) { /* who dies while it writes leaves that one */
        must((was == before) != (is == after));
        must(memcmp(was, after + (was - before), SLOT) == 0);
        must(memcmp(was + 64 + 8 * WC_STAT_COUNT, is + 64 + 8 * WC_STAT_COUNT,
                    SLOT - 8 - 64 - 8 * WC_STAT_COUNT) == 0);
    }

    must(wasmcache_stats_read(&cache, WASMCACHE_STATS_DIRECTORY, &stats) == 0);
    must(stats.hits == expected.counts[WC_STAT_HITS] &&
         stats.misses[3] == expected.counts[WC_STAT_MISSES + 3] &&
         stats.compile_times[23] == expected.counts[WC_STAT_COMPILE_TIMES + 23]);
    must(stats.bytes == expected.bytes && stats.entries == expected.entries &&
         stats.known == expected.known && stats.since == expected.since);
    /* What was counted is counted once. */
    must(wc_stats_flush(&cache, 0, 0, &left, &err) == 0 && is_same(&left, &expected));
}

static void check_tally(const struct input *in)
{
    const int missing = (in->flags & NO_FILE) != 0;
    const int trusted = missing || !(in->flags & OPEN_TO);
    uint8_t tally[TALLY];

    (void)unlinkat(fuzz_directory_fd(), WC_TALLY_NAME, 0);
    cache.store.flags = in->flags & REPRODUCIBLE ? WASMCACHE_REPRODUCIBLE : 0;
    if (!missing)
        close(fuzz_plant(fuzz_directory_fd(), WC_TALLY_NAME, in->tally, in->tally_size,
                         trusted ? 0600 : 0666));
    (void)read_file(fuzz_directory_fd(), WC_TALLY_NAME, tally, sizeof(tally));
    check_read(tally, trusted, missing);
    check_count(in, trusted, missing);
    check_evict_lock(1);
}

/* ---- the lock ---- */

static int open_lock(struct wc_key_lock *lock, const wasmcache_key *key)
{
    return wc_key_lock_open(lock, &cache.store, &folder, WASMCACHE_MODULE, key);
}

static uint64_t hash_of(const wasmcache_key *key)
{
    return wc_get_number(key->bytes, 8);
}

/* One has it, the next does not, and after it was given back the next has it, or is told that the
 * first published nothing. */
static void check_turns(const struct input *in, int vain)
{
    uint8_t before[LOCK_MAX], after[LOCK_MAX];
    const size_t word = hash_of(&in->key) % 512 * 8;
    struct wc_key_lock a, b, c;
    uint64_t seen;
    long size = read_file(folder.fd, WC_LOCK_NAME, before, sizeof(before));

    must(open_lock(&a, &in->key) == 1 && open_lock(&b, &in->key) == 1);
    must(open_lock(&c, &in->other) == 1);
    must(wc_key_lock_try(&a, WC_LOCK_FIRST) == WC_LOCK_HELD);
    must(wc_key_lock_try(&b, WC_LOCK_FIRST) == WC_LOCK_BUSY);
    if (hash_of(&in->key) >> 3 != hash_of(&in->other) >> 3)
        must(wc_key_lock_try(&c, WC_LOCK_FIRST) == WC_LOCK_HELD);
    wc_key_lock_close(&c, 0);
    must(open_lock(&c, &in->key) == 1 && wc_key_lock_try(&c, WC_LOCK_SECOND) == WC_LOCK_HELD);
    wc_key_lock_close(&c, 0);

    seen = size >= (long)word + 8 ? wc_get_number(before + word, 8) : 0;
    wc_key_lock_close(&a, vain);
    must(wc_key_lock_try(&b, WC_LOCK_FIRST) ==
         (vain && in->now != seen ? WC_LOCK_VAIN : WC_LOCK_HELD));
    wc_key_lock_close(&b, 0);

    must(open_lock(&c, &in->key) == 1 && wc_key_lock_try(&c, WC_LOCK_FIRST) == WC_LOCK_HELD);
    wc_key_lock_close(&c, 0);
    must(a.fd == -1 && b.fd == -1 && c.fd == -1);
    must(wc_key_lock_try(&c, WC_LOCK_FIRST) == WC_LOCK_NONE);

    /* Of the file one word changed, if anything did. */
    must(read_file(folder.fd, WC_LOCK_NAME, after, sizeof(after)) ==
         (vain && size < (long)word + 8 ? (long)word + 8 : size));
    if (vain)
        wc_put_number(before + word, in->now, 8);
    must(memcmp(before, after, sizeof(before)) == 0);
}

static void check_lock(const struct input *in)
{
    struct wc_key_lock lock;
    const int trusted = !(in->flags & LOCK_OPEN_TO), missing = (in->flags & NO_LOCK_FILE) != 0;

    cache.store.flags = in->flags & REPRODUCIBLE ? WASMCACHE_REPRODUCIBLE : 0;
    wc_os_monotonic_forced = (int64_t)in->now;
    (void)unlinkat(folder.fd, WC_LOCK_NAME, 0);
    if (!missing)
        close(fuzz_plant(folder.fd, WC_LOCK_NAME, in->lock, in->lock_size, trusted ? 0600 : 0622));
    if (missing ? in->flags & REPRODUCIBLE : !trusted) {
        must(open_lock(&lock, &in->key) == 0);
        must(wc_key_lock_try(&lock, WC_LOCK_FIRST) == WC_LOCK_NONE);
        wc_key_lock_close(&lock, 1);
    } else {
        if (missing) { /* it makes one */
            must(open_lock(&lock, &in->key) == 1);
            wc_key_lock_close(&lock, 0);
        }
        check_turns(in, 0);
        check_turns(in, 1);
    }
    wc_os_monotonic_forced = -1;
}

/* ---- both ---- */

FUZZ_ORACLE static void take_apart(struct input *in, const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    size_t used[2], length;

    memset(in, 0, sizeof(*in));
    in->flags = (unsigned)fuzz_number(&input, 1);
    in->what = (unsigned)fuzz_number(&input, 1) % (BOTH + 1);
    length = (size_t)fuzz_number(&input, 2) % (TALLY + 512);
    used[0] = (size_t)fuzz_number(&input, 2) % (SLOT + 1);
    used[1] = (size_t)fuzz_number(&input, 2) % (SLOT + 1);
    /* As sizes of files are. */
    in->bytes = (int64_t)fuzz_number(&input, 8) / 2;
    in->entries = (int64_t)fuzz_number(&input, 8) / 2;
    in->counter = (unsigned)fuzz_number(&input, 1) % WC_STAT_COUNT;
    in->counted = fuzz_number(&input, 8);
    in->now = fuzz_number(&input, 8) >> 1;
    in->now += !in->now; /* no clock says nothing */
    in->key.algorithm = in->other.algorithm = WASMCACHE_KEY_SHA256;
    fuzz_bytes(&input, in->key.bytes, 8);
    fuzz_bytes(&input, in->other.bytes, 8);
    for (int i = 0; i < 2; i++) {
        fuzz_bytes(&input, in->tally + i * SLOT, used[i]);
        if (in->flags & (i ? RIGHT_SECOND : RIGHT_FIRST))
            make_right(in->tally + i * SLOT);
    }
    in->tally_size = in->flags & CUT && length < TALLY ? length : TALLY;
    in->lock_size = fuzz_bytes(&input, in->lock, sizeof(in->lock));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct input in;
    take_apart(&in, data, size);
    set_up();
    if (in.what != LOCK_ONLY)
        check_tally(&in);
    if (in.what != TALLY_ONLY)
        check_lock(&in);
    return 0;
}
