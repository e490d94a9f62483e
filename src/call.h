/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_CALL_H
#define WC_CALL_H

/*
 * One call of get, load or save, from its arguments to its report.
 *
 *     wc_call_start(&call, attachment, kind);
 *     rc = wc_call_check(&call, report, "wasmcache_load", &err);
 *     ... wc_load(), wc_save(), which fill call.report and tell of events
 *     return wc_call_end(&call, report, rc, &err);
 */

#include "attachment.h"
#include "hint.h"

/* Of an entry that was looked at and could not be used, to see that another came. 0: of none. */
struct wc_seen {
    uint64_t ino;
    int64_t ctime_ns;
};

struct wc_call {
    wasmcache_attachment *attachment;
    const struct wc_identity *identity; /* after wc_call_may_look() said yes */
    wasmcache_kind kind;
    unsigned flags; /* WASMCACHE_GET_... */
    int replace;    /* a save replaces a sound entry */
    int counts;     /* it is a get or a load, which is a hit or a miss */
    wasmcache_report report;
    uint64_t started;
    struct wc_folder folder;      /* of the namespace, between enter and leave */
    struct wc_hint_look look;     /* the same */
    struct wc_seen seen;          /* under the key, when it was looked for last */
    const atomic_bool *cancelled; /* of a request; NULL: nobody can cancel it */
    uint64_t wait_ns;             /* how long it may wait for another's compile */
    wasmcache_tick_fn tick;       /* NULL: none */
    void *tick_payload;
    uint64_t spared_ns;  /* what compiling took that was loaded; 0: not known */
    uint64_t generation; /* of its key (memory.h), before that was looked for */
    wasmcache_phase phase;
    uint64_t phase_started;
};

void wc_call_start(struct wc_call *call, wasmcache_attachment *attachment, wasmcache_kind kind);
/* Completes call->report, for wc_call_end() or a request. */
void wc_call_close(struct wc_call *call, int rc);
/* Fills the caller's report, also on misuse, and makes the error the thread's last. Returns rc. */
int wc_call_end(struct wc_call *call, wasmcache_report *report, int rc, const struct wc_error *err);
/* EMISUSE: report, kind. */
int wc_call_check(struct wc_call *call, const wasmcache_report *report, const char *function,
                  struct wc_error *err);
/* The same for calls with a key and one argument more that must not be NULL. EMISUSE. */
int wc_call_check_key(struct wc_call *call, const wasmcache_key *key,
                      const wasmcache_report *report, const void *argument, const char *function,
                      struct wc_error *err);
/* EOFF: there is no cache. May have to find out what the engine is. */
int wc_call_check_cache(struct wc_call *call, struct wc_error *err);
int wc_misuse(struct wc_error *err, const char *function, const char *what);

/* Is there anything to look in? If not, the report says why. Finds out what the engine is. */
/* `look`, unless it is NULL, may have the table of hints open then, until wc_call_leave(). */
int wc_call_may_look(struct wc_call *call, struct wc_hint_look *look);
/*
 * A load need not judge the folder again that was judged less than a tenth of a second ago: opening
 * and closing it is a third of what a hit costs. The entry itself is judged each time, and what
 * does not go as it should goes the long way.
 */
#ifdef WASMCACHE_TESTING
extern uint64_t wc_call_judged_for; /* in nanoseconds */
#endif
/* 1: it was, and call->folder has its path, but is not open. */
int wc_call_is_judged(struct wc_call *call);
/* Finds the table of hints when it is needed, by wc_call_enter(). */
void wc_call_look_later(struct wc_call *call);
/* Opens the namespace's folder, if it is not open. As wc_store_open_folder(). */
int wc_call_enter(struct wc_call *call, struct wc_error *err);
/* Closes it; nothing of the library is open then. Also when it is not open. */
void wc_call_leave(struct wc_call *call);
/* Between two steps. EABORTED: the request was cancelled. */
int wc_call_go_on(const struct wc_call *call, struct wc_error *err);
/* Enters the next phase. EABORTED: the caller does not want it, or the request was cancelled. */
int wc_call_phase(struct wc_call *call, wasmcache_phase phase, struct wc_error *err);
/* In the middle of one that may take long: at least each 100 ms. EABORTED as above. */
int wc_call_tick(const struct wc_call *call, struct wc_error *err);
/* Tells of something that happened to this call's entry. `path` and `err` may be NULL. */
void wc_call_tell(const struct wc_call *call, wasmcache_event_type type, const char *path,
                  const struct wc_error *err, uint64_t ns);

