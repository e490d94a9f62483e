/* SPDX-License-Identifier: Apache-2.0 */
#include "flight.h"

#include <stdlib.h>
#include <string.h>

#include "later.h"

#define MILLISECOND UINT64_C(1000000)
/* How often somebody who waits for a process looks at the lock and the entry: from short to long.
 */
#define POLL_FIRST (MILLISECOND / 2)
#define POLL_LAST (20 * MILLISECOND)
/* How often somebody who waits for a thread, which wakes it, asks its own caller. */
#define TICK (100 * MILLISECOND)
/* Who finds another entry each time it looks, and never one that it can use, stops to look. */
#define LOOKS 8

struct wc_flights {
    int64_t pid;
    pthread_mutex_t lock;
    pthread_cond_t landed;
    struct wc_flight *first;
};

struct wc_flights *wc_flights_new(void)
{
    struct wc_flights *flights = calloc(1, sizeof(*flights));
    if (!flights)
        return NULL;
    if (wc_os_cond_init(&flights->landed) < 0) {
        free(flights);
        return NULL;
    }
    pthread_mutex_init(&flights->lock, NULL);
    flights->pid = wc_os_pid();
    return flights;
}

void wc_flights_free(struct wc_flights *flights)
{
    if (flights && flights->pid == wc_os_pid()) { /* else a thread that is not here may have it */
        pthread_cond_destroy(&flights->landed);
        pthread_mutex_destroy(&flights->lock);
    }
    free(flights);
}

void wc_flight_start(struct wc_flight *flight, struct wc_call *call, const wasmcache_key *key)
{
    const struct wc_key_lock closed = WC_KEY_LOCK_INIT;
    memset(flight, 0, sizeof(*flight));
    flight->call = call;
    flight->key = *key;
    flight->lock = closed;
}

static struct wc_flights *table_of(const struct wc_flight *flight)
{
    return flight->call->attachment->cache->flights;
}

/* ---- how long ---- */

/* What is left of its patience, which starts with its first wait. 0: nothing, and it is late from
 * now on; for the second byte it may wait as long again. */
static uint64_t time_left(struct wc_flight *flight)
{
    const uint64_t now = wc_os_monotonic_ns();
    if (!flight->until)
        flight->until = now + flight->call->wait_ns;
    if (now < flight->until)
        return flight->until - now;
    flight->alone = flight->late;
    flight->late = 1;
    flight->until = now + flight->call->wait_ns;
    return 0;
}

/* Each time before it waits, and without a lock: its caller may not want to. */
static int may_wait(struct wc_flight *flight, struct wc_error *err)
{
    int rc;
    if (flight->told) {
        rc = wc_call_tick(flight->call, err);
    } else {
        flight->told = 1;
        wc_call_tell(flight->call, WASMCACHE_EVENT_WAIT, NULL, NULL, 0);
        rc = wc_call_phase(flight->call, WASMCACHE_PHASE_WAIT, err);
    }
    return rc < 0 ? rc : WC_FLIGHT_WAIT;
}

/* ---- threads ---- */

/* What the call reports when it got another's module. */
static int join(struct wc_flight *flight, const wasmcache_report *others)
{
    wasmcache_report *report = &flight->call->report;
    report->outcome = WASMCACHE_JOINED;
    report->save_error = others->save_error;
    report->save_later = others->save_later;
    report->artifact_bytes = others->artifact_bytes;
    report->wasm_bytes = others->wasm_bytes;
    return WC_FLIGHT_JOINED;
}

/*
 * One that is compiled and waits to be saved: its save has the lock, and may be run by this very
 * thread, so that nobody of this process may wait for it.
 */
static int take_from_later(struct wc_flight *flight, void **native)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    if (!wc_later_find(flight->call, &flight->key, native, &report))
        return WC_FLIGHT_LEAD;
    if (*native)
        return join(flight, &report);
    flight->alone = 1;
    return WC_FLIGHT_LEAD;
}

static struct wc_flight *find_leader(const struct wc_flights *table, const struct wc_flight *flight)
{
    const struct wc_call *call = flight->call;
    for (struct wc_flight *f = table->first; f; f = f->next)
        if (f->call->kind == call->kind && wasmcache_key_equal(&f->key, &flight->key) &&
            strcmp(f->call->identity->engine_namespace, call->identity->engine_namespace) == 0)
            return f;
    return NULL;
}

