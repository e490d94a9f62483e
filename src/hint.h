/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_HINT_H
#define WC_HINT_H

/*
 * What was found out before and is known to hold still: small facts that save reading a file again.
 *
 *     struct wc_hint_look look;
 *     wc_hint_look_start(&look, &cache->hints);
 *     wc_hint_look_at(&look, dir_fd, WC_HINT_INSIDE, owner); // of the table, once that is open
 *     if (wc_hint_of_file(&about, look.hints, WC_HINT_SOURCE, &st) &&
 *         wc_hint_get(&look, &about, &hint))
 *         ... hint.value
 *     wc_hint_put(&look, &about, &hint);
 *     wc_hint_look_end(&look);
 *
 * A hint is about one thing, named by a hash of its kind and of what identifies the thing; so it
 * never comes to be about something else. Hints live in the process, and in a file that all
 * processes of a user share; docs/format.md has its bytes.
 *
 * A hint may be in any of the 8 slots of its set. The file is read a set and written a slot at a
 * time, with pread and pwrite and without a lock, never mapped: what is torn, half of another's
 * write or noise fails its check and is no hint. Nothing breaks if it is lost, cut, replaced or
 * filled with rubbish. Version and byte order are in its name, so that two libraries never touch
 * each other's.
 */

#include <pthread.h>

#include <wasmcache.h>

#include "os/os.h"

enum wc_hint_kind {
    WC_HINT_SOURCE = 1, /* a file's identity -> the SHA-256 of what is in it */
    WC_HINT_VERIFIED,   /* an entry's identity -> its digest, found to be right; its last use */
    WC_HINT_PROBE,   /* an engine as the embedder and the machine name it -> what its probe gave */
    WC_HINT_VERSION, /* the same -> the version of its artifacts, 4 bytes little-endian */
    WC_HINT_USE      /* an entry by its name -> when it was last used, what compiling it cost */
};

/* What a hint is about. */
struct wc_hint_about {
    uint8_t id[16];
    uint64_t set;  /* which set it lies in, modulo how many there are: the front of the id; hints
                      that are wanted together are given the same, so that one read finds them */
    uint64_t area; /* 0: what is believed. 1: uses, which who names modules can crowd */
};

struct wc_hint {
    uint8_t value[32];
    uint64_t time; /* seconds since 1970 */
};

enum { WC_HINT_SET_SIZE = 512, WC_HINT_MEMORY_SETS = 128 };

/* Of a cache. */
struct wc_hints {
    pthread_mutex_t lock; /* of `sets`; only tried, so that a child of fork cannot hang on it */
    uint8_t *sets[WC_HINT_MEMORY_SETS]; /* in this process; each made at its first put: a new
                                           process clears no memory that it does not need */
    uint8_t boot[16];                   /* the boot id */
    int has_boot;                       /* 0: not to be had, so nothing about files is remembered */
    int writes;                         /* 0: the file is only read */
};

/* Where the table lies as seen from a directory. */
enum wc_hint_place {
    WC_HINT_BESIDE,    /* in the one above it */
    WC_HINT_INSIDE,    /* in it */
    WC_HINT_INSIDE_OWN /* in it, and it is closed at the end */
};

/* The use of the table during one call. */
struct wc_hint_look {
    struct wc_hints *hints;
    int at; /* -1: there is no table, or it was not looked for yet */
    void (*find)(struct wc_hint_look *look, void *payload); /* looks for it; NULL: no more */
    void *payload;
    enum wc_hint_place place;
    int fd;         /* the table, -1: not open */
    int tried;      /* it was opened, or that failed */
    uint32_t owner; /* of the directory */
    int has_set;    /* `set` is the one of that number, as it was read during this call */
    uint64_t set_number;
    uint8_t set[WC_HINT_SET_SIZE];
};

void wc_hints_init(struct wc_hints *hints, int writes);
/* Without it nothing is known of files. */
void wc_hints_find_boot(struct wc_hints *hints);
void wc_hints_release(struct wc_hints *hints);

void wc_hint_look_start(struct wc_hint_look *look, struct wc_hints *hints);
/* Where the table lies is found when something is not known to the process: `find` calls
 * wc_hint_look_at(), or does not. Called once. */
void wc_hint_look_later(struct wc_hint_look *look,
                        void (*find)(struct wc_hint_look *look, void *payload), void *payload);
/* The table lies in a directory that was judged and belongs to `owner`. `at` must stay open until
 * the end. */
void wc_hint_look_at(struct wc_hint_look *look, int at, enum wc_hint_place place, uint32_t owner);
/* The directory is not needed any more; the table stays open for reading. */
void wc_hint_look_leave(struct wc_hint_look *look);
void wc_hint_look_end(struct wc_hint_look *look);

/* What a file is, as long as nobody writes to it: device, inode, size, both times, and since when
 * the machine runs. 0: no boot id, so that the same numbers may mean another file. */
int wc_hint_of_file(struct wc_hint_about *out, const struct wc_hints *hints, enum wc_hint_kind kind,
                    const struct wc_os_stat *st);

/* Anything that 32 bytes name. */
void wc_hint_of_hash(struct wc_hint_about *out, enum wc_hint_kind kind, const uint8_t hash[32]);

/*
 * May something be remembered of a file that `st` is of, which was read since? Only if a write that
 * comes next must move its ctime: the one that it has lies back far enough for the file system's
 * clock, and not in the future; and only where the file system is one that keeps times by itself.
 */
int wc_hint_is_settled(int fd, const struct wc_os_stat *st);

/* The use of an entry, by its name. */
void wc_hint_of_entry(struct wc_hint_about *out, const char *engine_namespace,
                      const wasmcache_key *key);

/* 1: it is in the file. 0. */
int wc_hint_find(struct wc_hint_look *look, const struct wc_hint_about *about, struct wc_hint *out);
/* 1: it is known. 0. Looks in the process first, and keeps there what it finds. */
int wc_hint_get(struct wc_hint_look *look, const struct wc_hint_about *about, struct wc_hint *out);
/* Remembers it, in the process and, where that can be, in the file. No failure shows. */
void wc_hint_put(struct wc_hint_look *look, const struct wc_hint_about *about,
                 const struct wc_hint *hint);
/* The same with the time that it is now. */
void wc_hint_put_now(struct wc_hint_look *look, const struct wc_hint_about *about,
                     const uint8_t value[32]);

#endif
