/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_PUBLISH_H
#define WC_PUBLISH_H

/*
 * Puts an entry into the store in one step: afterwards it is there whole, or not at all.
 *
 *     rc = wc_publish(&result, path, store, &trailer, artifact, flags, &err);
 */

#include "store_dir.h"

enum {
    WC_PUBLISH_REPLACE = 1,      /* also a sound entry (the engine refused it, or was told to) */
    WC_PUBLISH_LEAVE_FOREIGN = 2 /* an entry that does not match stays (a shared engine id) */
};

enum wc_published { WC_PUBLISHED_NEW = 1, WC_PUBLISHED_KEPT };

/*
 * Publishes `artifact` (trailer->artifact_bytes bytes, hashed while they are written). All of
 * *trailer but the digest is the caller's. `path` gets the entry's, for messages. *result: ours is
 * there now, or a sound one for the same key and fingerprint was and stays. EFULL, EIO, ENOMEM;
 * EUNTRUSTED: a directory that cannot be trusted, or lies in the entry's place; ENEWER, EMISMATCH
 * (with LEAVE_FOREIGN): what is there must stay; EBUSY: it changed too often. On failure nothing
 * was published and no file of ours is left; with DURABLE and "fsync" as the failed call the entry
 * is there, but a power cut may take it.
 */
int wc_publish(enum wc_published *result, char path[WC_PATH_SIZE], const struct wc_store *store,
               struct wc_trailer *trailer, const void *artifact, unsigned flags,
               struct wc_error *err);

/* Could anything be published there? So that nobody serializes 100 MB for a directory that cannot
 * be written. Makes it. As wc_publish. */
int wc_publish_ready(const struct wc_store *store, const char *engine_namespace,
                     struct wc_error *err);

#endif
