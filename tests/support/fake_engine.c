/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact: "FAKEART1", configuration (4 bytes), kind (4), its own size (8), length of the wasm
 * (8), all in the machine's order; the wasm; filler that depends on all before.
 */
#include "support/fake_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char magic[8] = {'F', 'A', 'K', 'E', 'A', 'R', 'T', '1'};

struct header {
    char magic[8];
    uint32_t configuration;
    uint32_t kind;
    uint64_t size;
    uint64_t length;
};

struct fake_error {
    struct fake_engine *engine;
    char text[64];
};

/* ---- artifacts ---- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

static uint8_t *make_artifact(const struct header *h, const uint8_t *wasm)
{
    uint8_t *out = malloc((size_t)h->size);
    uint64_t seed = mix(h->size + h->configuration * 31u + h->kind);
    size_t at = sizeof(*h) + (size_t)h->length;
    if (!out)
        abort();
    memcpy(out, h, sizeof(*h));
    if (h->length)
        memcpy(out + sizeof(*h), wasm, (size_t)h->length);
    for (size_t i = 0; i < h->length; i++)
        seed = mix(seed ^ wasm[i]);
    for (uint64_t i = 0; at < h->size; i++) {
        uint64_t word = mix(seed + i);
        size_t piece = (size_t)h->size - at < 8 ? (size_t)h->size - at : 8;
        memcpy(out + at, &word, piece);
        at += piece;
    }
    return out;
}

uint8_t *fake_artifact(size_t *size, const struct fake_engine *engine, wasmcache_kind kind,
                       const void *wasm, size_t length)
{
    struct header h;
    memcpy(h.magic, magic, sizeof(magic));
    h.configuration = engine->configuration;
    h.kind = (uint32_t)kind;
    h.length = length;
    h.size = sizeof(h) + length + 97; /* odd, so that entries need padding */
    if (h.size < engine->artifact_size)
        h.size = engine->artifact_size;
    *size = (size_t)h.size;
    return make_artifact(&h, wasm);
}

/* Does `bytes` start with an artifact of this engine (and, if `exact`, end with it)? */
static int is_artifact(const struct fake_engine *engine, wasmcache_kind kind, const uint8_t *bytes,
                       size_t size, int exact, struct header *h)
{
    uint8_t *again;
    int same;
    if (size < sizeof(*h))
        return 0;
    memcpy(h, bytes, sizeof(*h));
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->configuration != engine->configuration ||
        h->kind != (uint32_t)kind || h->size > size || h->length > h->size - sizeof(*h) ||
        (exact && h->size != size))
        return 0;
    again = make_artifact(h, bytes + sizeof(*h));
    same = memcmp(again, bytes, (size_t)h->size) == 0;
    free(again);
    return same;
}

int fake_artifact_version(const void *artifact, size_t length, uint32_t *version)
{
    struct header h;
    if (length < sizeof(h))
        return -1;
    memcpy(&h, artifact, sizeof(h));
    *version = h.configuration;
    return memcmp(h.magic, magic, sizeof(magic)) != 0;
}

/* ---- the table ---- */

/* Sets *error as the switch says and returns non-zero if the call is to fail. */
static int fails(struct fake_engine *engine, int how, const char *doing, void **error)
{
    struct fake_error *made;
    *error = NULL;
    if (how != 1)
        return how;
    made = malloc(sizeof(*made));
    if (!made)
        abort();
    made->engine = engine;
    snprintf(made->text, sizeof(made->text), "the fake engine was told to fail: %s", doing);
    atomic_fetch_add(&engine->live_errors, 1);
    *error = made;
    return 1;
}

static void *new_module(struct fake_engine *engine, wasmcache_kind kind, const void *wasm,
                        size_t length, int loaded)
{
    struct fake_module *module = malloc(sizeof(*module) + length);
    if (!module)
        abort();
    module->engine = engine;
    module->kind = kind;
    module->configuration = engine->configuration;
    module->loaded = loaded;
    module->length = length;
    if (length)
        memcpy(module->wasm, wasm, length);
    atomic_fetch_add(&engine->live_modules, 1);
    return module;
}

