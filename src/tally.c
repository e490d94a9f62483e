/* SPDX-License-Identifier: Apache-2.0 */
#include "tally.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <xxhash.h>

#include "number.h"

/* Where things are in a slot. What a later version appends is kept by this one. */
enum {
    SLOT = 2048,
    AT_MAGIC = 0,
    AT_SEQUENCE = 8,
    AT_SINCE = 16,
    AT_KNOWN = 24,
    AT_BYTES = 32,
    AT_ENTRIES = 40,
    AT_CLEANED = 48,
    AT_COUNTS = 64,
    AT_CHECK = SLOT - 8
};
_Static_assert(AT_COUNTS + 8 * WC_STAT_COUNT <= AT_CHECK, "the counters have room");

static const char magic[8] = {'w', 'c', 't', 'a', 'l', 'l', 'y', '1'};

/* How long to wait for the lock: all that is done under it is a read and a write. */
#define PATIENCE UINT64_C(2000000000)
#define POLL UINT64_C(500000)

struct slots {
    uint8_t bytes[2][SLOT];
    int newest; /* -1: none is sound */
};

static int is_sound(const uint8_t *slot)
{
    return memcmp(slot + AT_MAGIC, magic, sizeof(magic)) == 0 &&
           wc_get_number(slot + AT_CHECK, 8) == XXH3_64bits(slot, AT_CHECK);
}

/* Is `slot` written after `other`? Sequences go round, so that there is always a next one, whatever
 * is in a file. */
static int is_newer(const uint8_t *slot, const uint8_t *other)
{
    const uint64_t ahead =
        wc_get_number(slot + AT_SEQUENCE, 8) - wc_get_number(other + AT_SEQUENCE, 8);
    return ahead && ahead <= INT64_MAX;
}

static int read_slots(struct slots *out, int fd)
{
    int64_t n;
    memset(out->bytes, 0, sizeof(out->bytes));
    n = wc_os_pread(fd, out->bytes, sizeof(out->bytes), 0);
    if (n < 0)
        return (int)n;
    out->newest = -1;
    for (int i = 0; i < 2; i++) {
        const uint8_t *slot = out->bytes[i];
        if (is_sound(slot) && (out->newest < 0 || is_newer(slot, out->bytes[0])))
            out->newest = i;
    }
    return 0;
}

static void decode(struct wc_tally *out, const struct slots *slots)
{
    const uint8_t *slot;
    memset(out, 0, sizeof(*out));
    if (slots->newest < 0) {
        out->since = wc_os_wall_seconds();
        return;
    }
    slot = slots->bytes[slots->newest];
    out->since = wc_get_number(slot + AT_SINCE, 8);
    out->known = wc_get_number(slot + AT_KNOWN, 8) != 0;
    out->bytes = wc_get_number(slot + AT_BYTES, 8);
    out->entries = wc_get_number(slot + AT_ENTRIES, 8);
    out->cleaned = wc_get_number(slot + AT_CLEANED, 8);
    for (size_t i = 0; i < WC_STAT_COUNT; i++)
        out->counts[i] = wc_get_number(slot + AT_COUNTS + 8 * i, 8);
}

/* Into the slot that is not the newest. */
static int write_slot(int fd, struct slots *slots, const struct wc_tally *tally)
{
    const int to = slots->newest == 0;
    uint8_t *slot = slots->bytes[to];
    uint64_t sequence = 1;
    if (slots->newest >= 0) {
        const uint8_t *newest = slots->bytes[slots->newest];
        sequence = wc_get_number(newest + AT_SEQUENCE, 8) + 1;
        memcpy(slot, newest, SLOT);
    } else {
        memset(slot, 0, SLOT);
    }
    memcpy(slot + AT_MAGIC, magic, sizeof(magic));
    wc_put_number(slot + AT_SEQUENCE, sequence, 8);
    wc_put_number(slot + AT_SINCE, tally->since, 8);
    wc_put_number(slot + AT_KNOWN, (uint64_t)tally->known, 8);
    wc_put_number(slot + AT_BYTES, tally->bytes, 8);
    wc_put_number(slot + AT_ENTRIES, tally->entries, 8);
    wc_put_number(slot + AT_CLEANED, tally->cleaned, 8);
    for (size_t i = 0; i < WC_STAT_COUNT; i++)
        wc_put_number(slot + AT_COUNTS + 8 * i, tally->counts[i], 8);
    wc_put_number(slot + AT_CHECK, XXH3_64bits(slot, AT_CHECK), 8);
    return wc_os_pwrite(fd, slot, SLOT, (uint64_t)to * SLOT);
}

/* The file, if it is one that only we can have written. Negative errno; -EPERM: it is not. */
static int open_file(const struct wc_store *store, int dir, int create)
{
    struct wc_os_stat st;
    int rc,
        fd = create ? wc_os_open_update(dir, WC_TALLY_NAME) : wc_os_open_read(dir, WC_TALLY_NAME);
    if (fd == -ENOENT && create && !(store->flags & WASMCACHE_REPRODUCIBLE)) {
        fd = wc_os_create(dir, WC_TALLY_NAME);
        if (fd == -EEXIST)
            fd = wc_os_open_update(dir, WC_TALLY_NAME);
        else if (fd >= 0)
            (void)wc_os_chmod(fd, wc_gate_file_mode(&store->gate) | 0200);
    }
    if (fd < 0)
        return fd;
    rc = wc_os_fstat(fd, &st);
    if (rc == 0 && (st.type != WC_OS_FILE || !wc_gate_trusts(&store->gate, &st)))
        rc = -EPERM;
    if (rc == 0)
        return fd;
    wc_os_close(fd);
    return rc;
}

