/* SPDX-License-Identifier: Apache-2.0 */
#include "evict.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "namespace.h"
#include "stamp.h"
#include "stats.h"
#include "worth.h"

#define WEEK (UINT64_C(7) * 24 * 3600)
/* How long to wait for another one that evicts. */
#define PATIENCE UINT64_C(30000000000)

/* ---- what there is ---- */

/* Of entries of which each may go, how many and how large those of each worth are. */
struct histogram {
    uint64_t bytes[WC_WORTH_STEPS], entries[WC_WORTH_STEPS];
};

enum age { IDLE, IN_USE, AGES };

/* A namespace that nobody used for a week. */
struct idle {
    struct idle *next;
    char engine_namespace[WC_NAMESPACE_SIZE];
};

struct eviction {
    wasmcache *cache;
    const struct wc_limits *limits;
    unsigned flags;
    uint64_t now;
    wasmcache_prune_result *result;
    struct idle *idle;
    struct histogram ages[AGES], current; /* of all namespaces; of the one that is walked over */

    uint64_t old_bytes, old_entries; /* of entries that are too old, which all go */

    /* What else has to go: all that is below this worth, and of it as much as is over. */
    enum age cut_age;
    unsigned cut_step;
    uint64_t bytes_over, entries_over;
    uint64_t disk_limit;
    uint64_t incoming; /* bytes of an entry that is to come; 0: none is */

    int failure; /* the first, 0: none; what comes after it is done all the same */
    struct wc_error why;
    int uncounted; /* what could not be listed now may be listed the next time */
};

/* One entry of a walk. */
struct found {
    const char *name;
    wasmcache_key key;
    struct wc_os_stat st;
    struct wc_worth worth;
};

/* ---- walks ---- */

struct walk {
    struct eviction *e;
    struct wc_folder folder;
    struct wc_hint_look look;
    char engine_namespace[WC_NAMESPACE_SIZE];
    int pins; /* there may be some */
    uint64_t last_used;
};

/* What the hints do not know of it: the trailer does, or its times. */
static void look_into(const struct walk *w, struct found *f)
{
    const struct wc_expect expect = {.key = &f->key, .engine_namespace = w->engine_namespace};
    struct wc_entry_file file;
    struct wc_error ignored;
    wc_error_init(&ignored);
    if (wc_store_open_entry(&file, &w->e->cache->store, &w->folder, &expect, &ignored) == 0)
        f->worth.compile_ns = file.trailer.compile_ns;
    wc_entry_file_close(&file);
}

/* 0: it is no entry, or gone. */
static int find(struct walk *w, const char *name, struct found *f)
{
    uint64_t born;
    memset(f, 0, sizeof(*f));
    f->name = name;
    if (wc_entry_name_parse(&f->key, name) != 0 || wc_os_stat_at(w->folder.fd, name, &f->st) < 0 ||
        f->st.type != WC_OS_FILE)
        return 0;
    f->worth.bytes = f->st.size;
    f->worth.uses = WC_WORTH_USE;
    f->worth.last = born = wc_os_modified_seconds(&f->st);
    if (!wc_use_find(&f->worth, &w->look, w->engine_namespace, &f->key))
        look_into(w, f);
    if (f->worth.last < born)
        f->worth.last = born; /* it was saved again since */
    if (f->worth.last > w->last_used)
        w->last_used = f->worth.last;
    return 1;
}

/* What a walk does in each namespace: at first, with each entry, in the end. NULL: nothing. */
struct pass {
    void (*before)(struct walk *);
    int (*visit)(struct walk *, struct found *, struct wc_error *);
    void (*after)(struct walk *); /* also if it failed, with what it has seen */
};

