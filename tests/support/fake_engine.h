/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FAKE_ENGINE_H
#define TESTS_FAKE_ENGINE_H

/*
 * A wasmcache_engine_table without an engine, so that tests can count what the library asks of one
 * and make it fail.
 *
 *     struct fake_engine engine;
 *     fake_engine_init(&engine, 1);
 *     wasmcache_attach(&wc, cache, &engine.table, &engine, &options);
 *     ...
 *     assert_int_equal(engine.compiles, 1);
 *     fake_engine_end(&engine);          // fails the test if a rule was broken
 *
 * An artifact is a function of wasm, kind and configuration, and carries the wasm, so that the
 * engine can tell in any process whether bytes are some that it would have made. Two rules are
 * watched all the time:
 *     wrong   no other bytes ever reach deserialize or deserialize_file
 *     live    modules, errors and artifacts are freed, each once
 *
 * Wasm that starts with '!' does not compile. Calls may come from many threads, switches must be
 * set before.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "wasmcache_engine.h"

struct fake_engine {
    wasmcache_engine_table table; /* attach with this; switches below that are table entries have
                                     to be set in it before: compile NULL: no compiler, ... */
    unsigned configuration;       /* may change between calls, as the probe then does */
    size_t artifact_size;         /* artifacts are at least that long */

    /* Switches: non-zero makes that call fail. 1: with an error object, 2: without one. */
    int fail_compile;
    int fail_serialize;
    int fail_file;  /* deserialize_file */
    int fail_bytes; /* deserialize */
    int fail_probe;
    int empty_artifact; /* serialize succeeds with nothing */
    int probe_artifact; /* the probe gives the artifact of an empty module, which has a version */
    int knows_others;   /* bytes that it did not make are refused, and break no rule */
    int fail_clone;
    void (*on_compile)(void *argument); /* called in the middle of each compile */
    void *on_compile_argument;

    /* Calls made. */
    atomic_uint compiles, serializes, files, deserializes, probes, clones;

    /* Rules. */
    atomic_uint wrong;
    atomic_int live_modules, live_errors, live_artifacts;

    /* The last bytes that deserialize or deserialize_file was handed, of a file all of them. */
    pthread_mutex_t lock;
    uint8_t *handed;
    size_t handed_size;
    char path[128]; /* of the last file */
};

/* The engine's own module. */
struct fake_module {
    struct fake_engine *engine;
    wasmcache_kind kind;
    unsigned configuration;
    int loaded; /* 0: compiled */
    size_t length;
    uint8_t wasm[];
};

void fake_engine_init(struct fake_engine *engine, unsigned configuration);

/* For table.artifact_version, which is NULL at first: the version is the configuration. */
int fake_artifact_version(const void *artifact, size_t length, uint32_t *version);

/* What broke a rule, NULL if nothing did. For children, which must not use cmocka's asserts. */
const char *fake_engine_complaint(const struct fake_engine *engine);

/* Frees what was recorded; fails the test if a rule was broken. */
void fake_engine_end(struct fake_engine *engine);

/* Forgets the counts of calls and what was recorded, not the rules. */
void fake_engine_reset(struct fake_engine *engine);

/* 1 if the native module was made of these bytes, as that kind, with that configuration. */
int fake_module_is(const void *native, wasmcache_kind kind, unsigned configuration,
                   const void *wasm, size_t length);

/* The artifact that the engine makes of the wasm; malloc-ed. */
uint8_t *fake_artifact(size_t *size, const struct fake_engine *engine, wasmcache_kind kind,
                       const void *wasm, size_t length);

/* A module as compile makes it, not counted as a call. The caller frees it with
 * engine->table.module_free(). */
void *fake_module_new(struct fake_engine *engine, wasmcache_kind kind, const void *wasm,
                      size_t length);

#endif
