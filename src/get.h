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
 * wc_get_release() may also come between the last two, so that nothing is held open meanwhile: the
 * source is opened again then.
 */

#include "call.h"
#include "source.h"

struct wc_get {
    wasmcache_source source; /* a copy; what it points at is the caller's */
    struct wc_input input;
    wasmcache_key key; /* if `cached`: what it is looked for under, later what it is saved under */
    int cached;        /* there is a cache to look in, and the key is known */
};

/* EMISUSE: report, kind, `out` or the attachment is NULL. */
int wc_get_check_call(struct wc_call *call, const wasmcache_report *report, const void *out,
                      const char *function, struct wc_error *err);
/* EMISUSE: source, options. Sets the call's flags. */
int wc_get_check(struct wc_get *get, struct wc_call *call, const wasmcache_source *source,
                 const wasmcache_get_options *options, struct wc_error *err);
/* EIO: the source cannot be read. EMISUSE. */
int wc_get_key(struct wc_get *get, struct wc_call *call, struct wc_error *err);
/* `engine_error` NULL: the error's text is enough. As wasmcache_get(). */
int wc_get_module(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                  struct wc_error *err);
/* After wc_get_module(): is what came of it, a module or the engine's error, that of the wasm of
 * `key`? The source may have changed meanwhile, or not be what its digest says. */
int wc_get_is_of(const struct wc_get *get, const struct wc_call *call, const wasmcache_key *key);
void wc_get_release(struct wc_get *get, struct wc_call *call);

#endif
