/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_LATER_H
#define WC_LATER_H

/*
 * Saves that a worker does after the get has returned.
 *
 *     if (wc_later_save(&call, &key, native, &lock) != 0)
 *         wc_save(&call, &key, native, &err);           // not taken: do it now
 *     wc_later_wait_attachment(attachment);             // before it ends
 *     wc_later_wait(&cache->later);
 *
 * A save that was taken is done, whatever becomes of the executor; only the end of the process
 * loses it. How many may wait is bounded, in number and in bytes of wasm: who is over the bound
 * saves by itself, which is what slows it down.
 */

#include "call.h"
#include "lock.h"

/* 0: it was taken, and `lock` with it, which is given back when it is done. 1: it has to be done
 * now: there is no executor, this is the child of a fork, the engine cannot clone, too many wait,
 * or there is no memory. */
int wc_later_save(const struct wc_call *call, const wasmcache_key *key, void *native,
                  struct wc_key_lock *lock);

/* Is that module on its way already? Then *native is a clone, and *report what its get said, unless
 * it is of another attachment or there is no memory. */
int wc_later_find(const struct wc_call *call, const wasmcache_key *key, void **native,
                  wasmcache_report *report);

void wc_later_init(struct wc_later *later, const wasmcache_options *options);
void wc_later_release(struct wc_later *later);

/* Until all that were taken are done. In the child of a fork nothing is waited for. */
void wc_later_wait(struct wc_later *later);
void wc_later_wait_attachment(const wasmcache_attachment *attachment);

#endif
