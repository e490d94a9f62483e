/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WASMCACHE_WASMER_H
#define WASMCACHE_WASMER_H

/*
 * wasmcache for hosts on Wasmer's C API, version 5 or later: two touches.
 *
 * 1. Attach once, where the engine is made:
 *        wc = wasmcache_wasmer_attach(cache, engine, settings);
 * 2. Compile with one argument more:
 *        module = wasmcache_wasmer_module_new(wc, store, &bytes);
 * and before the engine is deleted: wasmcache_detach(wc).
 *
 * Settings are required: Wasmer shows neither its compiler's settings nor its middlewares, and a
 * module that was compiled with other ones loads all the same. Put into the string what the host
 * chose (the costs of metering, NaN canonicalization, features), or "" if all is as
 * wasm_engine_new() has it. With NULL the engine runs uncached, and wasmcache_attachment_status()
 * says why.
 *
 * Nothing is ever compiled on the host's engine but the host's modules: one with metering ends the
 * process at its second module. What version, CPU and format this Wasmer makes is asked of an
 * engine of our own. Stores, too, are our own; the host's is only used where there is no cache.
 *
 * This header is static functions. They are compiled in the host against the host's own <wasmer.h>,
 * and so call the very engine that the host links. `cache` and `wc` may be NULL: the calls are then
 * the engine's own, so a host needs no `if`.
 *
 * A libwasmer that was built with wasmer-plus has three functions more, which are used if they are
 * there when the host starts: a file is mapped instead of copied, a module can be cloned, and the
 * engine tells its id. A host that links such a library statically defines
 * WASMCACHE_WASMER_PLUS before it includes this header, since a linker takes nothing out of an
 * archive that it only may use.
 *
 * A host that loads the engine with dlopen defines WASMCACHE_WASMER_CALL(name) to give the function
 * pointer for `name`, and WASMCACHE_WASMER_OPTIONAL(name) to give it or NULL.
 */

#include <stdlib.h>
#include <string.h>

#include <wasmer.h>

#include "wasmcache_engine.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef WASMCACHE_WASMER_CALL
#define WASMCACHE_WASMER_CALL(name) name
#ifdef WASMCACHE_WASMER_PLUS
#define WASMCACHE_WASMER_WEAK
#else
#define WASMCACHE_WASMER_WEAK __attribute__((weak))
#endif
extern wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                          const char *path) WASMCACHE_WASMER_WEAK;
extern wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module) WASMCACHE_WASMER_WEAK;
extern void wasmer_plus_engine_id(const wasm_engine_t *engine,
                                  wasm_byte_vec_t *out) WASMCACHE_WASMER_WEAK;
#if !defined(WASMCACHE_WASMER_PLUS) && !defined(WASMCACHE_WASMER_OPTIONAL)
/* What is there when the host starts. The names themselves do not tell: in a program that is not
 * position independent they are jumps of its own, to nowhere if there is no such function. */
static wasm_module_t *(*volatile wasmcache_optional_wasmer_plus_module_deserialize_file)(
    const wasm_engine_t *, const char *) = wasmer_plus_module_deserialize_file;
static wasm_module_t *(*volatile wasmcache_optional_wasmer_plus_module_clone)(
    const wasm_module_t *) = wasmer_plus_module_clone;
static void (*volatile wasmcache_optional_wasmer_plus_engine_id)(
    const wasm_engine_t *, wasm_byte_vec_t *) = wasmer_plus_engine_id;
#define WASMCACHE_WASMER_OPTIONAL(name) wasmcache_optional_##name
#endif
#endif

#ifndef WASMCACHE_WASMER_OPTIONAL
#define WASMCACHE_WASMER_OPTIONAL(name) name
#endif
#ifdef WASMCACHE_WASMER_PLUS
#define WASMCACHE_WASMER_HAS(name) 1
#else
#define WASMCACHE_WASMER_HAS(name) (WASMCACHE_WASMER_OPTIONAL(name) != NULL)
#endif

/* ---- the engine's functions as a table; hosts go on at "attach" --------------------------------
 */

