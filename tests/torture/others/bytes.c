/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 22 to 24 for other caches: bits that flip, torn entries, sound ones in the wrong place. */
#define _GNU_SOURCE
#include "others.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint8_t *good, *bad; /* bad: twice the room */
    size_t size;
    unsigned long taken; /* and was not what it was */
    unsigned long same;  /* hits whose artifact is right all the same */
};

static void entry_init(struct bench *b, struct entry *e)
{
    memset(e, 0, sizeof(*e));
    e->good = scratch_read(b->key_copy, &e->size);
    e->bad = malloc(e->size * 2 + 1);
    if (!e->bad)
        abort();
    bench_prepare(b, b->with_key);
}

static void entry_end(struct entry *e)
{
    free(e->good);
    free(e->bad);
}

/* A get of what is in e->bad. `again`: whether the key can be used then is looked at too, if it was
 * refused. */
static void try_bad(struct bench *b, struct entry *e, size_t size, int again)
{
    struct told told;
    bench_write_entry(b, e->bad, size);
    b->tally->runs++;
    b->met++;
    bench_get(b, &told, KEY, 0, NULL, NULL);
    bench_judge(b, &told, KEY, 0);
    if (told.hit && told.proved && told.artifact == b->artifact[KEY])
        e->same++;
    else if (told.hit)
        e->taken++;
    if (again && told.compiled) {
        bench_check_by(b);
        bench_check_usable(b, KEY);
    }
    /* What a fallen get left must not spoil the next one. */
    if (told.end.signal || told.end.exit_status != 0)
        bench_prepare(b, b->with_key);
}

/* As is: once more, that the row does not count what would have happened anyway. */
static void try_good(struct bench *b, struct entry *e)
{
    struct told told;
    bench_prepare(b, b->with_key);
    bench_get(b, &told, KEY, 0, NULL, NULL);
    bench_must(b, told.hit && told.artifact == b->artifact[KEY], "whole again, it is no hit");
    if (e->same)
        tally_note(b->tally, "%lu more taken, with the right artifact", e->same);
}

void others_bits(struct bench *b)
{
    const unsigned count = b->quick ? 40 : 2000;
    struct entry e;
    entry_init(b, &e);
    for (unsigned i = 0; i < count; i++) {
        const size_t bit = bench_random(b) % (e.size * 8);
        memcpy(e.bad, e.good, e.size);
        e.bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        tally_about(b->tally, "bit %zu", bit);
        try_bad(b, &e, e.size, i % 5 == 0);
    }
    try_good(b, &e);
    entry_end(&e);
}

void others_torn(struct bench *b)
{
    const unsigned count = b->quick ? 10 : 300;
    struct entry e;
    entry_init(b, &e);
    for (unsigned i = 0; i < count; i++) {
        const size_t length = i < 8 ? i * 7 : bench_random(b) % e.size;
        memcpy(e.bad, e.good, e.size);
        tally_about(b->tally, "cut to %zu", length);
        try_bad(b, &e, length, i % 5 == 0);
    }
    /* Zeros: a sector or page at a place, or from there to the end, as after a power cut. */
    for (unsigned i = 0; i < count; i++) {
        const size_t unit = i % 2 ? 512 : 4096;
        const size_t at = bench_random(b) % ((e.size + unit - 1) / unit) * unit;
        const size_t room = e.size - at;
        memcpy(e.bad, e.good, e.size);
        memset(e.bad + at, 0, i % 4 < 2 && room > unit ? unit : room);
        if (memcmp(e.bad, e.good, e.size) == 0)
            continue;
        tally_about(b->tally, "zeros from %zu", at);
        try_bad(b, &e, e.size, i % 5 == 0);
    }
    memcpy(e.bad, e.good + e.size / 2, e.size - e.size / 2);
    memcpy(e.bad + e.size - e.size / 2, e.good, e.size / 2);
    tally_about(b->tally, "halves swapped");
    try_bad(b, &e, e.size, 1);
    try_good(b, &e);
    entry_end(&e);
}

/* ---- row 24 ---- */

/* A sound entry of another, in the place of KEY's. */
static void foreign(struct bench *b, const uint8_t *bytes, size_t size, const char *what)
{
    struct told told;
    bench_prepare(b, b->with_key);
    bench_write_entry(b, bytes, size);
    tally_about(b->tally, "%s", what);
    b->tally->runs++;
    b->met++;
    bench_get(b, &told, KEY, 0, NULL, NULL);
    bench_judge(b, &told, KEY, 0);
    bench_check_by(b);
    if (told.compiled)
        bench_check_usable(b, KEY);
}

void others_foreign(struct bench *b)
{
    const unsigned rounds = b->quick ? 2 : 50;
    struct told told;
    size_t size;
    uint8_t *by = scratch_read(b->by_copy, &size), *other = NULL;
    for (unsigned i = 0; i < rounds; i++)
        foreign(b, by, size, "another module's entry");
    free(by);

    /* The same module, with an engine that does not optimize. */
    for (unsigned i = 0; i < rounds; i++) {
        char *path;
        const char *before, *after;
        bench_prepare(b, b->with_by);
        before = scratch_tree(&b->scratch, b->dir);
        bench_get(b, &told, KEY, 1, NULL, NULL);
        after = scratch_tree(&b->scratch, b->dir);
        tally_about(b->tally, "other settings");
        if (!bench_must(b, told.compiled && b->other_artifact != b->artifact[KEY],
                        "with other settings it is the same artifact"))
            return;
        path = scratch_exists(b->entry[KEY]) ? b->entry[KEY]
                                             : tree_new_file(&b->scratch, b->dir, before, after);
        if (!bench_must(b, path != NULL, "it was not saved"))
            return;
        /* In the place of ours; where the engine's settings do not count, it is there already. */
        other = scratch_read(path, &size);
        foreign(b, other, size,
                path == b->entry[KEY] ? "other settings, in the same place"
                                      : "other settings, copied");
        free(other);
    }
}
