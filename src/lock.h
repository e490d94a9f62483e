/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_LOCK_H
#define WC_LOCK_H

/*
 * Which process of the host compiles a key: a lock on one byte of the file ".lock" in the
 * namespace's folder.
 *
 *     wc_key_lock_open(&lock, store, &folder, kind, &key);
 *     while ((rc = wc_key_lock_try(&lock, WC_LOCK_FIRST)) == WC_LOCK_BUSY) ... wait a little
 *     ... compile, publish
 *     wc_key_lock_close(&lock, vain);
 *
 * The file holds no state that could be stale: a lock ends with the process that has it, and the
 * file is never removed, so that all lock the same. Each lock is of an open file description of its
 * own, and so keeps threads apart too. Where there are no such locks, or nobody knows that they
 * work (file systems that a server or another process serves), each process is on its own.
 *
 * The first 4 KiB are 512 words: who had a lock and published nothing writes a time to the key's
 * word, so that those who waited for it do not try one after the other.
 *
 * Two bytes a key: the first is held by who compiles. Whoever waited for it in vain for as long as
 * it may goes for the second, so that a holder that is stopped, or a child of a dead one, which
 * still has its descriptor, costs one compile more and not one for each that waits.
 */

#include "store_dir.h"

#define WC_LOCK_NAME ".lock"

enum wc_lock_byte { WC_LOCK_FIRST = 0, WC_LOCK_SECOND = 1 };

enum wc_lock_result {
    WC_LOCK_HELD,
    WC_LOCK_BUSY,
    WC_LOCK_VAIN, /* who had it meanwhile published nothing; it is not held */
    WC_LOCK_NONE  /* there are no locks here */
};

struct wc_key_lock {
    int fd; /* -1: not open */
    uint64_t dev, ino;
    uint64_t offset; /* of the key's first byte */
    uint64_t word;   /* offset of its word */
    uint64_t seen;   /* the word when it was found busy first */
    int waited;
    int held; /* 1 + enum wc_lock_byte; 0: none */
};
#define WC_KEY_LOCK_INIT                                                                           \
    {                                                                                              \
        -1, 0, 0, 0, 0, 0, 0, 0                                                                    \
    }

/* Makes the file if it is missing, but not in a reproducible cache. 0: there are no locks here. */
int wc_key_lock_open(struct wc_key_lock *lock, const struct wc_store *store,
                     const struct wc_folder *folder, wasmcache_kind kind, const wasmcache_key *key);
enum wc_lock_result wc_key_lock_try(struct wc_key_lock *lock, enum wc_lock_byte byte);
/* Gives back what is held. `vain`: nothing was published, and would not be the next time either.
 * Also when it is not open; then nothing happens. */
void wc_key_lock_close(struct wc_key_lock *lock, int vain);

#endif