/*
 * Wasmer's errors are a text of the calling thread, which is gone when it was read. So an error is
 * not taken out of there until somebody asks for its text: where nobody does, the host can. This
 * address stands for "the thread's text".
 */
static inline int wasmcache_wasmer_failed(void **error)
{
    static char the_text_of_this_thread;
    *error = &the_text_of_this_thread;
    return -1;
}

static inline void wasmcache_wasmer_error_message(const void *error, char *out, size_t size)
{
    int length;
    if (!size)
        return;
    out[0] = '\0';
    length = error ? WASMCACHE_WASMER_CALL(wasmer_last_error_length)() : 0;
    if (length > 0) {
        char *text = (char *)malloc((size_t)length);
        if (text && WASMCACHE_WASMER_CALL(wasmer_last_error_message)(text, length) > 0) {
            const size_t kept = (size_t)length - 1 < size - 1 ? (size_t)length - 1 : size - 1;
            memcpy(out, text, kept);
            out[kept] = '\0';
        }
        free(text);
    }
}

static inline void wasmcache_wasmer_error_free(void *error)
{
    char text[1];
    if (error && WASMCACHE_WASMER_CALL(wasmer_last_error_length)() > 0)
        WASMCACHE_WASMER_CALL(wasmer_last_error_message)(text, 0);
}

static inline void wasmcache_wasmer_artifact_free(wasmcache_artifact *artifact)
{
    wasm_byte_vec_t bytes;
    bytes.size = artifact->size;
    bytes.data = (wasm_byte_t *)artifact->owner[0];
    WASMCACHE_WASMER_CALL(wasm_byte_vec_delete)(&bytes);
}

/* Wasmer reads through it only. */
static inline wasm_byte_vec_t wasmcache_wasmer_borrow(const void *bytes, size_t length)
{
    wasm_byte_vec_t borrowed;
    borrowed.size = length;
    borrowed.data = (wasm_byte_t *)(uintptr_t)bytes;
    return borrowed;
}

static inline int wasmcache_wasmer_compile(void *engine, wasmcache_kind kind, const void *wasm,
                                           size_t length, void **module, void **error)
{
    const wasm_byte_vec_t bytes = wasmcache_wasmer_borrow(wasm, length);
    wasm_store_t *store = WASMCACHE_WASMER_CALL(wasm_store_new)((wasm_engine_t *)engine);
    wasm_module_t *made = NULL;
    (void)kind;
    if (store) {
        made = WASMCACHE_WASMER_CALL(wasm_module_new)(store, &bytes);
        WASMCACHE_WASMER_CALL(wasm_store_delete)(store);
    }
    *module = made;
    return made ? 0 : wasmcache_wasmer_failed(error);
}

static inline int wasmcache_wasmer_serialize(void *engine, wasmcache_kind kind, void *module,
                                             wasmcache_artifact *out, void **error)
{
    wasm_byte_vec_t bytes = {0, NULL};
    (void)engine;
    (void)kind;
    WASMCACHE_WASMER_CALL(wasm_module_serialize)((const wasm_module_t *)module, &bytes);
    if (!bytes.data)
        return wasmcache_wasmer_failed(error);
    out->data = (const uint8_t *)bytes.data;
    out->size = bytes.size;
    out->owner[0] = bytes.data;
    return 0;
}

/* The empty module, on an engine of our own with the defaults. */
static inline int wasmcache_wasmer_probe(void *engine, wasmcache_artifact *out, void **error)
{
    static const uint8_t empty[8] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00};
    wasm_engine_t *own = WASMCACHE_WASMER_CALL(wasm_engine_new)();
    void *module = NULL;
    int failed =
        own ? wasmcache_wasmer_compile(own, WASMCACHE_MODULE, empty, sizeof(empty), &module, error)
            : wasmcache_wasmer_failed(error);
    (void)engine;
    if (!failed) {
        failed = wasmcache_wasmer_serialize(own, WASMCACHE_MODULE, module, out, error);
        WASMCACHE_WASMER_CALL(wasm_module_delete)((wasm_module_t *)module);
    }
    if (own)
        WASMCACHE_WASMER_CALL(wasm_engine_delete)(own);
    return failed;
}