void *fake_module_new(struct fake_engine *engine, wasmcache_kind kind, const void *wasm,
                      size_t length)
{
    return new_module(engine, kind, wasm, length, 0);
}

static int fake_compile(void *self, wasmcache_kind kind, const void *wasm, size_t length,
                        void **module, void **error)
{
    struct fake_engine *engine = self;
    int how = engine->fail_compile;
    atomic_fetch_add(&engine->compiles, 1);
    if (engine->on_compile)
        engine->on_compile(engine->on_compile_argument);
    if (!how && length && *(const char *)wasm == '!')
        how = 1;
    if (fails(engine, how, "compile", error))
        return 1;
    *module = new_module(engine, kind, wasm, length, 0);
    return 0;
}

static void give_artifact(struct fake_engine *engine, wasmcache_artifact *out, uint8_t *data,
                          size_t size)
{
    out->data = data;
    out->size = size;
    out->owner[0] = engine;
    out->owner[1] = data;
    atomic_fetch_add(&engine->live_artifacts, 1);
}

static int fake_serialize(void *self, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                          void **error)
{
    struct fake_engine *engine = self;
    const struct fake_module *m = module;
    uint8_t *data;
    size_t size;
    atomic_fetch_add(&engine->serializes, 1);
    if (fails(engine, engine->fail_serialize, "serialize", error))
        return 1;
    data = fake_artifact(&size, engine, kind, m->wasm, m->length);
    give_artifact(engine, out, data, engine->empty_artifact ? 0 : size);
    return 0;
}

static void fake_artifact_free(wasmcache_artifact *artifact)
{
    struct fake_engine *engine = artifact->owner[0];
    atomic_fetch_sub(&engine->live_artifacts, 1);
    free(artifact->owner[1]);
}

/* Takes `bytes` over as what was handed last, and judges them. */
static int load(struct fake_engine *engine, wasmcache_kind kind, uint8_t *bytes, size_t size,
                int exact, int how, const char *doing, void **module, void **error)
{
    struct header h;
    int good = is_artifact(engine, kind, bytes, size, exact, &h);
    if (good && !how)
        *module = new_module(engine, kind, bytes + sizeof(h), (size_t)h.length, 1);
    pthread_mutex_lock(&engine->lock);
    free(engine->handed);
    engine->handed = bytes;
    engine->handed_size = size;
    pthread_mutex_unlock(&engine->lock);
    if (!good) {
        atomic_fetch_add(&engine->wrong, !engine->knows_others);
        how = 1;
    }
    return fails(engine, how, doing, error);
}

static uint8_t *read_all(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rbe");
    uint8_t *bytes = NULL;
    size_t room = 0, n;
    *size = 0;
    if (!file)
        return NULL;
    do {
        room = room ? room * 2 : 8192;
        bytes = realloc(bytes, room);
        if (!bytes)
            abort();
        n = fread(bytes + *size, 1, room - *size, file);
        *size += n;
    } while (*size == room);
    if (ferror(file)) {
        free(bytes);
        bytes = NULL;
    }
    fclose(file);
    return bytes;
}

static int fake_deserialize_file(void *self, wasmcache_kind kind, const char *path, void **module,
                                 void **error)
{
    struct fake_engine *engine = self;
    uint8_t *bytes;
    size_t size;
    atomic_fetch_add(&engine->files, 1);
    pthread_mutex_lock(&engine->lock);
    snprintf(engine->path, sizeof(engine->path), "%s", path);
    pthread_mutex_unlock(&engine->lock);
    bytes = read_all(path, &size);
    if (!bytes)
        return fails(engine, 1, "open", error);
    return load(engine, kind, bytes, size, 0, engine->fail_file, "deserialize_file", module, error);
}