static int walk_namespace(struct walk *w, const struct pass *pass, struct wc_error *err)
{
    struct found f;
    const char *name;
    struct wc_os_walk *walk;
    int os, rc = wc_store_open_folder(&w->folder, &w->e->cache->store, w->engine_namespace, err);
    if (rc < 0)
        return rc == WASMCACHE_EMISS ? 0 : rc;
    wc_hint_look_start(&w->look, &w->e->cache->hints);
    wc_cache_find_hints(w->e->cache, &w->look, &w->folder, WC_GATE_LOOK);
    w->pins = wc_os_stat_at(w->folder.fd, WC_PINS, &f.st) == 0;
    if (pass->before)
        pass->before(w);
    walk = wc_os_walk_open(w->folder.fd, &os);
    if (!walk)
        rc = wc_fail(err, wc_error_of_errno(os), os, "opendir", w->folder.path, "Cannot list %s",
                     w->folder.path);
    while (rc == 0 && (name = wc_os_walk_next(walk, &os)) != NULL)
        if (find(w, name, &f))
            rc = pass->visit(w, &f, err);
    if (rc == 0 && os < 0)
        rc = wc_fail(err, WASMCACHE_EIO, os, "readdir", w->folder.path, "Cannot list %s",
                     w->folder.path);
    wc_os_walk_close(walk);
    wc_hint_look_end(&w->look);
    if (pass->after)
        pass->after(w);
    wc_folder_close(&w->folder);
    return rc;
}

static void note_failure(struct eviction *e, int rc, const struct wc_error *why)
{
    if (rc < 0 && !e->failure) {
        e->failure = rc;
        e->why = *why;
    }
    e->uncounted |= rc < 0 && rc != WASMCACHE_EUNTRUSTED;
}

static void cannot_list(struct eviction *e, int os, const char *call)
{
    const char *dir = e->cache->store.dir;
    struct wc_error why;
    int rc;
    wc_error_init(&why);
    rc = wc_fail(&why, wc_error_of_errno(os), os, call, dir, "Cannot list %s", dir);
    note_failure(e, rc, &why);
}

/* The same for all namespaces. One that cannot be used does not keep the others from it. */
static void walk_all(struct eviction *e, int root, const struct pass *pass)
{
    const char *name;
    int os = 0;
    struct wc_os_walk *walk = wc_os_walk_open(root, &os);
    if (!walk) {
        cannot_list(e, os, "opendir");
        return;
    }
    while ((name = wc_os_walk_next(walk, &os)) != NULL) {
        struct walk w = {.e = e};
        struct wc_error why;
        if (!wc_namespace_valid(name))
            continue;
        wc_error_init(&why);
        memcpy(w.engine_namespace, name, strlen(name) + 1);
        memset(&e->current, 0, sizeof(e->current));
        note_failure(e, walk_namespace(&w, pass, &why), &why);
    }
    wc_os_walk_close(walk);
    if (os < 0)
        cannot_list(e, os, "readdir");
}

/* ---- the first walk: counting ---- */

static int is_too_old(const struct eviction *e, const struct found *f)
{
    return wc_limits_expired(e->limits, f->worth.last, e->now);
}

static int may_go(const struct walk *w, const struct found *f)
{
    const struct eviction *e = w->e;
    const uint64_t born = wc_os_modified_seconds(&f->st);
    if (born + e->limits->grace > e->now)
        return 0;
    return !w->pins || !wc_is_pinned(&w->folder, f->name);
}

/* Before it is counted: what a remover left may be an entry, which is put back. */
static void clean(struct walk *w)
{
    struct wc_error ignored;
    uint64_t cleaned = 0;
    wc_error_init(&ignored);
    if (w->e->flags & WC_EVICT_CLEAN)
        (void)wc_store_clean(&w->folder, &cleaned, &ignored);
}

static int count(struct walk *w, struct found *f, struct wc_error *err)
{
    struct eviction *e = w->e;
    (void)err;
    e->result->left_bytes += f->st.size;
    e->result->left_entries++;
    if (!may_go(w, f))
        return 0;
    if (is_too_old(e, f)) {
        e->old_bytes += f->st.size;
        e->old_entries++;
    } else {
        const unsigned step = wc_worth_step(&f->worth, e->now);
        e->current.bytes[step] += f->st.size;
        e->current.entries[step]++;
    }
    return 0;
}

