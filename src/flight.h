/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_FLIGHT_H
#define WC_FLIGHT_H

/*
 * One compile of a key: of the threads of this process one, and of those of all processes one.
 *
 *     wc_flight_start(&flight, &call, &key);                      // found nothing
 *     while ((turn = wc_flight_wait(&flight, &native, &err)) == WC_FLIGHT_LOOK)
 *         look again, and if it is there now, done
 *     LEAD: compile, save        JOINED: `native` is what another thread compiled
 *     wc_flight_land(&flight, ...);                               // always, once it was started
 *
 * Threads meet in a table of the cache: the first leads, the others wait for it and get clones of
 * its module; where they cannot (another attachment, an engine that cannot clone) they load what it
 * published. Leaders of processes meet at a lock (lock.h). No wait is for ever: after `wait_ns` who
 * waits for a thread goes to the lock's second byte, as does who waits for a process, and after the
 * same again it compiles by itself. What wakes it earlier is the entry itself: a leader that stops
 * after it has published stops nobody.
 *
 * In the child of a fork the table is left alone, and threads meet at the lock too.
 */

#include "call.h"
#include "lock.h"

/* Of a cache. */
struct wc_flights;

enum wc_flight_turn {
    WC_FLIGHT_LEAD = 0, /* it is this one's to compile */
    WC_FLIGHT_LOOK,     /* something was published, or might have been */
    WC_FLIGHT_JOINED,   /* *native is a clone of another thread's module */
    WC_FLIGHT_WAIT      /* of wc_flight_ask() alone */
};

struct wc_flight {
    struct wc_call *call;
    wasmcache_key key;
    uint64_t until;          /* by the monotonic clock; 0: it has not waited yet */
    uint64_t poll_ns;        /* how long it slept last */
    int alone;               /* it waits for nobody any more */
    int late;                /* it has waited as long as it may, once */
    int told;                /* that it waits */
    int looks;               /* how often it was to look again because of another entry */
    struct wc_key_lock lock; /* its key's, once lock_opened */
    int lock_opened;

    /* Under the table's lock. */
    int leads;                 /* it is in the table */
    struct wc_flight *next;    /* in the table, or of those that wait for the same */
    struct wc_flight *waiters; /* of who leads */
    struct wc_flight *leader;  /* whom it waits for. NULL: it does not, or has its answer: */
    enum wc_flight_turn answer;
    void *native;            /* JOINED: a clone */
    wasmcache_report report; /* JOINED: the leader's */
};

/* What came of a flight, for those who wait. */
enum wc_flight_end {
    WC_FLIGHT_NOTHING,   /* it gave up; another may try */
    WC_FLIGHT_PUBLISHED, /* the entry is there */
    WC_FLIGHT_VAIN       /* nothing is published, nor would it be the next time */
};

/* `call` found nothing under `key` and would save what it compiles. */
void wc_flight_start(struct wc_flight *flight, struct wc_call *call, const wasmcache_key *key);
/* One of enum wc_flight_turn. WAIT: ask again after *ns at the latest. EABORTED: the caller does
 * not want to wait. */
int wc_flight_ask(struct wc_flight *flight, void **native, uint64_t *ns, struct wc_error *err);
/* The same until it is not WAIT, and the time goes to the report. */
int wc_flight_wait(struct wc_flight *flight, void **native, struct wc_error *err);
/* Does a thread wait for it? */
int wc_flight_is_awaited(const struct wc_flight *flight);
/* `native`: a module of the flight's key for those who wait, who get clones; NULL: none. */
void wc_flight_land(struct wc_flight *flight, enum wc_flight_end end, void *native);

/* NULL: no memory. */
struct wc_flights *wc_flights_new(void);
void wc_flights_free(struct wc_flights *flights);

#endif