static void take_out(struct wc_flight **list, const struct wc_flight *flight)
{
    while (*list != flight)
        list = &(*list)->next;
    *list = flight->next;
}

static void put_in(struct wc_flight **list, struct wc_flight *flight)
{
    flight->next = *list;
    *list = flight;
}

/* With the table's lock held. */
static void stop_waiting(struct wc_flight *flight)
{
    if (flight->leader)
        take_out(&flight->leader->waiters, flight);
    flight->leader = NULL;
}

/* With the table's lock held: LEAD, or WAIT for at most *ns. */
static int ask_threads_locked(struct wc_flight *flight, uint64_t *ns)
{
    struct wc_flights *table = table_of(flight);
    struct wc_flight *leader = flight->leader ? flight->leader : find_leader(table, flight);
    uint64_t left;

    if (!leader) {
        flight->leads = 1;
        put_in(&table->first, flight);
        return WC_FLIGHT_LEAD;
    }
    if (!flight->call->wait_ns) {
        flight->alone = 1;
        return WC_FLIGHT_LEAD;
    }
    if (!flight->leader) {
        flight->leader = leader;
        flight->answer = WC_FLIGHT_WAIT;
        put_in(&leader->waiters, flight);
    }
    left = time_left(flight);
    if (!left) {
        stop_waiting(flight);
        flight->answer = WC_FLIGHT_LEAD;
        return WC_FLIGHT_LEAD;
    }
    *ns = left < TICK ? left : TICK;
    return WC_FLIGHT_WAIT;
}

static int ask_threads(struct wc_flight *flight, void **native, uint64_t *ns)
{
    struct wc_flights *table = table_of(flight);
    int turn;

    pthread_mutex_lock(&table->lock);
    turn = (int)flight->answer;
    flight->answer = WC_FLIGHT_LEAD;
    if (flight->leader || turn == WC_FLIGHT_LEAD)
        turn = flight->alone ? WC_FLIGHT_LEAD : ask_threads_locked(flight, ns);
    pthread_mutex_unlock(&table->lock);
    if (turn != WC_FLIGHT_JOINED)
        return turn;
    *native = flight->native;
    flight->native = NULL;
    return join(flight, &flight->report);
}

/* Everybody who waits for it gets an answer, and may be gone as soon as the lock is given back. */
static void answer_all(struct wc_flight *leader, enum wc_flight_end end, void *native)
{
    const wasmcache_attachment *a = leader->call->attachment;
    struct wc_flight *next;
    for (struct wc_flight *w = leader->waiters; w; w = next) {
        next = w->next;
        if (native && a->table.module_clone && w->call->attachment == a)
            w->native = a->table.module_clone(leader->call->kind, native);
        w->report = leader->call->report;
        w->alone = !w->native && end == WC_FLIGHT_VAIN;
        w->answer = w->native ? WC_FLIGHT_JOINED : w->alone ? WC_FLIGHT_LEAD : WC_FLIGHT_LOOK;
        w->leader = NULL;
    }
    leader->waiters = NULL;
}

/* ---- processes ---- */

/* What a process waits by: the folder, made if it is missing, and the lock in it. 0: it waits by
 * nothing. */
static int open_folder(struct wc_flight *flight, struct wc_folder *folder)
{
    const struct wc_call *call = flight->call;
    const struct wc_store *store = &call->attachment->cache->store;
    struct wc_error ignored;
    wc_error_init(&ignored);
    if (store->flags & WASMCACHE_READ_ONLY ||
        wc_store_make_folder(folder, store, call->identity->engine_namespace, &ignored) < 0)
        return 0;
    if (!flight->lock_opened)
        (void)wc_key_lock_open(&flight->lock, store, folder, call->kind, &flight->key);
    flight->lock_opened = 1;
    return 1;
}

/* Was something published under the name since the call looked? */
static int entry_changed(const struct wc_flight *flight, const struct wc_folder *folder)
{
    char name[WC_ENTRY_NAME_SIZE];
    struct wc_os_stat st;
    wc_entry_name(name, &flight->key);
    return wc_os_stat_at(folder->fd, name, &st) == 0 &&
           (st.ino != flight->call->seen.ino || st.ctime_ns != flight->call->seen.ctime_ns);
}

