/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WASMCACHE_ASYNC_H
#define WASMCACHE_ASYNC_H

/*
 * get, load, save and contains without waiting: for hosts with an event loop.
 *
 *     wasmcache_executor *executor;
 *     wasmcache_executor_new(&executor, NULL);
 *     ... have the loop watch wasmcache_executor_fd(executor) for reading, and then call
 *         wasmcache_executor_dispatch(executor);
 *     wasmcache_source source = wasmcache_source_path("plugin.wasm");
 *     wasmcache_request_get(NULL, executor, wc, WASMCACHE_MODULE, &source, NULL, loaded, payload);
 *     ... dispatch calls loaded(request, result, payload)
 *     wasmcache_executor_free(executor);
 *     wasmcache_detach(wc);
 *
 * Know this first
 * ---------------
 *  - A request that was started has exactly one callback, whatever comes: success, failure,
 *    cancellation, the end of the executor. One that was not started (the function returned a
 *    negative error) has none.
 *  - What a request was given by pointer (what the source points at, the native module of a save,
 *    the attachment, its engine) is borrowed until its callback. Options, key and the source struct
 *    itself are copied.
 *  - Callbacks run in wasmcache_executor_dispatch(), on the thread that calls it, and nowhere else,
 *    unless the executor was made with WASMCACHE_EXECUTOR_ON_WORKER.
 *  - The engine's functions, on_event, fetch and release are called on a worker. No lock of the
 *    library is held while any code of the host or the engine runs.
 *  - Requests of one executor for the same module wait for one another without occupying a thread:
 *    a get that finds another one with the same attachment, kind, key and flags under way gets a
 *    reference to the same module (WASMCACHE_JOINED). So one thread is enough.
 *  - Ending order: requests, executor, attachments, engine, cache.
 */

#include "wasmcache.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wasmcache_executor wasmcache_executor;
typedef struct wasmcache_request wasmcache_request;

/* ---- executors: where requests run ----------------------------------------------------------- */

/*
 * A pool of the host's. It runs work(argument) once, soon, on some thread other than the one that
 * calls this, and returns 0. Non-zero: it does not; the request is then not started. The thread
 * needs the stack of a compile, and should block signals that are not meant for it.
 */
typedef int (*wasmcache_submit_fn)(void (*work)(void *argument), void *argument, void *payload);
/*
 * Called from any thread, also from wasmcache_request_cancel(), when there is something to dispatch
 * now. It is for loops that have a call of their own for that (uv_async_send); it must not dispatch
 * itself, nor call any other function of the library. Not called any more when
 * wasmcache_executor_free() has returned.
 */
typedef void (*wasmcache_wake_fn)(void *payload);

/* Flags of wasmcache_executor_options. */
enum {
    WASMCACHE_EXECUTOR_ON_WORKER = 1u /* callbacks run on the workers, several at a time, and there
                                         is nothing to dispatch */
};

typedef struct wasmcache_executor_options {
    size_t size;      /* sizeof(wasmcache_executor_options) */
    unsigned flags;   /* WASMCACHE_EXECUTOR_... */
    unsigned threads; /* own threads at most, 1 to 1024; 0: one for each CPU, at most 4 */
    size_t stack;     /* bytes of stack for each own thread, at least 32 KiB; 0: the system's
                         default. docs/threads.md has what a hit and a miss need */
    wasmcache_submit_fn
        submit;             /* NULL: threads of our own; otherwise `threads` and `stack` are 0 */
    wasmcache_wake_fn wake; /* NULL: none */
    void *payload;          /* handed to submit and wake */
} wasmcache_executor_options;

#define WASMCACHE_EXECUTOR_OPTIONS_INIT                                                            \
    {                                                                                              \
        sizeof(wasmcache_executor_options), 0, 0, 0, NULL, NULL, NULL                              \
    }

/*
 * Makes an executor. `options` NULL: all defaults. No thread is started: own threads are when
 * requests need them, block all signals, and end with the executor. It has one descriptor (two
 * where there is no eventfd), close-on-exec. EMISUSE: out NULL, a size, flag or number that no
 * version knows. ENOMEM. EIO: no descriptor was to be had. On failure *out is NULL.
 *
 * After fork() the child's copy of an executor is as new: no request, no thread, another
 * descriptor, made at its first use there. Callbacks of the parent's requests come in the parent
 * alone.
 */
WASMCACHE_API int wasmcache_executor_new(wasmcache_executor **out,
                                         const wasmcache_executor_options *options);

/*
 * The descriptor that is readable while there is something to dispatch, for poll, epoll and their
 * like. Never read from it, never close it. In the child of a fork it is another one: ask again.
 * EMISUSE: NULL. EIO, ENOMEM: in a child, a new one was not to be had. Any thread.
 */
WASMCACHE_API int wasmcache_executor_fd(wasmcache_executor *executor);

/*
 * Runs the callbacks of all requests that are finished when it is called, in the order in which
 * they were, and returns how many. Never blocks. Callbacks may call everything but
 * wasmcache_executor_free() and wasmcache_executor_wait(): start and cancel requests, and dispatch.
 * Any thread, several at a time if the host's callbacks can bear it. EMISUSE: NULL.
 */
WASMCACHE_API int wasmcache_executor_dispatch(wasmcache_executor *executor);

/*
 * For hosts without a loop: waits until there is something to dispatch. 1: there is. 0: the time is
 * over, or no request is left that was started and had no callback yet, so that
 *     while (wasmcache_executor_wait(executor, -1) == 1)
 *         wasmcache_executor_dispatch(executor);
 * runs all there are. `timeout_ms` negative: no limit; 0: only looks. With
 * WASMCACHE_EXECUTOR_ON_WORKER it waits until no request is left and returns 0. Signals do not
 * interrupt it. EMISUSE: NULL. Any thread, but not in a callback. EIO, ENOMEM: as
 * wasmcache_executor_fd().
 */
