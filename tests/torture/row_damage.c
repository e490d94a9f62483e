/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 22 to 24: bits that flip, entries that are torn, sound entries in the wrong place. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/rig.h"
#include "torture/rows.h"
#include "torture/times.h"

static const char wasm[] = "a module whose entry is damaged";

/* The trailer and what is before it that is not the artifact: docs/format.md. */
enum { TRAILER = 400 };

static void open_checking(struct rig *r, wasmcache_verify verify)
{
    r->options.verify = verify;
    r->options.flags = WASMCACHE_READ_ONLY; /* so that what is damaged stays for the next try */
    rig_open(r);
}

/* A load of what is there now must be refused as `want`, before the engine sees a byte. */
static void must_be_refused(struct tally *t, struct rig *r, int want, const char *what,
                            uint64_t where)
{
    const unsigned before = r->engine.files + r->engine.deserializes;
    const int rc = rig_load(r, wasm, NULL);
    t->runs++;
    tally_check(t, 'W', rc != 0 && !r->engine.wrong, "%s %llu: loaded", what,
                (unsigned long long)where);
    tally_check(t, 'X', r->engine.files + r->engine.deserializes == before,
                "%s %llu: the engine was asked", what, (unsigned long long)where);
    tally_check(t, 'X', rc == want, "%s %llu: %s instead of %s", what, (unsigned long long)where,
                wasmcache_error_name(rc), wasmcache_error_name(want));
}

/* What flips in the version or in the magic bytes may be taken for a later format's, or none. */
static void must_not_load(struct tally *t, struct rig *r, const char *what, uint64_t where)
{
    const unsigned before = r->engine.files + r->engine.deserializes;
    const int rc = rig_load(r, wasm, NULL);
    t->runs++;
    tally_check(t, 'W',
                rc != 0 && !r->engine.wrong && r->engine.files + r->engine.deserializes == before,
                "%s %llu: loaded", what, (unsigned long long)where);
}

/* A cache with the one entry, closed. Its path. */
static char *one_entry(struct rig *r, size_t artifact)
{
    char *path;
    rig_init(r);
    r->engine.artifact_size = artifact;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    path = rig_entry(r, wasm);
    rig_close(r);
    return path;
}

static uint64_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void end(struct rig *r)
{
    r->engine.wrong = 0;
    rig_end(r);
}

/* ---- row 22 ---- */

static void all_bits(struct row_run *run)
{
    struct rig r;
    char *path = one_entry(&r, 3600);
    const uint64_t bits = size_of(path) * 8;
    const unsigned step = run->tier == TIER_QUICK ? 5 : 1;
    open_checking(&r, WASMCACHE_VERIFY_ALWAYS);
    for (uint64_t bit = run->seed % step; bit < bits; bit += step) {
        scratch_flip(path, bit);
        must_not_load(run->tally, &r, "bit", bit);
        scratch_flip(path, bit);
    }
    tally_check(run->tally, 'K', rig_load(&r, wasm, NULL) == 0, "whole again, it does not load");
    end(&r);
}

static void random_bits_of_a_large_one(struct row_run *run, unsigned count)
{
    struct rig r;
    char *path = one_entry(&r, 20 << 20);
    const uint64_t bits = size_of(path) * 8;
    uint64_t seed = run->seed;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    (void)fd;
    open_checking(&r, WASMCACHE_VERIFY_ALWAYS);
    for (unsigned i = 0; i < count; i++) {
        const uint64_t bit = (seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u) %
                             (bits - TRAILER * 8);
        scratch_flip(path, bit);
        must_be_refused(run->tally, &r, WASMCACHE_ECORRUPT, "bit", bit);
        scratch_flip(path, bit);
    }
    close(fd);
    end(&r);
}

/* An entry whose check is remembered: whatever goes through the file system is seen. */
static void stamped(struct row_run *run, unsigned count)
{
    struct rig r;
    char *path = one_entry(&r, 40000);
    const uint64_t bits = size_of(path) * 8;
    unsigned remembered = 0;
    open_checking(&r, WASMCACHE_VERIFY_ONCE);
    for (unsigned i = 0; i < count; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        struct timespec times[2];
        struct stat st;
        const uint64_t bit = (uint64_t)i * 104729 % (bits - TRAILER * 8);
        times_pause_us(25000); /* the time after which a stamp is taken on this file system */
        assert_int_equal(rig_load(&r, wasm, &report), 0);
        assert_int_equal(rig_load(&r, wasm, &report), 0);
        remembered++;
        assert_int_equal(stat(path, &st), 0);
        scratch_flip(path, bit);
        if (i % 2) { /* with its old times */
            times[0] = st.st_atim;
            times[1] = st.st_mtim;
            assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
        }
        must_be_refused(run->tally, &r, WASMCACHE_ECORRUPT, "remembered, bit", bit);
        scratch_flip(path, bit);
    }
    (void)remembered;
    end(&r);
}

/* The next compile replaces it. */
static void replaced_by_the_next(struct row_run *run)
{
    struct rig r;
    char *path = one_entry(&r, 3600);
    for (unsigned i = 0; i < 50; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        r.options.flags = 0;
        r.options.verify = WASMCACHE_VERIFY_ALWAYS;
        rig_open(&r);
        scratch_flip(path, i * 577 % (size_of(path) * 8 - TRAILER * 8));
        tally_check(run->tally, 'D', rig_get(&r, wasm, &report) == 0, "a get fails");
        tally_check(run->tally, 'S',
                    report.outcome == WASMCACHE_COMPILED && rig_load(&r, wasm, NULL) == 0,
                    "the entry is not replaced");
        rig_close(&r);
    }
    end(&r);
}

