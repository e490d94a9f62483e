/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_GET_H
#define WC_GET_H

/*
 * One get, in the steps that a request goes one by one.
 *
 *     rc = wc_get_check(&get, &call, source, options, &err);       // misuse
 *     rc = wc_get_key(&get, &call, &err);                          // get.key, if get.cached
 *     rc = wc_get_module(&get, &call, &native, NULL, &err);        // load, else compile and save
 *     wc_get_release(&get, &call);                                 // once wc_get_check() gave 0
 *
 * A request, which does not block its worker, takes these for wc_get_module():
 *
 *     rc = wc_get_look(&get, &call, &native, &err);                // is it there?
 *     rc = wc_get_ask(&get, &call, &native, &ns, &err);            // may we make it?
 *     rc = wc_get_make(&get, &call, &native, NULL, &err);
 *     wc_get_land(&get, &call, rc, native);                        // always, after wc_get_ask()
 *
 * wc_get_release() may also come before any of them, so that nothing is held open meanwhile: the
 * source is opened again then.
 */

#include "flight.h"
#include "source.h"

struct wc_get {
    wasmcache_source source; /* a copy; what it points at is the caller's */
    struct wc_input input;
    wasmcache_key content; /* of the wasm */
    wasmcache_key key; /* if `cached`: what it is looked for under, later what it is saved under:
                          the content's, or with the salt that of this tenant's content */
    const void *salt;
    size_t salt_length; /* 0: none */
    int cached;         /* there is a cache to look in, and the key is known */
    struct wc_flight flight;
    int flies; /* the flight was started */
};

enum wc_get_step {
    WC_GET_DONE = 0, /* *native is it */
    WC_GET_MAKE,     /* it is to be made */
    WC_GET_WAIT      /* another makes it: ask again */
};

/* EMISUSE: report, kind, `out` or the attachment is NULL. */
int wc_get_check_call(struct wc_call *call, const wasmcache_report *report, const void *out,
                      const char *function, struct wc_error *err);
/* EMISUSE: source, options. Sets the call's flags. */
int wc_get_check(struct wc_get *get, struct wc_call *call, const wasmcache_source *source,
                 const wasmcache_get_options *options, struct wc_error *err);
/* EIO: the source cannot be read. EMISUSE. */
int wc_get_key(struct wc_get *get, struct wc_call *call, struct wc_error *err);
/* One of enum wc_get_step, not WAIT. EMISS: it must hit. EABORTED. */
int wc_get_look(struct wc_get *get, struct wc_call *call, void **native, struct wc_error *err);
/* One of enum wc_get_step. WAIT: after *ns at the latest. EABORTED. */
int wc_get_ask(struct wc_get *get, struct wc_call *call, void **native, uint64_t *ns,
               struct wc_error *err);
/* The same, but waits. */
int wc_get_wait(struct wc_get *get, struct wc_call *call, void **native, struct wc_error *err);
int wc_get_make(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                struct wc_error *err);
void wc_get_land(struct wc_get *get, struct wc_call *call, int rc, void *native);
/* Counted modules: is it in memory? 1: *out is a reference. */
int wc_get_remembered(const struct wc_get *get, struct wc_call *call, wasmcache_module **out);
/* Counts what came of the get, and keeps it in memory if that is wanted. ENOMEM: it was freed. */
int wc_get_count(wasmcache_module **out, const struct wc_get *get, struct wc_call *call,
                 void *native, struct wc_error *err);
/* All of these but the last two. `engine_error` NULL: the error's text is enough. As
 * wasmcache_get(). */
int wc_get_module(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                  struct wc_error *err);
/* After wc_get_module(): is what came of it, a module or the engine's error, that of the wasm of
 * `key`? The source may have changed meanwhile, or not be what its digest says. */
int wc_get_is_of(const struct wc_get *get, const struct wc_call *call, const wasmcache_key *key);
void wc_get_release(struct wc_get *get, struct wc_call *call);

#endif
