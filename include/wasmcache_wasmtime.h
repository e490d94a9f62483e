/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WASMCACHE_WASMTIME_H
#define WASMCACHE_WASMTIME_H

/*
 * wasmcache for hosts on Wasmtime's C API, version 40 or later: two touches.
 *
 * 1. Attach once, where the engine is made:
 *        wc = wasmcache_wasmtime_attach(cache, engine, settings);
 * 2. Compile with one argument more:
 *        error = wasmcache_wasmtime_module_new(wc, engine, wasm, wasm_len, &module);
 * and before the engine is deleted: wasmcache_detach(wc).
 *
 * This header is static functions. They are compiled in the host against the host's own
 * <wasmtime.h>, and so call the very engine that the host links. `cache` and `wc` may be NULL:
 * the calls are then the engine's own, so a host needs no `if`.
 *
 * A host that loads the engine with dlopen defines WASMCACHE_WASMTIME_CALL(name) before it includes
 * this header, to give the function pointer for `name`.
 */

#include <string.h>

#include <wasmtime.h>

#include "wasmcache_engine.h"

#ifndef WASMCACHE_WASMTIME_CALL
#define WASMCACHE_WASMTIME_CALL(name) name
#endif

#if defined(WASMTIME_FEATURE_COMPONENT_MODEL)
#define WASMCACHE_WASMTIME_COMPONENTS 1
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the engine's functions as a table; hosts go on at "attach" --------------------------------
 */

/* Hands the engine's result over in the library's terms: NULL is success. */
static inline int wasmcache_wasmtime_result(wasmtime_error_t *from, void **error)
{
    if (!from)
        return 0;
    *error = from;
    return -1;
}

static inline void wasmcache_wasmtime_take(wasm_byte_vec_t bytes, wasmcache_artifact *out)
{
    out->data = (const uint8_t *)bytes.data;
    out->size = bytes.size;
    out->owner[0] = bytes.data;
}

static inline void wasmcache_wasmtime_artifact_free(wasmcache_artifact *artifact)
{
    wasm_byte_vec_t bytes;
    bytes.size = artifact->size;
    bytes.data = (wasm_byte_t *)artifact->owner[0];
    WASMCACHE_WASMTIME_CALL(wasm_byte_vec_delete)(&bytes);
}

#if defined(WASMTIME_FEATURE_COMPILER)
static inline int wasmcache_wasmtime_compile(void *engine, wasmcache_kind kind, const void *wasm,
                                             size_t length, void **module, void **error)
{
    wasm_engine_t *e = (wasm_engine_t *)engine;
    const uint8_t *bytes = (const uint8_t *)wasm;
    wasmtime_error_t *result;
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    if (kind == WASMCACHE_COMPONENT) {
        wasmtime_component_t *component = NULL;
        result = WASMCACHE_WASMTIME_CALL(wasmtime_component_new)(e, bytes, length, &component);
        *module = component;
        return wasmcache_wasmtime_result(result, error);
    }
#endif
    wasmtime_module_t *m = NULL;
    (void)kind;
    result = WASMCACHE_WASMTIME_CALL(wasmtime_module_new)(e, bytes, length, &m);
    *module = m;
    return wasmcache_wasmtime_result(result, error);
}

static inline int wasmcache_wasmtime_serialize(void *engine, wasmcache_kind kind, void *module,
                                               wasmcache_artifact *out, void **error)
{
    wasm_byte_vec_t bytes = {0, NULL};
    wasmtime_error_t *result;
    (void)engine;
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    if (kind == WASMCACHE_COMPONENT)
        result = WASMCACHE_WASMTIME_CALL(wasmtime_component_serialize)(
            (wasmtime_component_t *)module, &bytes);
    else
#endif
        result =
            WASMCACHE_WASMTIME_CALL(wasmtime_module_serialize)((wasmtime_module_t *)module, &bytes);
    (void)kind;
    if (!result)
        wasmcache_wasmtime_take(bytes, out);
    return wasmcache_wasmtime_result(result, error);
}

/* The empty module: its artifact carries version, target, CPU features and every setting that
 * changes code, and nothing else. It has a name, since with debug information the engine makes up
 * another one for each module that has none. */
static inline int wasmcache_wasmtime_probe(void *engine, wasmcache_artifact *out, void **error)
{
    static const uint8_t empty[19] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x09,
                                      0x04, 'n',  'a',  'm',  'e',  0x00, 0x02, 0x01, 'p'};
    void *module = NULL;
    int failed =
        wasmcache_wasmtime_compile(engine, WASMCACHE_MODULE, empty, sizeof(empty), &module, error);
    if (failed)
        return failed;
    failed = wasmcache_wasmtime_serialize(engine, WASMCACHE_MODULE, module, out, error);
    WASMCACHE_WASMTIME_CALL(wasmtime_module_delete)((wasmtime_module_t *)module);
    return failed;
}
#endif

