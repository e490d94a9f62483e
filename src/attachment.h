/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_ATTACHMENT_H
#define WC_ATTACHMENT_H

/*
 * An engine bound to a cache. Not changed after it was made, so that all threads use it.
 *
 * The fingerprint is the SHA-256 of a tag and of these, each behind its length as 8 bytes
 * little-endian: adapter, compiler, engine version, artifact version (4 bytes little-endian),
 * target, settings, SHA-256 of the probe (nothing without one), build id of the engine's image
 * (nothing if that is the host's own). All are properties of the engine and its configuration, so
 * that it is the same on every host that loads the same engine.
 */

#include "cache.h"
#include "wasmcache_engine.h"

struct wasmcache_attachment {
    wasmcache *cache; /* a reference; NULL: none */
    wasmcache_engine_table table;
    void *engine;
    int error;     /* why it is not cached, else 0 */
    int shared_id; /* the embedder gave the id: entries that do not match are others' */
    int probed;
    uint8_t probe[32]; /* SHA-256 of what the probe gave at attach */
    uint8_t fingerprint[32];
    char name[32];
    char engine_namespace[WC_NAMESPACE_SIZE];
    char message[640];
};

/* Is there a cache behind this engine? */
int wc_attachment_usable(const wasmcache_attachment *attachment);

/* Probes again, as every miss does before it saves: EMISMATCH if the engine now makes other code
 * than at attach. EENGINE. */
int wc_attachment_recheck(const wasmcache_attachment *attachment, struct wc_error *err);

/* Describes and frees the engine's error. `doing` is such as "compile". Returns EENGINE. */
int wc_engine_failure(const wasmcache_attachment *attachment, void *engine_error, const char *doing,
                      struct wc_error *err);

#endif
