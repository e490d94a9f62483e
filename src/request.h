/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_REQUEST_H
#define WC_REQUEST_H

/*
 * A load, save, contains or get as a job of an executor, from its start to its callback.
 *
 * Flights: a get or load that knows its key is in the pool's list of flights, as leader, until it
 * has a result. Another one for the same is parked meanwhile, and knows its leader.
 */

#include "executor.h"
#include "get.h"
#include "module.h"

enum wc_request_type { WC_REQUEST_GET, WC_REQUEST_LOAD, WC_REQUEST_SAVE, WC_REQUEST_CONTAINS };

struct wasmcache_request {
    struct wc_job job; /* first */
    enum wc_request_type type;
    wasmcache_request_fn callback;
    void *payload;

    struct wc_call call;
    wasmcache_key key; /* given, or of the source once `keyed` */
    int keyed;
    int waits; /* GET: it slept until another process might have compiled it */
    uint64_t waits_since;
    struct wc_get get; /* GET */
    void *native;      /* SAVE */

    /* Under the pool's lock. */
    int flying; /* it is a leader, in the list of flights */
    struct wasmcache_request *next_flight;
    struct wasmcache_request *leader; /* parked: for whom */
    unsigned waiting;                 /* leader: how many are parked for it */

    /* What came of it. */
    int rc;
    struct wc_error err;
    wasmcache_module *module; /* a reference */
};

#endif