static inline int wasmcache_wasmtime_deserialize_file(void *engine, wasmcache_kind kind,
                                                      const char *path, void **module, void **error)
{
    wasm_engine_t *e = (wasm_engine_t *)engine;
    wasmtime_error_t *result;
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    if (kind == WASMCACHE_COMPONENT) {
        wasmtime_component_t *component = NULL;
        result = WASMCACHE_WASMTIME_CALL(wasmtime_component_deserialize_file)(e, path, &component);
        *module = component;
        return wasmcache_wasmtime_result(result, error);
    }
#endif
    wasmtime_module_t *m = NULL;
    (void)kind;
    result = WASMCACHE_WASMTIME_CALL(wasmtime_module_deserialize_file)(e, path, &m);
    *module = m;
    return wasmcache_wasmtime_result(result, error);
}

static inline int wasmcache_wasmtime_deserialize(void *engine, wasmcache_kind kind,
                                                 const void *bytes, size_t length, void **module,
                                                 void **error)
{
    wasm_engine_t *e = (wasm_engine_t *)engine;
    const uint8_t *data = (const uint8_t *)bytes;
    wasmtime_error_t *result;
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    if (kind == WASMCACHE_COMPONENT) {
        wasmtime_component_t *component = NULL;
        result =
            WASMCACHE_WASMTIME_CALL(wasmtime_component_deserialize)(e, data, length, &component);
        *module = component;
        return wasmcache_wasmtime_result(result, error);
    }
#endif
    wasmtime_module_t *m = NULL;
    (void)kind;
    result = WASMCACHE_WASMTIME_CALL(wasmtime_module_deserialize)(e, data, length, &m);
    *module = m;
    return wasmcache_wasmtime_result(result, error);
}

static inline void wasmcache_wasmtime_module_free(wasmcache_kind kind, void *module)
{
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    if (kind == WASMCACHE_COMPONENT) {
        WASMCACHE_WASMTIME_CALL(wasmtime_component_delete)((wasmtime_component_t *)module);
        return;
    }
#endif
    (void)kind;
    WASMCACHE_WASMTIME_CALL(wasmtime_module_delete)((wasmtime_module_t *)module);
}

static inline void *wasmcache_wasmtime_module_clone(wasmcache_kind kind, void *module)
{
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    if (kind == WASMCACHE_COMPONENT)
        return WASMCACHE_WASMTIME_CALL(wasmtime_component_clone)((wasmtime_component_t *)module);
#endif
    (void)kind;
    return WASMCACHE_WASMTIME_CALL(wasmtime_module_clone)((wasmtime_module_t *)module);
}

static inline void wasmcache_wasmtime_error_message(const void *error, char *out, size_t size)
{
    wasm_name_t text = {0, NULL};
    size_t length;
    if (!size)
        return;
    if (error)
        WASMCACHE_WASMTIME_CALL(wasmtime_error_message)((const wasmtime_error_t *)error, &text);
    length = text.size < size - 1 ? text.size : size - 1;
    if (length)
        memcpy(out, text.data, length);
    out[length] = '\0';
    if (error)
        WASMCACHE_WASMTIME_CALL(wasm_byte_vec_delete)(&text);
}

static inline void wasmcache_wasmtime_error_free(void *error)
{
    WASMCACHE_WASMTIME_CALL(wasmtime_error_delete)((wasmtime_error_t *)error);
}

static inline const wasmcache_engine_table *wasmcache_wasmtime_table(void)
{
    static const wasmcache_engine_table table = {
        sizeof(wasmcache_engine_table),
        "wasmtime",
        1u << WASMCACHE_MODULE
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
            | 1u << WASMCACHE_COMPONENT
#endif
        ,
#if defined(WASMTIME_FEATURE_COMPILER)
        wasmcache_wasmtime_compile,
        wasmcache_wasmtime_serialize,
#else
        NULL,
        NULL,
#endif
        wasmcache_wasmtime_artifact_free,
        wasmcache_wasmtime_deserialize_file,
        wasmcache_wasmtime_deserialize,
        wasmcache_wasmtime_module_free,
        wasmcache_wasmtime_error_message,
        wasmcache_wasmtime_error_free,
#if defined(WASMTIME_FEATURE_COMPILER)
        wasmcache_wasmtime_probe,
#else
        NULL,
#endif
        0,
        NULL,
        wasmcache_wasmtime_module_clone
    };
    return &table;
}

/* ---- attach ------------------------------------------------------------------------------------
 */