void row_bits(struct row_run *run)
{
    all_bits(run);
    random_bits_of_a_large_one(run, run->tier == TIER_QUICK  ? 50
                                    : run->tier == TIER_FULL ? 10000
                                                             : 100000);
    stamped(run, run->tier == TIER_QUICK ? 30 : 1000);
    replaced_by_the_next(run);
    tally_note(run->tally, "0 of %lu damaged entries reached the engine", run->tally->runs);
    if (run->tally->counts[0].bad)
        tally_note(run->tally, "%lu damaged entries reached the engine", run->tally->counts[0].bad);
}

/* ---- row 23 ---- */

static void write_shape(const char *path, const uint8_t *bytes, size_t size)
{
    scratch_write(path, bytes, size, 0400);
}

static void shapes(struct row_run *run, size_t artifact, unsigned lengths)
{
    struct rig r;
    char *path = one_entry(&r, artifact);
    size_t size, changed;
    uint8_t *good = scratch_read(path, &size), *bad = malloc(size * 2 + 1);
    uint64_t seed = run->seed;
    assert_non_null(bad);
    open_checking(&r, WASMCACHE_VERIFY_ALWAYS);
    /* Cut to each length, or to some. */
    for (unsigned i = 0; lengths ? i < lengths : i < size; i++) {
        const size_t length =
            lengths ? (seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u) % size
                    : i;
        write_shape(path, good, length);
        must_not_load(run->tally, &r, "cut to", length);
    }
    /* Zeros in each sector, each page, and from there to the end. */
    for (size_t unit = 512; unit <= 4096; unit *= 8)
        for (size_t at = 0; at < size; at += lengths ? size / 200 / unit * unit + unit : unit)
            for (int tail = 0; tail <= 1; tail++) {
                memcpy(bad, good, size);
                changed = tail || at + unit > size ? size - at : unit;
                memset(bad + at, 0, changed);
                if (memcmp(bad, good, size) == 0)
                    continue;
                write_shape(path, bad, size);
                must_not_load(run->tally, &r, tail ? "zeros from" : "zeros at", at);
            }
    /* Halves swapped, doubled, more behind. */
    memcpy(bad, good + size / 2, size - size / 2);
    memcpy(bad + size - size / 2, good, size / 2);
    write_shape(path, bad, size);
    must_not_load(run->tally, &r, "halves swapped", 0);
    memcpy(bad, good, size);
    memcpy(bad + size, good, size);
    write_shape(path, bad, size * 2);
    must_not_load(run->tally, &r, "doubled", 0);
    for (size_t more = 1; more < 600; more += 7) {
        memset(bad + size, (int)more, more);
        write_shape(path, bad, size + more);
        must_not_load(run->tally, &r, "bytes more", more);
    }
    write_shape(path, good, size);
    tally_check(run->tally, 'K', rig_load(&r, wasm, NULL) == 0, "whole again, it does not load");
    free(good);
    free(bad);
    end(&r);
}

void row_torn(struct row_run *run)
{
    shapes(run, run->tier == TIER_QUICK ? 1500 : 5000, 0);
    shapes(run, 8 << 20, run->tier == TIER_QUICK ? 40 : 1000);
}

/* ---- row 24 ---- */

static char *entry_of(struct rig *r, const char *of)
{
    char *path;
    rig_open(r);
    assert_int_equal(rig_get(r, of, NULL), 0);
    path = rig_entry(r, of);
    rig_close(r);
    return path;
}

/* A sound entry of another under the name of ours is refused as mismatched, and left as it is. */
static void foreign(struct row_run *run, struct rig *r, const char *theirs, const char *ours,
                    const char *what)
{
    struct tally *t = run->tally;
    size_t size;
    uint8_t *bytes = scratch_read(theirs, &size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    scratch_write(ours, bytes, size, 0400);
    open_checking(r, WASMCACHE_VERIFY_ONCE);
    must_be_refused(t, r, WASMCACHE_EMISMATCH, what, 0);
    tally_check(t, 'K', scratch_same(theirs, ours), "%s: it was changed", what);
    rig_close(r);
    r->options.flags = 0;
    rig_open(r);
    tally_check(t, 'D', rig_get(r, wasm, &report) == 0, "%s: a get fails", what);
    tally_check(t, 'X', report.reason == WASMCACHE_REASON_MISMATCHED, "%s: the reason is %s", what,
                wasmcache_reason_name(report.reason));
    tally_check(t, 'S', rig_load(r, wasm, NULL) == 0, "%s: the key cannot be used", what);
    rig_close(r);
    free(bytes);
}

void row_foreign(struct row_run *run)
{
    struct rig r;
    char *ours, *theirs;
    const unsigned rounds = run->tier == TIER_QUICK ? 20 : 500;
    rig_init(&r);
    ours = entry_of(&r, wasm);
    for (unsigned i = 0; i < rounds; i++) {
        char other[40];
        snprintf(other, sizeof(other), "another module, %u", i);
        theirs = entry_of(&r, other);
        foreign(run, &r, theirs, ours, "another key");

        r.engine.configuration = 2;
        theirs = entry_of(&r, wasm);
        r.engine.configuration = 1;
        foreign(run, &r, theirs, ours, "another configuration");

        r.attach.engine_version = "2.0";
        theirs = entry_of(&r, wasm);
        r.attach.engine_version = "1.0";
        foreign(run, &r, theirs, ours, "another engine");

        r.attach.artifact_version = 2;
        theirs = entry_of(&r, wasm);
        r.attach.artifact_version = 1;
        foreign(run, &r, theirs, ours, "another artifact version");

        r.attach.settings = "other";
        theirs = entry_of(&r, wasm);
        r.attach.settings = NULL;
        foreign(run, &r, theirs, ours, "other settings");
    }
    end(&r);
}