/* The bytes of the file that are locks. */
enum { LOCK_CHANGE, LOCK_EVICT };

/*
 * The descriptors with locks, and 1; 0 is a free place. The child of a fork finds here what it has
 * of its parent's threads. As a fork copies descriptors before memory, a number may by then be one
 * of the child's own: only the mark says whose it is. More than there are places for are not noted.
 */
static atomic_int locked[16];
enum { LOCKED = sizeof(locked) / sizeof(*locked) };

/* In the first place that has it. 0: there is none. */
static int replace(int old, int new)
{
    for (int i = 0; i < LOCKED; i++) {
        int expected = old;
        if (atomic_compare_exchange_strong(&locked[i], &expected, new))
            return 1;
    }
    return 0;
}

static void drop_inherited(void)
{
    for (int i = 0; i < LOCKED; i++) {
        int noted = atomic_load(&locked[i]);
        if (noted && wc_os_is_inherited(noted - 1) &&
            atomic_compare_exchange_strong(&locked[i], &noted, 0))
            wc_os_close(noted - 1);
    }
}

static int take_lock(int fd, int byte, uint64_t patience)
{
    const uint64_t until = wc_os_monotonic_ns() + patience;
    int rc;
    if (wc_os_mark(fd) == 0)
        (void)replace(0, fd + 1); /* before it has the lock: a fork may come at any time */
    while ((rc = wc_os_try_lock_byte(fd, (uint64_t)byte)) == -EWOULDBLOCK &&
           wc_os_monotonic_ns() < until) {
        drop_inherited();
        wc_os_sleep(POLL);
    }
    if (rc < 0)
        (void)replace(fd + 1, 0);
    return rc;
}

static void give_back(int fd, int byte)
{
    (void)replace(fd + 1, 0);
    wc_os_unlock_byte(fd, (uint64_t)byte);
}

static int failure(struct wc_error *err, const struct wc_store *store, int os, const char *call)
{
    if (os == -EPERM)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, store->dir,
                       "%s/" WC_TALLY_NAME
                       " is not a file that only this user can write; remove it",
                       store->dir);
    if (os == -EWOULDBLOCK)
        return wc_fail(err, WASMCACHE_EBUSY, 0, call, store->dir,
                       "Others keep %s/" WC_TALLY_NAME " locked", store->dir);
    return wc_fail(err, os == -ENOENT ? WASMCACHE_EMISS : wc_error_of_errno(os), os, call,
                   store->dir, "Cannot use %s/" WC_TALLY_NAME, store->dir);
}

static int open_tally(const struct wc_store *store, int create, struct wc_error *err)
{
    struct wc_gate_found found;
    int fd, dir = -1;
    int rc = wc_gate_open(&store->gate, store->dir, WC_GATE_LOOK, &dir, &found, err);
    if (rc < 0)
        return rc;
    fd = open_file(store, dir, create);
    wc_os_close(dir);
    return fd < 0 ? failure(err, store, fd, "open") : fd;
}

int wc_tally_read(struct wc_tally *out, const struct wc_store *store, struct wc_error *err)
{
    struct slots slots;
    int rc, fd = open_tally(store, 0, err);
    if (fd < 0)
        return fd;
    rc = read_slots(&slots, fd);
    wc_os_close(fd);
    if (rc < 0)
        return failure(err, store, rc, "pread");
    if (slots.newest < 0)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, store->dir, "%s/" WC_TALLY_NAME " is damaged",
                       store->dir);
    decode(out, &slots);
    return 0;
}

int wc_tally_update(const struct wc_store *store,
                    void (*change)(struct wc_tally *tally, void *payload), void *payload,
                    struct wc_tally *out, struct wc_error *err)
{
    const char *call = "fcntl";
    struct wc_tally tally;
    struct slots slots;
    int rc, fd = open_tally(store, 1, err);

    if (fd < 0)
        return fd;
    rc = take_lock(fd, LOCK_CHANGE, PATIENCE);
    if (rc == 0) {
        call = "pread";
        rc = read_slots(&slots, fd);
        if (rc == 0) {
            decode(&tally, &slots);
            change(&tally, payload);
            call = "pwrite";
            rc = write_slot(fd, &slots, &tally);
        }
        give_back(fd, LOCK_CHANGE);
    }
    wc_os_close(fd);
    if (rc < 0)
        return failure(err, store, rc, call);
    if (out)
        *out = tally;
    return 0;
}

int wc_tally_lock(struct wc_tally_lock *lock, const struct wc_store *store, uint64_t patience,
                  struct wc_error *err)
{
    int rc, fd = open_tally(store, 1, err);
    lock->fd = -1;
    if (fd < 0)
        return fd;
    rc = take_lock(fd, LOCK_EVICT, patience);
    if (rc < 0) {
        wc_os_close(fd);
        return failure(err, store, rc, "fcntl");
    }
    lock->fd = fd;
    return 0;
}

void wc_tally_unlock(struct wc_tally_lock *lock)
{
    if (lock->fd >= 0)
        give_back(lock->fd, LOCK_EVICT);
    wc_os_close(lock->fd);
    lock->fd = -1;
}