/* The module of that key that is in memory; a reference. NULL: none is. Fills the report. */
wasmcache_module *wc_call_remembered(struct wc_call *call, const wasmcache_key *key);
/* All of a call that finds it there, without a struct wc_call, which takes longer to set up than
 * that. 1: *out and the report (NULL: none) are filled, and it was counted. 0: nothing was done: it
 * is not there, or there is no cache or no `out`. */
int wc_call_recall(wasmcache_module **out, const wasmcache_attachment *attachment,
                   wasmcache_kind kind, const wasmcache_key *key, wasmcache_report *report);
/* What memory has of that key is not to be found any more. What this call makes is. */
void wc_call_outdate(struct wc_call *call, const wasmcache_key *key);
/* Counts what the engine gave. `key`: it is of that, and is kept in memory if modules are; NULL: it
 * is not. ENOMEM: it was freed. */
int wc_call_count(wasmcache_module **out, struct wc_call *call, const wasmcache_key *key,
                  void *native, struct wc_error *err);

/* What the entry of this call has to be; after wc_call_may_look() said yes. */
struct wc_expect wc_call_expect(const struct wc_call *call, const wasmcache_key *key);

/* load.c: finds the entry and has the engine load it. Fills the report; a damaged entry is removed.
 * EMISS, ECORRUPT, EMISMATCH, ENEWER, EUNTRUSTED, EIO, EBUSY, EENGINE, ENOMEM. */
int wc_load(struct wc_call *call, const wasmcache_key *key, void **native, struct wc_error *err);
/* The same for a request: is there a cache, load, count. EOFF too. */
int wc_load_counted(wasmcache_module **out, struct wc_call *call, const wasmcache_key *key,
                    struct wc_error *err);
/* With a file that was opened in `folder` of `store`, the cache's own or a layer, and has a trailer
 * or is an old entry: checks the artifact and has the engine load it. As wc_load(). */
int wc_load_opened(struct wc_call *call, const struct wc_store *store,
                   const struct wc_folder *folder, struct wc_entry_file *file,
                   const wasmcache_key *key, void **native, struct wc_error *err);
/* Does a page of the file that was there stay there, as far as the file system goes? */
int wc_may_be_mapped(const struct wasmcache *cache, const struct wc_entry_file *file);
/* From bytes in memory, which the engine copies. EENGINE. */
int wc_engine_load_copy(struct wc_call *call, const uint8_t *bytes, size_t size, void **native,
                        struct wc_error *err);
/* The engine's part of it: from the descriptor if the engine maps files, else from its
 * bytes. EENGINE: the engine does not load it. EIO, ENOMEM: it was not asked. */
int wc_engine_load(struct wc_call *call, const struct wc_entry_file *file, void **native,
                   struct wc_error *err);
/* legacy.c: an entry without a trailer. ECORRUPT: it is nothing that this engine loads. EENGINE,
 * EIO, ENOMEM: it may be. */
int wc_load_legacy(struct wc_call *call, const struct wc_entry_file *file, void **native,
                   struct wc_error *err);
/* load.c: as wasmcache_contains(), when the arguments were checked. */
int wc_contains(struct wc_call *call, const wasmcache_key *key, struct wc_error *err);
/* save.c: takes over the options, NULL for none. EMISUSE. */
int wc_save_check(struct wc_call *call, const wasmcache_save_options *options,
                  struct wc_error *err);
/* As wasmcache_save(), when the arguments were checked. Fills the report. */
int wc_save_asked(struct wc_call *call, const wasmcache_key *key, void *native,
                  struct wc_error *err);
/* Serializes and publishes. Fills the report. As wasmcache_save(). */
int wc_save(struct wc_call *call, const wasmcache_key *key, void *native, struct wc_error *err);

#endif