/*
 * Binds `engine` to `cache` (NULL: it only compiles). `settings`: a string for what the host knows
 * and the engine does not show, such as its own changes to modules; "" or NULL if there is nothing.
 * Everything in wasm_config_t that changes code is found by itself: each process compiles the empty
 * module once, half a millisecond. A string that is not empty saves that: what was found is
 * remembered under it, so it has to be another one for each configuration of the host's.
 *
 * The engine is not touched here but at the first use of the attachment, which compiles the empty
 * module on it. So a process may attach and then fork, as long as it looks nothing up in between:
 * Wasmtime cannot compile in the child of a process that has compiled.
 *
 * Returns the attachment, which the caller ends with wasmcache_detach() before the engine is
 * deleted. NULL (no memory, misuse) is a valid "no attachment"; wasmcache_last_error() says why.
 */
static inline wasmcache_attachment *
wasmcache_wasmtime_attach_with(wasmcache *cache, wasm_engine_t *engine,
                               const wasmcache_attach_options *options)
{
    wasmcache_attachment *attachment = NULL;
    wasmcache_attach_options o = WASMCACHE_ATTACH_OPTIONS_INIT;
    if (options)
        o = *options;
    if (!o.compiler)
        o.compiler =
            WASMCACHE_WASMTIME_CALL(wasmtime_engine_is_pulley)(engine) ? "pulley" : "cranelift";
    if (!o.engine_version)
        o.engine_version = WASMTIME_VERSION;
    if (!o.artifact_version)
        o.artifact_version = WASMTIME_VERSION_MAJOR;
    if (!o.code) {
        o.code = (const void *)(uintptr_t)WASMCACHE_WASMTIME_CALL(wasmtime_module_deserialize);
        o.code_symbol = "wasmtime_module_deserialize";
    }
#if !defined(WASMTIME_FEATURE_COMPILER)
    /* Not to be probed, and a string alone does not tell what the engine is: the fingerprint has to
     * be given, as the tool that made the entries prints it. */
    if (!o.fingerprint)
        o.settings = NULL;
#endif
    wasmcache_attach(&attachment, cache, wasmcache_wasmtime_table(), engine, &o);
    return attachment;
}

static inline wasmcache_attachment *
wasmcache_wasmtime_attach(wasmcache *cache, wasm_engine_t *engine, const char *settings)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.settings = settings;
    return wasmcache_wasmtime_attach_with(cache, engine, &options);
}

/* ---- the engine's own calls, cached ------------------------------------------------------------
 */

#if defined(WASMTIME_FEATURE_COMPILER)

/*
 * wasmtime_module_new() from the cache. The module and the error belong to the caller exactly as
 * with that function, and all errors are the engine's. An engine other than the attached one is
 * never cached.
 */
static inline wasmtime_error_t *wasmcache_wasmtime_module_new(wasmcache_attachment *attachment,
                                                              wasm_engine_t *engine,
                                                              const uint8_t *wasm, size_t wasm_len,
                                                              wasmtime_module_t **ret)
{
    void *module = NULL, *error = NULL;
    if (attachment && wasmcache_attachment_engine(attachment) == engine) {
        wasmcache_source source = wasmcache_source_bytes(wasm, wasm_len);
        int rc = wasmcache_get_native(&module, &error, attachment, WASMCACHE_MODULE, &source, NULL,
                                      NULL);
        if (rc == WASMCACHE_OK) {
            *ret = (wasmtime_module_t *)module;
            return NULL;
        }
        if (rc == WASMCACHE_EENGINE && error)
            return (wasmtime_error_t *)error;
    }
    return WASMCACHE_WASMTIME_CALL(wasmtime_module_new)(engine, wasm, wasm_len, ret);
}

#if defined(WASMCACHE_WASMTIME_COMPONENTS)
/* wasmtime_component_new() from the cache; as wasmcache_wasmtime_module_new(). */
static inline wasmtime_error_t *
wasmcache_wasmtime_component_new(wasmcache_attachment *attachment, const wasm_engine_t *engine,
                                 const uint8_t *wasm, size_t wasm_len, wasmtime_component_t **ret)
{
    void *component = NULL, *error = NULL;
    if (attachment && wasmcache_attachment_engine(attachment) == engine) {
        wasmcache_source source = wasmcache_source_bytes(wasm, wasm_len);
        int rc = wasmcache_get_native(&component, &error, attachment, WASMCACHE_COMPONENT, &source,
                                      NULL, NULL);
        if (rc == WASMCACHE_OK) {
            *ret = (wasmtime_component_t *)component;
            return NULL;
        }
        if (rc == WASMCACHE_EENGINE && error)
            return (wasmtime_error_t *)error;
    }
    return WASMCACHE_WASMTIME_CALL(wasmtime_component_new)(engine, wasm, wasm_len, ret);
}
#endif

#endif /* WASMTIME_FEATURE_COMPILER */

#ifdef __cplusplus
}
#endif

#endif