static int is_idle(const struct eviction *e, const char *engine_namespace)
{
    for (const struct idle *i = e->idle; i; i = i->next)
        if (strcmp(i->engine_namespace, engine_namespace) == 0)
            return 1;
    return 0;
}

/* 0: no memory; it counts as in use then. */
static int add_idle(struct eviction *e, const char *engine_namespace)
{
    struct idle *i = malloc(sizeof(*i));
    if (!i)
        return 0;
    memcpy(i->engine_namespace, engine_namespace, sizeof(i->engine_namespace));
    i->next = e->idle;
    e->idle = i;
    return 1;
}

/* Now it is known whether the namespace is in use. */
static void add_namespace(struct walk *w)
{
    struct eviction *e = w->e;
    const int idle = w->last_used < e->now && e->now - w->last_used > WEEK;
    struct histogram *to = &e->ages[idle && add_idle(e, w->engine_namespace) ? IDLE : IN_USE];
    for (unsigned step = 0; step < WC_WORTH_STEPS; step++) {
        to->bytes[step] += e->current.bytes[step];
        to->entries[step] += e->current.entries[step];
    }
}

/* What the tally says may be anything. */
static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* How much of a file system may be entries, of which there are `bytes`. */
static uint64_t disk_limit(const struct wc_limits *limits, uint64_t bytes, const char *dir)
{
    uint64_t free_bytes;
    if (!limits->disk_percent || wc_os_free_bytes(dir, &free_bytes) < 0)
        return UINT64_MAX;
    return plus(free_bytes, bytes) / 100 * limits->disk_percent;
}

static uint64_t over(uint64_t value, uint64_t limit)
{
    return value > limit ? value - limit : 0;
}

/* Up to which worth entries have to go. */
static void find_cut(struct eviction *e)
{
    uint64_t limit = e->limits->bytes < e->disk_limit ? e->limits->bytes : e->disk_limit;
    e->bytes_over = over(over(e->result->left_bytes + e->incoming, limit), e->old_bytes);
    e->entries_over =
        over(over(e->result->left_entries + (e->incoming > 0), e->limits->entries), e->old_entries);
    for (e->cut_age = IDLE; e->cut_age < AGES; e->cut_age++) {
        const struct histogram *h = &e->ages[e->cut_age];
        for (e->cut_step = 0; e->cut_step < WC_WORTH_STEPS; e->cut_step++) {
            if (h->bytes[e->cut_step] >= e->bytes_over &&
                h->entries[e->cut_step] >= e->entries_over)
                return;
            e->bytes_over = over(e->bytes_over, h->bytes[e->cut_step]);
            e->entries_over = over(e->entries_over, h->entries[e->cut_step]);
        }
    }
}

/* ---- the second walk: removing ---- */

enum verdict { STAYS, GOES, GOES_WHILE_OVER /* it is of the worth of the cut */ };

static enum verdict judge(const struct eviction *e, const struct walk *w, const struct found *f)
{
    const enum age age = is_idle(e, w->engine_namespace) ? IDLE : IN_USE;
    const unsigned step = wc_worth_step(&f->worth, e->now);
    if (!may_go(w, f))
        return STAYS;
    if (is_too_old(e, f))
        return GOES;
    if (age != e->cut_age)
        return age < e->cut_age ? GOES : STAYS;
    if (step != e->cut_step)
        return step < e->cut_step ? GOES : STAYS;
    return e->bytes_over || e->entries_over ? GOES_WHILE_OVER : STAYS;
}