/* An artifact begins with "wasmer-universal", then "WASMER\0\0", the version of the format and the
 * length of what follows, both as this machine has numbers. The version is what Wasmer's own cache
 * has behind the v of its folders. */
static inline int wasmcache_wasmer_artifact_version(const void *artifact, size_t length,
                                                    uint32_t *version)
{
    static const char magic[24] = {'w', 'a', 's', 'm', 'e', 'r', '-', 'u', 'n', 'i', 'v',  'e',
                                   'r', 's', 'a', 'l', 'W', 'A', 'S', 'M', 'E', 'R', '\0', '\0'};
    if (length < 32 || memcmp(artifact, magic, sizeof(magic)) != 0)
        return -1;
    memcpy(version, (const uint8_t *)artifact + sizeof(magic), sizeof(*version));
    return *version ? 0 : -1;
}

static inline int wasmcache_wasmer_deserialize_file(void *engine, wasmcache_kind kind,
                                                    const char *path, void **module, void **error)
{
    wasm_module_t *made = WASMCACHE_WASMER_OPTIONAL(wasmer_plus_module_deserialize_file)(
        (const wasm_engine_t *)engine, path);
    (void)kind;
    *module = made;
    return made ? 0 : wasmcache_wasmer_failed(error);
}

static inline int wasmcache_wasmer_deserialize(void *engine, wasmcache_kind kind, const void *bytes,
                                               size_t length, void **module, void **error)
{
    const wasm_byte_vec_t borrowed = wasmcache_wasmer_borrow(bytes, length);
    wasm_store_t *store = WASMCACHE_WASMER_CALL(wasm_store_new)((wasm_engine_t *)engine);
    wasm_module_t *made = NULL;
    (void)kind;
    if (store) {
        made = WASMCACHE_WASMER_CALL(wasm_module_deserialize)(store, &borrowed);
        WASMCACHE_WASMER_CALL(wasm_store_delete)(store);
    }
    *module = made;
    return made ? 0 : wasmcache_wasmer_failed(error);
}

static inline void wasmcache_wasmer_module_free(wasmcache_kind kind, void *module)
{
    (void)kind;
    WASMCACHE_WASMER_CALL(wasm_module_delete)((wasm_module_t *)module);
}

static inline void *wasmcache_wasmer_module_clone(wasmcache_kind kind, void *module)
{
    (void)kind;
    return WASMCACHE_WASMER_OPTIONAL(wasmer_plus_module_clone)((const wasm_module_t *)module);
}

/* Two tables: with wasmer-plus and without. */
static inline const wasmcache_engine_table *wasmcache_wasmer_table(void)
{
    static const wasmcache_engine_table plus = {sizeof(wasmcache_engine_table),
                                                "wasmer",
                                                1u << WASMCACHE_MODULE,
                                                wasmcache_wasmer_compile,
                                                wasmcache_wasmer_serialize,
                                                wasmcache_wasmer_artifact_free,
                                                wasmcache_wasmer_deserialize_file,
                                                wasmcache_wasmer_deserialize,
                                                wasmcache_wasmer_module_free,
                                                wasmcache_wasmer_error_message,
                                                wasmcache_wasmer_error_free,
                                                wasmcache_wasmer_probe,
                                                WASMCACHE_ENGINE_SETTINGS_REQUIRED,
                                                wasmcache_wasmer_artifact_version,
                                                wasmcache_wasmer_module_clone};
    static const wasmcache_engine_table stock = {sizeof(wasmcache_engine_table),
                                                 "wasmer",
                                                 1u << WASMCACHE_MODULE,
                                                 wasmcache_wasmer_compile,
                                                 wasmcache_wasmer_serialize,
                                                 wasmcache_wasmer_artifact_free,
                                                 NULL,
                                                 wasmcache_wasmer_deserialize,
                                                 wasmcache_wasmer_module_free,
                                                 wasmcache_wasmer_error_message,
                                                 wasmcache_wasmer_error_free,
                                                 wasmcache_wasmer_probe,
                                                 WASMCACHE_ENGINE_SETTINGS_REQUIRED,
                                                 wasmcache_wasmer_artifact_version,
                                                 NULL};
    if (WASMCACHE_WASMER_HAS(wasmer_plus_module_deserialize_file) &&
        WASMCACHE_WASMER_HAS(wasmer_plus_module_clone))
        return &plus;
    return &stock;
}

