/* SPDX-License-Identifier: Apache-2.0 */
#include "lock.h"

#include <errno.h>
#include <string.h>

#include "number.h"

enum { WORDS = 512 };
#define WORDS_SIZE ((uint64_t)WORDS * 8)

/* What others could write to would be a lock of theirs. */
static int is_ours(struct wc_key_lock *lock, const struct wc_store *store)
{
    struct wc_os_stat st;
    if (wc_os_fstat(lock->fd, &st) < 0 || st.type != WC_OS_FILE ||
        !wc_gate_trusts(&store->gate, &st))
        return 0;
    lock->dev = st.dev;
    lock->ino = st.ino;
    return wc_os_settles_after_ns(lock->fd) > 0; /* a local file system */
}

/* The words are there before they are needed, so that a full disk does not lack them then. */
static int create(int folder)
{
    static const uint8_t words[WORDS_SIZE];
    int fd = wc_os_create(folder, WC_LOCK_NAME);
    if (fd >= 0 && (wc_os_chmod(fd, 0600) < 0 || wc_os_pwrite(fd, words, sizeof(words), 0) < 0)) {
        /* It works without: a word that is missing reads as nothing. */
    }
    return fd;
}

int wc_key_lock_open(struct wc_key_lock *lock, const struct wc_store *store,
                     const struct wc_folder *folder, wasmcache_kind kind, const wasmcache_key *key)
{
    /* A module and a component of the same bytes have nothing to wait for. */
    const uint64_t hash =
        wc_get_number(key->bytes, 8) ^ (kind == WASMCACHE_COMPONENT ? UINT64_C(1) << 63 : 0);
    const struct wc_key_lock closed = WC_KEY_LOCK_INIT;

    *lock = closed;
    lock->fd = wc_os_open_update(folder->fd, WC_LOCK_NAME);
    if (lock->fd == -ENOENT && !(store->flags & WASMCACHE_REPRODUCIBLE))
        lock->fd = create(folder->fd);
    if (lock->fd == -EEXIST)
        lock->fd = wc_os_open_update(folder->fd, WC_LOCK_NAME);
    if (lock->fd >= 0 && is_ours(lock, store)) {
        lock->word = hash % WORDS * 8;
        lock->offset = WORDS_SIZE + (hash >> 3) * 2; /* below 2^62, as off_t has to be */
        return 1;
    }
    wc_os_close(lock->fd);
    lock->fd = -1;
    return 0;
}

static uint64_t read_word(const struct wc_key_lock *lock)
{
    uint8_t word[8];
    return wc_os_pread(lock->fd, word, sizeof(word), lock->word) == sizeof(word)
               ? wc_get_number(word, 8)
               : 0;
}

static void write_word(const struct wc_key_lock *lock)
{
    uint8_t word[8];
    wc_put_number(word, wc_os_monotonic_ns(), 8);
    (void)wc_os_pwrite(lock->fd, word, sizeof(word), lock->word);
}

enum wc_lock_result wc_key_lock_try(struct wc_key_lock *lock, enum wc_lock_byte byte)
{
    int rc;
    if (lock->fd < 0)
        return WC_LOCK_NONE;
    rc = wc_os_try_lock_byte(lock->fd, lock->offset + byte);
    if (rc == -EWOULDBLOCK) {
        if (!lock->waited)
            lock->seen = read_word(lock);
        lock->waited = 1;
        return WC_LOCK_BUSY;
    }
    if (rc < 0)
        return WC_LOCK_NONE;
    if (!lock->waited || read_word(lock) == lock->seen) {
        lock->held = 1 + (int)byte;
        return WC_LOCK_HELD;
    }
    wc_os_unlock_byte(lock->fd, lock->offset + byte);
    return WC_LOCK_VAIN;
}

/* A host that closed all its descriptors meanwhile closed this one too, and may have given its
 * number to something of its own. */
static int is_still_open(const struct wc_key_lock *lock)
{
    struct wc_os_stat st;
    int rc = wc_os_fstat(lock->fd, &st);
    return rc == 0 ? st.dev == lock->dev && st.ino == lock->ino : rc != -EBADF;
}

void wc_key_lock_close(struct wc_key_lock *lock, int vain)
{
    if (lock->fd >= 0 && is_still_open(lock)) {
        if (lock->held && vain)
            write_word(lock);
        /* Not by closing alone: the child of a fork has the description too. */
        if (lock->held)
            wc_os_unlock_byte(lock->fd, lock->offset + (uint64_t)lock->held - 1);
        wc_os_close(lock->fd);
    }
    lock->fd = -1;
    lock->held = 0;
}