WASMCACHE_API int wasmcache_executor_wait(wasmcache_executor *executor, int timeout_ms);

/*
 * Ends an executor; NULL is allowed. Requests that wait are cancelled; those that run are asked to
 * stop at their next step and waited for (a compile takes what it takes); own threads are joined,
 * or it waits until the host's pool has run all that was submitted. Then all callbacks that have
 * not been are run on the calling thread, with EABORTED or the result that is there, and nothing is
 * left. A request that a callback tries to start meanwhile is refused with EABORTED.
 *
 * It comes after all other calls on the executor and its requests, never in a callback (it would
 * wait for itself), and not on a thread of the host's pool that the pool needs to go on. In the
 * child of a fork it frees what the child made and leaves the parent's requests alone.
 */
WASMCACHE_API void wasmcache_executor_free(wasmcache_executor *executor);

/* ---- requests -------------------------------------------------------------------------------- */

/* What came of a request. Borrowed: valid during the callback, but for the module. */
typedef struct wasmcache_result {
    size_t size;              /* of this struct in the library */
    int error;                /* 0, or what the call of the same name without "request" returns, or
                                 EABORTED if it was cancelled */
    wasmcache_module *module; /* of a get or load that succeeded, else NULL. One reference, which is
                                 the callback's to give back with wasmcache_module_release() */
    const wasmcache_report *report;       /* never NULL. total_ns counts from the start, waiting
                                             included. A contains fills the reason and the key */
    const wasmcache_error_detail *detail; /* never NULL; what wasmcache_last_error() has after the
                                             call without "request"; empty if error is 0 */
} wasmcache_result;

/* The callback. `request` is the handle, which is gone when it returns. It must return (no longjmp,
 * no exception); it may fork, but a child of one that runs on a worker has to exec or _exit. */
typedef void (*wasmcache_request_fn)(wasmcache_request *request, const wasmcache_result *result,
                                     void *payload);

/*
 * Each starts a request and returns 0; `callback` then comes once. It never comes before the
 * function has set *out, nor, on the thread that starts it, before it has returned. `out` may be
 * NULL for who never cancels; otherwise *out is the handle, valid until the callback has returned,
 * and NULL on failure.
 *
 * Not started: EMISUSE: executor or callback NULL, or arguments for which the call without
 * "request" says EMISUSE. ENOMEM. EIO: not even one thread could be started. EABORTED: submit
 * refused, or the executor is being freed. Every other error comes through the callback, also EOFF.
 * Any thread.
 */

/*
 * As wasmcache_get(). If another get of this executor with the same attachment, kind, key and flags
 * is under way when the key is known, this one waits for it without a thread, and gets the same
 * module: outcome JOINED, the times its own, and reason, artifact_bytes and save_error those of the
 * other. If the engine does not compile the module, both have that error. If the other one fails
 * for reasons of its own (its source, cancellation), this one goes on by itself. Without a cache
 * nothing is hashed, and so nobody waits.
 */
WASMCACHE_API int wasmcache_request_get(wasmcache_request **out, wasmcache_executor *executor,
                                        wasmcache_attachment *attachment, wasmcache_kind kind,
                                        const wasmcache_source *source,
                                        const wasmcache_get_options *options,
                                        wasmcache_request_fn callback, void *payload);
/* As wasmcache_load(). Joins a load of the same key that is under way and succeeds. */
WASMCACHE_API int wasmcache_request_load(wasmcache_request **out, wasmcache_executor *executor,
                                         wasmcache_attachment *attachment, wasmcache_kind kind,
                                         const wasmcache_key *key, wasmcache_request_fn callback,
                                         void *payload);
/* As wasmcache_save(). `native` is the caller's, and must stay until the callback. */
WASMCACHE_API int wasmcache_request_save(wasmcache_request **out, wasmcache_executor *executor,
                                         wasmcache_attachment *attachment, wasmcache_kind kind,
                                         const wasmcache_key *key, void *native,
                                         const wasmcache_save_options *options,
                                         wasmcache_request_fn callback, void *payload);
/* As wasmcache_contains(). */
WASMCACHE_API int wasmcache_request_contains(wasmcache_request **out, wasmcache_executor *executor,
                                             wasmcache_attachment *attachment, wasmcache_kind kind,
                                             const wasmcache_key *key,
                                             wasmcache_request_fn callback, void *payload);

/* What wasmcache_request_cancel() found. */
enum wasmcache_cancel {
    WASMCACHE_CANCEL_ABORTED = 0, /* it waited for a thread or for another request: its callback
                                     comes with EABORTED */
    WASMCACHE_CANCEL_ASKED = 1,   /* it runs: it stops with EABORTED before its next step (lookup,
                                     reading the source, compile) if there is one. What the engine
                                     does is not interrupted, and a module that was compiled is
                                     saved and handed over */
    WASMCACHE_CANCEL_LATE = 2     /* it is finished: its callback comes with what there is */
};

/*
 * Asks that a request not be done. Its callback comes all the same, once, never inside this
 * function. Returns one of the above, or EMISUSE: NULL, or a request that was started before a fork
 * whose child this is. Any thread, also several times, while the handle is valid.
 */
WASMCACHE_API int wasmcache_request_cancel(wasmcache_request *request);

#ifdef __cplusplus
}
#endif

#endif