/* ---- attach ------------------------------------------------------------------------------------
 */

/*
 * Binds `engine` to `cache` (NULL: it only compiles). `settings` see above: NULL and it runs
 * uncached.
 *
 * A Wasmer without a compiler (headless) cannot be asked what it is: there the fingerprint and the
 * artifact version of the options have to be given, as the tool that made the entries prints them.
 * With `engine_id` (Wasmer's own is such as "cranelift-opts-rkyv") the folder is shared with
 * Wasmer's Rust cache.
 *
 * The engine is not touched here; the engine of our own that is asked is made at the first use of
 * the attachment, so that a process may attach and then fork.
 *
 * Returns the attachment, which the caller ends with wasmcache_detach() before the engine is
 * deleted. NULL (no memory, misuse) is a valid "no attachment"; wasmcache_last_error() says why.
 */
static inline wasmcache_attachment *
wasmcache_wasmer_attach_with(wasmcache *cache, wasm_engine_t *engine,
                             const wasmcache_attach_options *options)
{
    wasmcache_attachment *attachment = NULL;
    wasmcache_attach_options o = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasm_byte_vec_t id = {0, NULL};
    char compiler[32] = "default", own[128] = "";
    if (options)
        o = *options;
    /* The engine's id is its compiler and what it was told: "cranelift-opts-rkyv". */
    if (WASMCACHE_WASMER_HAS(wasmer_plus_engine_id) && engine) {
        WASMCACHE_WASMER_OPTIONAL(wasmer_plus_engine_id)(engine, &id);
        if (id.size && id.size < sizeof(own)) {
            size_t word;
            memcpy(own, id.data, id.size);
            word = strspn(own, "abcdefghijklmnopqrstuvwxyz0123456789");
            if (word && word < sizeof(compiler)) {
                memcpy(compiler, own, word);
                compiler[word] = '\0';
            }
        }
        WASMCACHE_WASMER_CALL(wasm_byte_vec_delete)(&id);
    }
    if (!o.compiler)
        o.compiler = compiler;
    if (!o.target)
        o.target = own;
    if (!o.engine_version)
        o.engine_version = WASMER_VERSION;
    if (!o.code) {
        o.code = (const void *)(uintptr_t)WASMCACHE_WASMER_CALL(wasmer_last_error_length);
        o.code_symbol = "wasmer_last_error_length";
    }
    wasmcache_attach(&attachment, cache, wasmcache_wasmer_table(), engine, &o);
    return attachment;
}

static inline wasmcache_attachment *wasmcache_wasmer_attach(wasmcache *cache, wasm_engine_t *engine,
                                                            const char *settings)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.settings = settings;
    return wasmcache_wasmer_attach_with(cache, engine, &options);
}

/* ---- the engine's own call, cached -------------------------------------------------------------
 */

/*
 * wasm_module_new() from the cache. The module belongs to the caller, who deletes it with
 * wasm_module_delete(). NULL: the engine's own refusal; wasmer_last_error_message() says why, as
 * with that function. `store` is one of the attached engine; it is touched only where there is no
 * attachment.
 */
static inline wasm_module_t *wasmcache_wasmer_module_new(wasmcache_attachment *attachment,
                                                         wasm_store_t *store,
                                                         const wasm_byte_vec_t *bytes)
{
    void *module = NULL, *error = NULL;
    if (attachment && store && bytes) {
        wasmcache_source source = wasmcache_source_bytes(bytes->data, bytes->size);
        int rc = wasmcache_get_native(&module, &error, attachment, WASMCACHE_MODULE, &source, NULL,
                                      NULL);
        if (rc == WASMCACHE_OK)
            return (wasm_module_t *)module;
        if (rc == WASMCACHE_EENGINE)
            return NULL; /* its text is the thread's still */
    }
    return WASMCACHE_WASMER_CALL(wasm_module_new)(store, bytes);
}

#ifdef __cplusplus
}
#endif

#endif