static int remove_entry(const struct walk *w, const struct found *f, struct wc_error *err)
{
    struct wc_os_stat st;
    int rc, fd = wc_os_open_read(w->folder.fd, f->name);
    if (fd < 0)
        fd = wc_os_open_identity(w->folder.fd, f->name);
    if (fd < 0)
        return WASMCACHE_EMISS;
    if (wc_os_fstat(fd, &st) < 0 || st.ino != f->st.ino)
        rc = WASMCACHE_EBUSY; /* another one by now, which is new */
    else
        rc = wc_store_remove(&w->folder, f->name, fd, err);
    wc_os_close(fd);
    return rc;
}

static int remove_what_has_to_go(struct walk *w, struct found *f, struct wc_error *err)
{
    struct eviction *e = w->e;
    struct wc_error why = *err;
    const enum verdict verdict = judge(e, w, f);
    int rc = 0;
    if (verdict == STAYS)
        return 0;
    if (!(e->flags & WC_EVICT_DRY_RUN))
        rc = remove_entry(w, f, &why);
    if (rc == WASMCACHE_EMISS || rc == WASMCACHE_EBUSY)
        return 0;
    if (rc < 0) {
        e->result->failed++;
        return 0;
    }
    if (verdict == GOES_WHILE_OVER) { /* what is worth less is taken off already */
        e->bytes_over = over(e->bytes_over, f->st.size);
        e->entries_over = over(e->entries_over, 1);
    }
    e->result->removed_bytes += f->st.size;
    e->result->removed_entries++;
    e->result->left_bytes -= f->st.size;
    e->result->left_entries--;
    e->result->removed_compile_ns += f->worth.compile_ns;
    return 0;
}

/* ---- both ---- */

struct totals {
    uint64_t bytes, entries; /* counted */
    uint64_t before_bytes, before_entries;
    int was_known;
};

/* What was published or removed by others meanwhile may be in both: it is counted twice then, and
 * right again after the next time. */
static void set_totals(struct wc_tally *tally, void *payload)
{
    const struct totals *t = payload;
    if (t->was_known && tally->bytes > t->before_bytes)
        tally->bytes = plus(t->bytes, tally->bytes - t->before_bytes);
    else
        tally->bytes = t->bytes;
    if (t->was_known && tally->entries > t->before_entries)
        tally->entries = plus(t->entries, tally->entries - t->before_entries);
    else
        tally->entries = t->entries;
    tally->known = 1;
    tally->cleaned = wc_os_wall_seconds();
}

static void walk_twice(struct eviction *e, int root)
{
    static const struct pass counting = {clean, count, add_namespace};
    static const struct pass removing = {NULL, remove_what_has_to_go, NULL};
    walk_all(e, root, &counting);
    e->disk_limit = disk_limit(e->limits, e->result->left_bytes, e->cache->store.dir);
    find_cut(e);
    if (e->bytes_over || e->entries_over || e->old_entries) /* of the cut, if there is one */
        walk_all(e, root, &removing);
}

static int evict(wasmcache *cache, const struct wc_limits *limits, unsigned flags,
                 uint64_t incoming, int root, wasmcache_prune_result *out, int *counted,
                 struct wc_error *err)
{
    struct eviction *e = calloc(1, sizeof(*e)); /* large */
    int rc;
    if (!e)
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", NULL, "No memory to evict");
    e->cache = cache;
    e->limits = limits;
    e->flags = flags;
    e->incoming = incoming;
    e->now = wc_os_wall_seconds();
    e->result = out;
    walk_twice(e, root);
    *counted = !e->uncounted;
    rc = e->failure;
    if (rc < 0)
        *err = e->why;
    for (struct idle *next, *i = e->idle; i; i = next) {
        next = i->next;
        free(i);
    }
    free(e);
    return rc;
}

