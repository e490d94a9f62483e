/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_ATTACHMENT_H
#define WC_ATTACHMENT_H

/*
 * An engine bound to a cache.
 *
 *     wc_attachment_identity(attachment, NULL)->engine_namespace
 *
 * The identity is found out at first use, not at attach: the probe is a compile, and an engine that
 * compiled before a fork may not be able to compile in the child (Wasmtime's threads do not come
 * along). So a server that attaches and then forks is no worse off than without a cache. Nothing is
 * locked: two threads may both find it out, and the first to be done is kept.
 *
 * The fingerprint is the SHA-256 of a tag and of these, each behind its length as 8 bytes
 * little-endian: adapter, compiler, engine version, artifact version (4 bytes little-endian),
 * target, settings, SHA-256 of the probe (nothing without one), build id of the engine's image
 * (nothing if that is the host's own). All are properties of the engine and its configuration, so
 * that it is the same on every host that loads the same engine.
 */

#include <stdatomic.h>

#include "cache.h"
#include "wasmcache_engine.h"

/* What an engine is. Not changed after it was made. */
struct wc_identity {
    struct wc_identity *before; /* one that could not be told, which this one took the place of */
    int error;                  /* why it cannot be cached, else 0 */
    int probed;
    uint8_t probe[32];         /* SHA-256 of what the probe gave */
    uint8_t build[32];         /* the build id that is in the fingerprint */
    int build_length;          /* 0: there is none in it */
    uint32_t artifact_version; /* the v{n} of the namespace */
    uint8_t fingerprint[32];
    char engine_namespace[WC_NAMESPACE_SIZE]; /* "" if it cannot be cached */
    char message[640];                        /* why not */
};

struct wasmcache_attachment {
    wasmcache *cache; /* a reference; NULL: none */
    wasmcache_engine_table table;
    const void *table_address; /* in the host's image */
    void *engine;
    wasmcache_attach_options options; /* strings and fingerprint are copies */
    uint8_t given_fingerprint[32];
    char name[32];
    atomic_ullong judged_until; /* the namespace's folder was found to be trusted: for loads that
                                   come before that, by the monotonic clock (call.h) */
    unsigned later; /* saves of it that wait for a worker; under the cache's later.lock */
    _Atomic(struct wc_identity *) identity; /* NULL: not found out yet */
};

/* Never NULL. Without memory or without a cache it says so, and is looked for again next time.
 * Valid as long as the attachment. `look`, unless it is NULL, may have the table of hints open
 * then: end it. */
const struct wc_identity *wc_attachment_identity(wasmcache_attachment *attachment,
                                                 struct wc_hint_look *look);

/* Did the embedder give the id? Then others save there too, and what does not match is theirs. */
int wc_attachment_is_shared(const wasmcache_attachment *attachment);

/* Does it take entries that have no trailer? Only where the cache was told to, and nothing else
 * than the folder's name has to be known of them. */
int wc_attachment_takes_legacy(const wasmcache_attachment *attachment);

/* Probes again, as every miss does before it saves: EMISMATCH if the engine now makes other code
 * than before. EENGINE. */
int wc_attachment_recheck(wasmcache_attachment *attachment, struct wc_error *err);

/* Describes the engine's error, which may be NULL. `doing` is such as "compile". Returns EENGINE.
 */
int wc_engine_describe(const wasmcache_attachment *attachment, const void *engine_error,
                       const char *doing, struct wc_error *err);
/* The same, and frees it. */
int wc_engine_failure(const wasmcache_attachment *attachment, void *engine_error, const char *doing,
                      struct wc_error *err);

#endif
