/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WASMCACHE_ENGINE_H
#define WASMCACHE_ENGINE_H

/*
 * For writers of glue: what an engine has to bring to be cached. Hosts include the glue itself
 * (wasmcache_wasmtime.h).
 *
 * A glue header is static functions that are compiled in the host against the host's own engine
 * headers, so that all calls bind to the host's own engine, linked or loaded:
 *     1. fill a wasmcache_engine_table, once, as a constant;
 *     2. attach: wasmcache_attach() with the table, the engine and what identifies it;
 *     3. the engine's own compile call plus the attachment: wasmcache_get_native(), and on any
 * error but EENGINE the engine's own call.
 */

#include "wasmcache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that belong to the engine. The adapter uses `owner` as it likes. This struct never grows.
 */
typedef struct wasmcache_artifact {
    const uint8_t *data;
    size_t size;
    void *owner[3];
} wasmcache_artifact;

/*
 * The functions of an engine. They are called on the thread of the caller of the library, for one
 * engine from many threads at a time; they must return. Those that return int: 0 is success, and
 * the out parameter is set; otherwise *error is the engine's own error (or NULL if it has none),
 * which the library frees or hands to the caller of wasmcache_get_native(). `kind` is one of
 * `kinds`, a module by its engine pointer type.
 */
typedef struct wasmcache_engine_table {
    size_t size;      /* sizeof(wasmcache_engine_table) */
    const char *name; /* the adapter: "wasmtime"; a constant of [a-z0-9]+ */
    unsigned kinds;   /* bit 1 << WASMCACHE_MODULE, 1 << WASMCACHE_COMPONENT: what it can do */

    /* May be NULL: an engine without a compiler. */
    int (*compile)(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                   void **module, void **error);
    /* May be NULL, together with compile. The artifact is given back with artifact_free. */
    int (*serialize)(void *engine, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                     void **error);
    void (*artifact_free)(wasmcache_artifact *artifact);
    /* May be NULL. The file is `path`; bytes may follow the artifact in it. */
    int (*deserialize_file)(void *engine, wasmcache_kind kind, const char *path, void **module,
                            void **error);
    /* The bytes are not needed after it returns. */
    int (*deserialize)(void *engine, wasmcache_kind kind, const void *bytes, size_t length,
                       void **module, void **error);
    void (*module_free)(wasmcache_kind kind, void *module);
    /* Writes the error's text, cut to `size` with its NUL. error may be NULL. */
    void (*error_message)(const void *error, char *out, size_t size);
    void (*error_free)(void *error);
    /*
     * Serializes something small whose bytes change when, and only when, a real module's would with
     * this engine's configuration (on Wasmtime: the empty module). NULL: it cannot be probed, and
     * then settings or a fingerprint must be given at attach.
     */
    int (*probe)(void *engine, wasmcache_artifact *out, void **error);

    unsigned flags; /* WASMCACHE_ENGINE_... */
    /*
     * The version of the artifact format, from the artifact itself: 0 and *version, or not 0 if the
     * bytes are no artifact of this engine. May be NULL. With it the v{n} of the namespace can be
     * left to the probe; nothing is saved into a namespace of another version, and no old entry
     * that has no such header is handed to the engine.
     */
    int (*artifact_version)(const void *artifact, size_t length, uint32_t *version);
    /* Another handle of the same module, to be deleted on its own; NULL: no memory. May be NULL:
     * then an engine's module that others hold too cannot be taken out of a wasmcache_module. */
    void *(*module_clone)(wasmcache_kind kind, void *module);
} wasmcache_engine_table;

/* Flags of wasmcache_engine_table. */
enum {
    WASMCACHE_ENGINE_SETTINGS_REQUIRED = 1u /* the probe shows version, target and CPU, but not how
                                               the engine was configured: without settings it runs
                                               uncached. What the probe shows does not change */
};

/* What an adapter knows about an engine, and what the embedder says about it. */
typedef struct wasmcache_attach_options {
    size_t size;                /* sizeof(wasmcache_attach_options) */
    const char *compiler;       /* "cranelift"; part of the default id, [a-z0-9]+ */
    const char *engine_version; /* "50.0.1"; part of the fingerprint */
    uint32_t artifact_version;  /* the v{n} of the namespace; 0: that of the probe's artifact */
    const char *target;         /* what of target and CPU the probe does not show; NULL: nothing */
    const char *settings;       /* what the embedder vouches for; NULL and "" are the same where the
                                   probe shows the configuration. No secret: it is written down
                                   beside the entries, for who may read those */
    const char *engine_id;      /* NULL: "{name}-{compiler}-{16 hex of the fingerprint}". A given id
                                   shares its folder with others: entries that do not match are left
                                   alone there */
    const uint8_t *fingerprint; /* 32 bytes, NULL: made of the above and the probe */
    const void *code; /* a function of the engine, NULL: none. If another loaded image than the
                         table's defines it, that image's GNU build id becomes part of the
                         fingerprint: a shared library that was replaced by a patched one is another
                         engine, although the host was not compiled anew */
    const char *code_symbol; /* its name in that image */
} wasmcache_attach_options;

#define WASMCACHE_ATTACH_OPTIONS_INIT                                                              \
    {                                                                                              \
        sizeof(wasmcache_attach_options), NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL        \
    }

/*
 * Binds an engine to a cache (NULL: none; it then only compiles). Strings are copied; `table` is
 * used as long as the attachment or a counted module lives; `engine` until detach.
 *
 * What the engine is, is found out at the first use of the attachment, by its probe. If that cannot
 * be told (no probe and no settings, the probe fails) the attachment compiles only, and
 * wasmcache_attachment_status() and an event say why.
 * EMISUSE: NULLs, an invalid id (ids match [A-Za-z0-9][A-Za-z0-9._+-]*, at most 128 bytes, without
 * ".."), sizes no version knows. ENOMEM.
 */
WASMCACHE_API int wasmcache_attach(wasmcache_attachment **out, wasmcache *cache,
                                   const wasmcache_engine_table *table, void *engine,
                                   const wasmcache_attach_options *options);

/* The engine that was attached, for glue to compare with the one of a call. NULL: no attachment. */
WASMCACHE_API void *wasmcache_attachment_engine(const wasmcache_attachment *attachment);

/*
 * As wasmcache_get(), but the module is the engine's own and belongs to the caller, who deletes it
 * with the engine's own call. EENGINE: *engine_error is the engine's own error, the caller's too
 * (it can be NULL if the engine gave none); its text was not asked for, since some engines (Wasmer)
 * keep it in a place of the thread that can be read once, and that is the host's to read.
 */
WASMCACHE_API int wasmcache_get_native(void **out, void **engine_error,
                                       wasmcache_attachment *attachment, wasmcache_kind kind,
                                       const wasmcache_source *source,
                                       const wasmcache_get_options *options,
                                       wasmcache_report *report);

#ifdef __cplusplus
}
#endif

#endif