int wc_evict(wasmcache *cache, const struct wc_limits *limits, unsigned flags, uint64_t incoming,
             wasmcache_prune_result *out, struct wc_error *err)
{
    struct wc_error ignored = *err;
    struct wc_gate_found found;
    struct wc_tally tally;
    struct totals totals = {0};
    int root, rc, counted = 0;

    rc = wc_gate_open(&cache->store.gate, cache->store.dir, WC_GATE_LOOK, &root, &found, err);
    if (rc < 0)
        return rc == WASMCACHE_EMISS ? 0 : rc;
    if (wc_tally_read(&tally, &cache->store, &ignored) == 0) {
        totals.was_known = tally.known;
        totals.before_bytes = tally.bytes;
        totals.before_entries = tally.entries;
    }
    rc = evict(cache, limits, flags, incoming, root, out, &counted, err);
    wc_os_close(root);
    if (flags & WC_EVICT_DRY_RUN)
        return rc;
    wc_stats_add(cache->stats, WC_STAT_EVICTIONS, out->removed_entries);
    wc_stats_add(cache->stats, WC_STAT_EVICTED_BYTES, out->removed_bytes);
    (void)wc_stats_flush(cache, 0, 0, NULL, &ignored);
    totals.bytes = out->left_bytes;
    totals.entries = out->left_entries;
    if (counted)
        (void)wc_tally_update(&cache->store, set_totals, &totals, NULL, &ignored);
    return rc;
}

/* ---- before a save ---- */

static uint64_t with_slack(uint64_t limit)
{
    return limit > UINT64_MAX - limit / 20 ? UINT64_MAX : limit + limit / 20;
}

static int fits(const wasmcache *cache, uint64_t held_bytes, uint64_t held_entries, uint64_t bytes)
{
    const struct wc_limits *limits = &cache->limits;
    const uint64_t disk = disk_limit(limits, held_bytes, cache->store.dir);
    const uint64_t then = plus(held_bytes, bytes);
    return then <= with_slack(limits->bytes) && then <= with_slack(disk) &&
           held_entries < with_slack(limits->entries);
}

/* 0: there may be no room, or what there is is not known. */
static int has_room(const wasmcache *cache, uint64_t bytes)
{
    struct wc_error ignored;
    struct wc_tally tally;
    int rc;
    wc_error_init(&ignored);
    rc = wc_tally_read(&tally, &cache->store, &ignored);
    return rc == 0 ? tally.known && fits(cache, tally.bytes, tally.entries, bytes)
                   : rc == WASMCACHE_EUNTRUSTED; /* nobody keeps a tally here */
}

static int no_room(const wasmcache *cache, uint64_t bytes, struct wc_error *err)
{
    return wc_fail(err, WASMCACHE_EFULL, 0, NULL, cache->store.dir,
                   "The cache %s has no room for %" PRIu64 " bytes more, and nothing in it may go: "
                   "all is pinned, or too young (evict_after_seconds)",
                   cache->store.dir, bytes);
}

int wc_evict_make_room(wasmcache *cache, uint64_t bytes, struct wc_error *err)
{
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    const struct wc_limits *limits = &cache->limits;
    struct wc_tally_lock lock;
    struct wc_error ignored = *err;
    int rc = 0;

    if (bytes > limits->bytes)
        return wc_fail(err, WASMCACHE_EFULL, 0, NULL, cache->store.dir,
                       "An entry of %" PRIu64 " bytes does not fit into a cache of at most %" PRIu64
                       " (max_bytes)",
                       bytes, limits->bytes);
    if ((limits->bytes == UINT64_MAX && limits->entries == UINT64_MAX && !limits->disk_percent) ||
        has_room(cache, bytes))
        return 0;
    rc = wc_tally_lock(&lock, &cache->store, PATIENCE, &ignored);
    if (rc == WASMCACHE_EBUSY) {
        *err = ignored;
        return rc;
    }
    if (rc < 0)
        return 0; /* no directory yet, or one without locks, where nobody counts */
    if (!has_room(cache, bytes)) {
        (void)wc_evict(cache, limits, 0, bytes, &result, &ignored); /* as far as it came */
        if (!fits(cache, result.left_bytes, result.left_entries, bytes))
            rc = no_room(cache, bytes, err);
    }
    wc_tally_unlock(&lock);
    return rc;
}