static int ask_lock(struct wc_flight *flight, uint64_t *ns)
{
    uint64_t left;
    for (;;) {
        const enum wc_lock_result result =
            wc_key_lock_try(&flight->lock, flight->late ? WC_LOCK_SECOND : WC_LOCK_FIRST);
        if (result == WC_LOCK_HELD)
            return WC_FLIGHT_LEAD;
        if (result != WC_LOCK_BUSY || !flight->call->wait_ns)
            break;
        left = time_left(flight);
        if (left) {
            flight->poll_ns = flight->poll_ns ? flight->poll_ns * 2 : POLL_FIRST;
            if (flight->poll_ns > POLL_LAST)
                flight->poll_ns = POLL_LAST;
            *ns = left < flight->poll_ns ? left : flight->poll_ns;
            return WC_FLIGHT_WAIT;
        }
        if (flight->alone)
            break;
    }
    flight->alone = 1;
    return WC_FLIGHT_LEAD;
}

static int ask_processes(struct wc_flight *flight, uint64_t *ns)
{
    struct wc_folder folder = WC_FOLDER_INIT;
    int turn = WC_FLIGHT_LEAD;
    if (!open_folder(flight, &folder))
        return WC_FLIGHT_LEAD;
    turn = ask_lock(flight, ns);
    /* After the lock: whoever had it published first. */
    if (flight->looks < LOOKS && entry_changed(flight, &folder)) {
        flight->looks++;
        turn = WC_FLIGHT_LOOK;
    }
    wc_folder_close(&folder);
    return turn;
}

/* ---- both ---- */

int wc_flight_ask(struct wc_flight *flight, void **native, uint64_t *ns, struct wc_error *err)
{
    int turn = take_from_later(flight, native);
    if (turn == WC_FLIGHT_LEAD && !flight->leads && !flight->late &&
        table_of(flight)->pid == wc_os_pid())
        turn = ask_threads(flight, native, ns);
    if (turn == WC_FLIGHT_LEAD && !flight->alone)
        turn = ask_processes(flight, ns);
    return turn == WC_FLIGHT_WAIT ? may_wait(flight, err) : turn;
}

/* Until `ns` are over, or a thread that it waits for has landed. */
static void pause_for(struct wc_flight *flight, uint64_t ns)
{
    struct wc_flights *table = table_of(flight);
    if (flight->leads || flight->late || table->pid != wc_os_pid()) {
        wc_os_sleep(ns);
        return;
    }
    pthread_mutex_lock(&table->lock);
    if (flight->leader)
        wc_os_cond_wait(&table->landed, &table->lock, ns);
    pthread_mutex_unlock(&table->lock);
}

int wc_flight_wait(struct wc_flight *flight, void **native, struct wc_error *err)
{
    const uint64_t started = wc_os_monotonic_ns();
    uint64_t ns = 0;
    int turn, waited = 0;
    while ((turn = wc_flight_ask(flight, native, &ns, err)) == WC_FLIGHT_WAIT) {
        pause_for(flight, ns);
        waited = 1;
    }
    if (waited)
        flight->call->report.wait_ns += wc_os_monotonic_ns() - started;
    return turn;
}

int wc_flight_is_awaited(const struct wc_flight *flight)
{
    struct wc_flights *table = table_of(flight);
    int awaited;
    if (!flight->leads)
        return 0;
    pthread_mutex_lock(&table->lock);
    awaited = flight->waiters != NULL;
    pthread_mutex_unlock(&table->lock);
    return awaited;
}

void wc_flight_land(struct wc_flight *flight, enum wc_flight_end end, void *native)
{
    const struct wc_call *call = flight->call;
    struct wc_flights *table = table_of(flight);
    wc_key_lock_close(&flight->lock, end == WC_FLIGHT_VAIN);
    if (table->pid != wc_os_pid())
        return;
    pthread_mutex_lock(&table->lock);
    stop_waiting(flight);
    if (flight->leads) {
        take_out(&table->first, flight);
        answer_all(flight, end, native);
        pthread_cond_broadcast(&table->landed);
    }
    flight->leads = 0;
    pthread_mutex_unlock(&table->lock);
    if (flight->native) /* it was aborted with the answer on its way */
        call->attachment->table.module_free(call->kind, flight->native);
    flight->native = NULL;
}