static int fake_deserialize(void *self, wasmcache_kind kind, const void *bytes, size_t length,
                            void **module, void **error)
{
    struct fake_engine *engine = self;
    uint8_t *copy = malloc(length + 1);
    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    atomic_fetch_add(&engine->deserializes, 1);
    return load(engine, kind, copy, length, 1, engine->fail_bytes, "deserialize", module, error);
}

static void fake_module_free(wasmcache_kind kind, void *module)
{
    struct fake_module *m = module;
    if (m->kind != kind)
        atomic_fetch_add(&m->engine->wrong, 1);
    atomic_fetch_sub(&m->engine->live_modules, 1);
    free(m);
}

static void fake_error_message(const void *error, char *out, size_t size)
{
    const struct fake_error *e = error;
    snprintf(out, size, "%s", e ? e->text : "");
}

static void fake_error_free(void *error)
{
    struct fake_error *e = error;
    atomic_fetch_sub(&e->engine->live_errors, 1);
    free(e);
}

static int fake_probe(void *self, wasmcache_artifact *out, void **error)
{
    struct fake_engine *engine = self;
    uint8_t *data;
    size_t size;
    atomic_fetch_add(&engine->probes, 1);
    if (fails(engine, engine->fail_probe, "probe", error))
        return 1;
    if (engine->probe_artifact) {
        data = fake_artifact(&size, engine, WASMCACHE_MODULE, "", 0);
    } else {
        size = sizeof(engine->configuration);
        data = malloc(size);
        if (!data)
            abort();
        memcpy(data, &engine->configuration, size);
    }
    give_artifact(engine, out, data, size);
    return 0;
}

static void *fake_module_clone(wasmcache_kind kind, void *module)
{
    const struct fake_module *from = module;
    struct fake_module *m;
    if (from->kind != kind)
        abort();
    atomic_fetch_add(&from->engine->clones, 1);
    if (from->engine->fail_clone)
        return NULL;
    m = fake_module_new(from->engine, kind, from->wasm, from->length);
    m->configuration = from->configuration;
    m->loaded = from->loaded;
    return m;
}

/* ---- its life ---- */

void fake_engine_init(struct fake_engine *engine, unsigned configuration)
{
    const wasmcache_engine_table table = {
        sizeof(table),
        "fake",
        6,
        fake_compile,
        fake_serialize,
        fake_artifact_free,
        fake_deserialize_file,
        fake_deserialize,
        fake_module_free,
        fake_error_message,
        fake_error_free,
        fake_probe,
        0,
        NULL,
        fake_module_clone,
    };
    memset(engine, 0, sizeof(*engine));
    engine->table = table;
    engine->configuration = configuration;
    pthread_mutex_init(&engine->lock, NULL);
}

void fake_engine_reset(struct fake_engine *engine)
{
    engine->compiles = engine->serializes = engine->files = 0;
    engine->deserializes = engine->probes = engine->clones = 0;
    free(engine->handed);
    engine->handed = NULL;
    engine->handed_size = 0;
    engine->path[0] = '\0';
}

const char *fake_engine_complaint(const struct fake_engine *engine)
{
    if (engine->wrong)
        return "the engine was handed bytes that it did not make";
    if (engine->live_modules)
        return "a module was leaked, or freed twice";
    if (engine->live_errors)
        return "an engine's error was leaked, or freed twice";
    if (engine->live_artifacts)
        return "an artifact was leaked, or freed twice";
    return NULL;
}

void fake_engine_end(struct fake_engine *engine)
{
    const char *complaint = fake_engine_complaint(engine);
    free(engine->handed);
    engine->handed = NULL;
    pthread_mutex_destroy(&engine->lock);
    if (complaint)
        fail_msg("%s", complaint);
}

int fake_module_is(const void *native, wasmcache_kind kind, unsigned configuration,
                   const void *wasm, size_t length)
{
    const struct fake_module *m = native;
    return m && m->kind == kind && m->configuration == configuration && m->length == length &&
           (!length || memcmp(m->wasm, wasm, length) == 0);
}
