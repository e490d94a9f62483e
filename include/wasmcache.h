/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WASMCACHE_H
#define WASMCACHE_H

/*
 * wasmcache: a cache of compiled WebAssembly modules for programs that embed an engine through C.
 *
 * Know this first
 * ---------------
 *  - It runs only what it saved. An entry that is damaged, or was made for another engine, version,
 *    CPU or configuration, is a miss. Somebody who can write files as this user is not held off:
 *    docs/trust.md says exactly who is and who is not.
 *  - It never fails the program. The only errors that a get returns are the engine's own and those
 *    about the caller's arguments. Everything else is a miss: the module is compiled.
 *  - The cache directory must not be reachable by a guest (a WASI preopen): wasmcache_overlaps().
 *  - The library links no engine, reads no environment variable, prints nothing and installs no
 *    signal handler. It starts no thread but for requests (wasmcache_async.h).
 *  - Linux 5.4 or later with glibc or musl, x86-64 and arm64.
 *
 * The easy way: two touches (wasmcache_wasmtime.h)
 * -------------------------------------------------
 *     wasmcache *cache;
 *     wasmcache_options options = WASMCACHE_OPTIONS_INIT;
 *     options.dir = "/var/cache/myhost";
 *     wasmcache_open(&cache, &options);
 *     wasmcache_attachment *wc = wasmcache_wasmtime_attach(cache, engine, "");
 *     ...
 *     error = wasmcache_wasmtime_module_new(wc, engine, wasm, wasm_len, &module);
 *     ...
 *     wasmcache_detach(wc);
 *     wasmcache_close(cache);
 *
 * Rules that hold for every function
 * ----------------------------------
 *  - Functions that can fail return 0 or a negative enum wasmcache_error; wasmcache_last_error()
 *    then has the details for the calling thread.
 *  - Out parameters come first and are written only on success, unless their comment says
 *    otherwise. A report is always filled.
 *  - A NULL cache or attachment is a valid "no cache": close and detach ignore it, and calls that
 *    look something up in it say EOFF.
 *  - WASMCACHE_EMISUSE means that the arguments cannot be right. Nothing was touched.
 *  - Structs that callers fill start with their size and have an INIT macro; a library that is
 *    newer or older than the header understands each other's as far as both know the fields.
 *  - Every function may be called from any thread at any time, on the same objects too, except
 *    those that end an object (close, detach, release, free, iterator_close), which must come after
 *    all other calls on it.
 *  - Strings are UTF-8 or raw file names, ended by NUL. Sizes are in bytes, times in nanoseconds
 *    unless the name says otherwise.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WASMCACHE_API __attribute__((visibility("default")))
#else
#define WASMCACHE_API
#endif

/* The version of this header, as semantic versioning has it. */
#define WASMCACHE_VERSION_MAJOR 0
#define WASMCACHE_VERSION_MINOR 1
#define WASMCACHE_VERSION_PATCH 0
#define WASMCACHE_VERSION "0.1.0"

/* The version of the library that runs, a constant string such as "0.1.0". */
WASMCACHE_API const char *wasmcache_version(void);

typedef struct wasmcache wasmcache;
typedef struct wasmcache_attachment wasmcache_attachment;
typedef struct wasmcache_module wasmcache_module;
typedef struct wasmcache_iterator wasmcache_iterator;

/* ---- errors ---------------------------------------------------------------------------------- */

/* Numbers are stable; docs/errors.md has a section on each. */
enum wasmcache_error {
    WASMCACHE_OK = 0,
    WASMCACHE_EMISS = -1,      /* there is no such entry */
    WASMCACHE_ECORRUPT = -2,   /* the entry is damaged */
    WASMCACHE_EMISMATCH = -3,  /* the entry is sound, but for another key, engine or kind */
    WASMCACHE_ENEWER = -4,     /* the entry has a format that a later version wrote */
    WASMCACHE_EUNTRUSTED = -5, /* owner, mode or type of a directory or file rule it out */
    WASMCACHE_EBUSY = -6,      /* others kept changing the entry; try again */
    WASMCACHE_EIO = -7,        /* the operating system refused or failed */
    WASMCACHE_EFULL = -8,      /* no space, quota, inodes or file size limit */
    WASMCACHE_EABORTED = -9,   /* the caller's own callback asked to stop */
    WASMCACHE_EENGINE = -10,   /* the engine's own error: the module does not compile */
    WASMCACHE_EMISUSE = -11,   /* arguments that cannot be right; nothing was touched */
    WASMCACHE_ENOMEM = -12,    /* no memory */
    WASMCACHE_EOFF = -13       /* there is no cache: NULL, off, closed, or the engine unattached */
};

/* A short constant name such as "corrupt" for an error; "unknown" for a number that is none. */
WASMCACHE_API const char *wasmcache_error_name(int error);

/* What went wrong in the last call of this thread that failed. */
typedef struct wasmcache_error_detail {
    size_t size;         /* of this struct in the library */
    int error;           /* enum wasmcache_error */
    int system_errno;    /* errno of the failed call, else 0 */
    const char *call;    /* the system or engine call that failed, "" if none */
    const char *path;    /* the path it was about, "" if none */
    const char *message; /* one or two sentences: what was tried, why it failed, what to do */
} wasmcache_error_detail;

/*
 * The details of the last failure on the calling thread. Never NULL; before any failure its error
 * is 0 and its strings are empty. Owned by the library, valid until this thread calls the library
 * again. Successful calls leave it as it is.
 */
WASMCACHE_API const wasmcache_error_detail *wasmcache_last_error(void);

/* Why a get or load was not a hit. */
typedef enum wasmcache_reason {
    WASMCACHE_REASON_NONE = 0,       /* it was a hit; for an entry: it is sound */
    WASMCACHE_REASON_NOT_FOUND,      /* "not-found": no entry of that key in the namespace */
    WASMCACHE_REASON_CORRUPT,        /* "corrupt": damaged, and removed if that was possible */
    WASMCACHE_REASON_MISMATCHED,     /* "mismatched": made for another key, engine or kind */
    WASMCACHE_REASON_NEWER_FORMAT,   /* "newer-format": written by a later version; left alone */
    WASMCACHE_REASON_UNTRUSTED,      /* "untrusted": owner, mode or file type rule it out */
    WASMCACHE_REASON_UNREADABLE,     /* "unreadable": the system failed or refused to read it */
    WASMCACHE_REASON_ENGINE_REFUSED, /* "engine-refused": sound, but the engine would not load it */
    WASMCACHE_REASON_CACHE_OFF,      /* "cache-off": see wasmcache_status() */
    WASMCACHE_REASON_UNATTACHED,     /* "unattached": see wasmcache_attachment_status() */
    WASMCACHE_REASON_RECOMPILE,      /* "recompile": the caller asked not to look */
    WASMCACHE_REASON_SOURCE,         /* "source": the source could not be read or is misuse */
    WASMCACHE_REASON_EXPIRED         /* "expired": unused for max_age_seconds; the next save
                                        replaces it */
} wasmcache_reason;

/* The constant name of a reason as above in quotes, "none" for NONE. */
WASMCACHE_API const char *wasmcache_reason_name(wasmcache_reason reason);

/* ---- events ---------------------------------------------------------------------------------- */

typedef enum wasmcache_event_type {
    WASMCACHE_EVENT_HIT = 1,       /* an entry was loaded */
    WASMCACHE_EVENT_MISS,          /* a lookup found nothing that can be used; reason says why */
    WASMCACHE_EVENT_SAVED,         /* a new entry was published */
    WASMCACHE_EVENT_KEPT,          /* a sound entry was there already: ours was dropped */
    WASMCACHE_EVENT_SAVE_FAILED,   /* nothing was published; the caller has its module anyway */
    WASMCACHE_EVENT_REMOVED,       /* a bad entry or a left-over file was removed */
    WASMCACHE_EVENT_REMOVE_FAILED, /* it could not be removed */
    WASMCACHE_EVENT_FALLBACK,      /* a slower way was taken: mapped or read bytes, not the file */
    WASMCACHE_EVENT_OFF,           /* the cache directory cannot be used; once, until it can be */
    WASMCACHE_EVENT_ON,            /* it can be used again */
    WASMCACHE_EVENT_UNATTACHED,    /* what an engine is cannot be told: it runs uncached; once */
    WASMCACHE_EVENT_WAIT           /* another thread or process compiles it: this call waits */
} wasmcache_event_type;

/* What happened. Borrowed: valid only during the callback. Strings are never NULL. */
typedef struct wasmcache_event {
    size_t size; /* of this struct in the library */
    wasmcache_event_type type;
    wasmcache_reason reason;
    int error; /* enum wasmcache_error, 0 if nothing failed */
    int system_errno;
    const char *engine_namespace; /* "" if none */
    const char *key;              /* upper-case hex, "" if none */
    const char *path;             /* of the entry or directory, "" if none */
    const char *message;          /* a sentence for people, "" if there is nothing to add */
    uint64_t bytes;               /* of the artifact */
    uint64_t ns;                  /* how long it took, 0 if not measured */
} wasmcache_event;

/*
 * Called on the thread where it happened, in the middle of a call. It may call key and name
 * functions, but no other function of the library; it must return (no longjmp, no exception).
 */
typedef void (*wasmcache_event_fn)(const wasmcache_event *event, void *payload);

/* The constant name of an event type, such as "save-failed". */
WASMCACHE_API const char *wasmcache_event_name(wasmcache_event_type type);

/* ---- keys ------------------------------------------------------------------------------------ */

typedef enum wasmcache_key_algorithm {
    WASMCACHE_KEY_SHA256 = 1, /* 32 bytes; what get uses */
    WASMCACHE_KEY_XXH64 = 2   /* 8 bytes, seed 0, little-endian: for directories of Wasmer's own
                                 cache; not collision resistant, so only for explicit load and save */
} wasmcache_key_algorithm;

/* The content hash of a wasm file. A plain value: copy it, compare it with wasmcache_key_equal().
 */
typedef struct wasmcache_key {
    uint8_t algorithm; /* enum wasmcache_key_algorithm */
    uint8_t length;    /* bytes in use: 32 or 8 */
    uint8_t bytes[32]; /* the rest is zero */
} wasmcache_key;

/* Room for the hex of any key and the NUL behind it. */
#define WASMCACHE_KEY_HEX_SIZE 65

/*
 * The key of `length` bytes at `bytes` (NULL is allowed if length is 0).
 * EMISUSE: unknown algorithm, NULL. ENOMEM.
 */
WASMCACHE_API int wasmcache_key_from_bytes(wasmcache_key *out, wasmcache_key_algorithm algorithm,
                                           const void *bytes, size_t length);
/*
 * The key of a regular file's content, read in pieces. A symbolic link is followed.
 * EIO: it cannot be opened or read, is not a regular file, or has more than 4 GiB. EMISUSE, ENOMEM.
 */
WASMCACHE_API int wasmcache_key_from_path(wasmcache_key *out, wasmcache_key_algorithm algorithm,
                                          const char *path);
/* The same from a descriptor that is open for reading; its offset is neither used nor moved. */
WASMCACHE_API int wasmcache_key_from_fd(wasmcache_key *out, wasmcache_key_algorithm algorithm,
                                        int fd);
/* A key whose digest the caller has. EMISUSE: length is not the algorithm's. */
WASMCACHE_API int wasmcache_key_from_digest(wasmcache_key *out, wasmcache_key_algorithm algorithm,
                                            const uint8_t *digest, size_t length);
/*
 * The key of the same content for the tenant of that salt (1 to 128 bytes): the SHA-256 of a tag,
 * the salt's length as 8 bytes little-endian, the salt, the algorithm and the key's bytes. For
 * loads, saves and removals of what a get with that salt files. A salt that others do not know is
 * what keeps them from asking for the tenant's entries by name. EMISUSE: `key` is invalid, the salt
 * NULL, empty or too long.
 */
WASMCACHE_API int wasmcache_key_salted(wasmcache_key *out, const wasmcache_key *key,
                                       const void *salt, size_t length);
/* From 64 (SHA-256) or 16 (xxh64) hex digits, either case. EMISUSE: anything else. */
WASMCACHE_API int wasmcache_key_from_hex(wasmcache_key *out, const char *hex);
/* Writes the key as upper-case hex and returns `out`. An invalid key gives "". */
WASMCACHE_API char *wasmcache_key_to_hex(char out[WASMCACHE_KEY_HEX_SIZE],
                                         const wasmcache_key *key);
/* 1 if both are valid and the same, else 0. */
WASMCACHE_API int wasmcache_key_equal(const wasmcache_key *a, const wasmcache_key *b);

/* ---- the cache ------------------------------------------------------------------------------- */

/* How others may use the directories and entries that this cache makes. */
typedef enum wasmcache_share {
    WASMCACHE_SHARE_PRIVATE = 0, /* directories 0700, entries 0400 */
    WASMCACHE_SHARE_READABLE,    /* 0755 and 0444: everybody may load */
    WASMCACHE_SHARE_GROUP        /* 0750 and 0440: the group may load */
} wasmcache_share;

/* Flags of wasmcache_options. */
enum {
    WASMCACHE_DURABLE = 1u,   /* a save is on disk when it returns (fdatasync, and the directory's
                                 fsync). Default: a power cut may lose or tear new entries, and a
                                 torn one fails its digest; but one that replaces a sound entry is
                                 on disk before it takes its place */
    WASMCACHE_READ_ONLY = 2u, /* never write, not even to remove a damaged entry */
    WASMCACHE_REPRODUCIBLE = 4u, /* the directory is to be filled once and handed on, and the same
                                    modules give the same files in any order: entries carry no
                                    creation and compile time, what is made has the time
                                    reproducible_time, and no hints, totals or locks are made. So
                                    nothing is counted or evicted, and two processes that compile
                                    the same at the same time both do */
    WASMCACHE_SEALED = 16u,      /* together with READ_ONLY: where root owns the directory and its
                                    mount is read-only, entries are trusted as shared libraries are,
                                    and no digest is compared. Elsewhere it changes nothing */
    WASMCACHE_MAP_REMOTE = 32u,  /* map entries also on file systems that are not known to be local
                                     (NFS, FUSE, 9p, ...), where a page that the server does not give
                                     ends the process with SIGBUS. Without it they are read there */
    WASMCACHE_LEGACY = 8u        /* also load what Wasmer's own cache saved: modules without a
                                    trailer, as they are or compressed with LZW. Nothing vouches for
                                    such a file but its owner and its name, and a damaged one can end
                                    the process, so ask for it only in a directory of that cache.
                                    They are left as they are, and removed if they are nothing that
                                    the engine loads. Only for engines that are attached without
                                    settings, or with "" */
};

/*
 * When the digest of an entry is compared, which is what finds damage. It takes a pass over the
 * entry's bytes, some 6 ms for 53 MB. docs/trust.md has what each finds and what not.
 */
typedef enum wasmcache_verify {
    WASMCACHE_VERIFY_ONCE = 0, /* once for each file as it is: again when anything was written to
                                  it, the machine was started anew, or verify_seconds are over */
    WASMCACHE_VERIFY_ALWAYS,   /* at each load */
    WASMCACHE_VERIFY_NEVER     /* never at a load: only key, engine and lengths are compared. For
                                  directories that something else checks */
} wasmcache_verify;

/* Flags of wasmcache_layer. */
enum {
    WASMCACHE_LAYER_SEALED = 1u, /* as WASMCACHE_SEALED */
    WASMCACHE_LAYER_PROMOTE = 2u /* what is hit there is copied to the cache's own directory */
};

/* A directory that is only read, and asked when the cache's own does not have an entry: baked into
 * an image, or for the whole system. Judged as the cache's own; what is wrong with it is counted.
 */
typedef struct wasmcache_layer {
    size_t size; /* sizeof(wasmcache_layer) */
    const char *dir;
    unsigned flags; /* WASMCACHE_LAYER_... */
} wasmcache_layer;

#define WASMCACHE_LAYER_INIT                                                                       \
    {                                                                                              \
        sizeof(wasmcache_layer), NULL, 0                                                           \
    }

typedef struct wasmcache_options {
    size_t size;     /* sizeof(wasmcache_options) */
    const char *dir; /* the cache directory; made with all its parents when first needed.
                        NULL: the cache is off. Relative: to the directory of the moment */
    unsigned flags;  /* WASMCACHE_DURABLE, ... */
    wasmcache_share share;
    const uint32_t *trust_uids;  /* users beside root and ourselves whose directories and entries
                                    are trusted; copied */
    size_t trust_uid_count;      /* at most 64 */
    wasmcache_event_fn on_event; /* NULL: none */
    void *payload;               /* handed to on_event; must live until the last detach */
    wasmcache_verify verify;
    uint64_t verify_seconds; /* ONCE: how long a check counts; 0: seven days */
    const char *hints_dir;   /* where is remembered what was checked, hashed and used, for a cache
                                whose own directory cannot be written, such as one in an image;
                                judged and made like dir. NULL: in dir */
    struct wasmcache_executor *save_executor; /* of wasmcache_async.h: what a get compiled is saved
                                    on it after the get has returned. NULL, and for engines that
                                    cannot clone a module (stock Wasmer): before. Must outlive the
                                    last get; if it is freed, it saves first what waits */
    unsigned save_count_max; /* how many saves may wait; a get that would be one more saves by
                                itself. 0: 64 */
    uint64_t save_bytes_max; /* the same, in bytes of wasm; 0: 256 MiB */
    /* What the directory may hold. A save that would make it 5 % more evicts first: what is too
     * old, then entries of engines that nobody used for a week, then what is worth least
     * (docs/operations.md). If nothing may go the save fails with EFULL. */
    uint64_t max_bytes;       /* 0: 5 GiB; WASMCACHE_UNLIMITED. An entry that is larger by itself is
                                 not saved */
    uint64_t max_entries;     /* 0: any number */
    uint64_t max_age_seconds; /* since its last use, to the hour; an entry that is older is not
                                 loaded either, unless it is pinned; 0: any */
    unsigned max_disk_percent;    /* entries may take as much of what they take and what is free on
                                     the file system; 0: all of it */
    unsigned evict_after_seconds; /* an entry stays so long after it was saved; 0: 60 */
    unsigned memory_modules;      /* so many modules that were got or loaded as counted ones stay in
                                     memory, by attachment, for the next that wants one; 0: none.
                                     What this process removes or replaces in the directory, through
                                     whatever cache, is not found there any more; what others remove
                                     is */
    uint64_t memory_bytes;        /* of their artifacts in all; 0: 1 GiB */
    const wasmcache_layer *const *layers; /* in the order in which they are asked; copied */
    size_t layer_count;                   /* at most 16 */
    uint64_t reproducible_time; /* REPRODUCIBLE: when entries and folders were written last, as
                                   their files say; seconds since 1970, below 2^33 */
} wasmcache_options;

#define WASMCACHE_UNLIMITED UINT64_MAX

#define WASMCACHE_OPTIONS_INIT                                                                     \
    {                                                                                              \
        sizeof(wasmcache_options), NULL, 0, WASMCACHE_SHARE_PRIVATE, NULL, 0, NULL, NULL,          \
            WASMCACHE_VERIFY_ONCE, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0            \
    }

/*
 * Opens a cache. Returns 0 also when the directory cannot be used: the cache is then off, every get
 * compiles, wasmcache_status() says why and what to do, and it comes on by itself once the
 * directory can be used. `options` NULL: a cache that is off. EMISUSE: out NULL, a size or flag or
 * share that no version knows, an empty dir, too many uids. ENOMEM. On both *out is set to NULL,
 * which is a valid "no cache". The caller ends it with wasmcache_close() after all its attachments
 * are detached.
 */
WASMCACHE_API int wasmcache_open(wasmcache **out, const wasmcache_options *options);

/*
 * Waits until what gets handed to the save_executor so far is saved, or could not be (events tell).
 * 0, EOFF: NULL. Not in a callback or on a thread of that executor. In the child of a fork there is
 * nothing to wait for, and gets save before they return. Any thread.
 */
WASMCACHE_API int wasmcache_flush(wasmcache *cache);

/* Ends a cache, after a flush. NULL is allowed. Modules and attachments that are still held stay
 * valid; gets through such attachments only compile from then on. */
WASMCACHE_API void wasmcache_close(wasmcache *cache);

typedef enum wasmcache_state {
    WASMCACHE_STATE_OFF = 0,
    WASMCACHE_STATE_READ_ONLY, /* hits are served, nothing is saved */
    WASMCACHE_STATE_ON
} wasmcache_state;

typedef struct wasmcache_status_info {
    size_t size; /* set by WASMCACHE_STATUS_INIT */
    wasmcache_state state;
    int error; /* why it is off or read-only, else 0 */
    int system_errno;
    uint32_t uid; /* owner and mode of the directory that was judged, if there is one */
    uint32_t mode;
    char dir[1024];    /* the directory in use, or the one that cannot be used; cut if longer */
    char message[640]; /* one or two sentences: what is wrong and what to do; "" if all is well */
} wasmcache_status_info;

#define WASMCACHE_STATUS_INIT                                                                      \
    {                                                                                              \
        sizeof(wasmcache_status_info), WASMCACHE_STATE_OFF, 0, 0, 0, 0, "", ""                     \
    }

/* Looks at the directory as it is now; makes nothing. NULL cache: off.
 * EMISUSE: out NULL or its size not set. */
WASMCACHE_API int wasmcache_status(wasmcache *cache, wasmcache_status_info *out);

/*
 * Does the directory `dir_fd` (about to be given to a guest) lie inside the cache directory,
 * contain it or the place where it would be made, or show it through a mount below it? Also asked
 * of a directory that is not trusted now. 1 yes, 0 no, negative: EIO (it could not be told: treat
 * it as yes), EMISUSE. Compares device and inode up the tree and at every mount point, so links and
 * bind mounts are seen; what is mounted later is not. NULL, or a cache without a directory: 0.
 */
WASMCACHE_API int wasmcache_overlaps(wasmcache *cache, int dir_fd);

/* ---- attachments: engines bound to a cache ----------------------------------------------------
 */

/*
 * They are made by the glue headers (wasmcache_wasmtime_attach). The engine must outlive the
 * attachment. What engine it is, is found out at the first use, which may compile something small
 * on it: so a process may attach and then fork, if it compiles and looks up nothing in between.
 *
 * Ends it, after the saves of it that wait on a save_executor; NULL is allowed. Modules that came
 * through it stay valid.
 */
WASMCACHE_API void wasmcache_detach(wasmcache_attachment *attachment);

typedef struct wasmcache_attachment_info {
    size_t size;                  /* set by WASMCACHE_ATTACHMENT_INFO_INIT */
    int error;                    /* why this engine runs uncached, else 0 */
    const char *engine;           /* "wasmtime"; these live as long as the attachment */
    const char *engine_namespace; /* "{engine id}-v{artifact version}", "" if uncached */
    uint8_t fingerprint[32];
    const char *message; /* for people, why it runs uncached; "" if it does not */
} wasmcache_attachment_info;

#define WASMCACHE_ATTACHMENT_INFO_INIT                                                             \
    {                                                                                              \
        sizeof(wasmcache_attachment_info), 0, "", "", {0}, ""                                      \
    }

/* What an attachment is; finds it out if this is its first use. NULL attachment: error EOFF and
 * empty strings. EMISUSE: out. */
WASMCACHE_API int wasmcache_attachment_status(wasmcache_attachment *attachment,
                                              wasmcache_attachment_info *out);

/* Room for a text of a wasmcache_identity and the NUL behind it. */
#define WASMCACHE_IDENTITY_TEXT 512

/*
 * What a fingerprint was made of, to tell people in what two engines differ. Nothing is decided by
 * it. Texts are printable ASCII: other bytes and the backslash are "\xHH", and one that is too long
 * ends with "\+" and the SHA-256 of all of it in hex. "": not known, or nothing.
 */
typedef struct wasmcache_identity {
    size_t size;               /* set by WASMCACHE_IDENTITY_INIT */
    uint32_t artifact_version; /* the v{n} of the namespace */
    uint8_t fingerprint[32];
    char adapter[32];
    char compiler[32];
    char engine_version[WASMCACHE_IDENTITY_TEXT];
    char target[WASMCACHE_IDENTITY_TEXT];
    char settings[WASMCACHE_IDENTITY_TEXT];
    char cpu[129];  /* hex of what the processor can do: the same on the same kind of processor. It
                       is in the fingerprint by way of the probe alone */
    char build[65]; /* hex of the build id of the engine's library; "" if it is in the program */
    char probe[65]; /* hex of the SHA-256 of what the engine makes of its probe */
} wasmcache_identity;

#define WASMCACHE_IDENTITY_INIT                                                                    \
    {                                                                                              \
        sizeof(wasmcache_identity), 0, {0}, "", "", "", "", "", "", "", ""                         \
    }

/* Of an attachment; finds it out if this is its first use. EOFF: no attachment or no cache.
 * EMISUSE; and why the engine runs uncached. */
WASMCACHE_API int wasmcache_identity_of(wasmcache_identity *out, wasmcache_attachment *attachment);
/*
 * Of a namespace, as whoever saved there first wrote it down beside the entries. It may be wrong:
 * who can write entries can write that too, and under an engine id that was given engines of all
 * kinds save. EMISS: nobody did. EUNTRUSTED, ECORRUPT, ENEWER, EIO: it cannot be used. EOFF,
 * EMISUSE.
 */
WASMCACHE_API int wasmcache_identity_read(wasmcache_identity *out, wasmcache *cache,
                                          const char *engine_namespace);

/* ---- sources --------------------------------------------------------------------------------- */

/* What the engine compiled. There is one entry for a key: bytes that are text could be either, and
 * then the one replaces the other. */
typedef enum wasmcache_kind { WASMCACHE_MODULE = 1, WASMCACHE_COMPONENT = 2 } wasmcache_kind;

/*
 * Hands over the wasm that belongs to a digest, on a miss only. Sets *bytes and *length and returns
 * 0; the bytes must stay until `release` is called with the same three (NULL: nothing to release).
 * Non-zero: it cannot; the get returns EABORTED.
 */
typedef int (*wasmcache_fetch_fn)(const void **bytes, size_t *length, void *payload);
typedef void (*wasmcache_fetch_release_fn)(const void *bytes, size_t length, void *payload);

typedef enum wasmcache_source_type {
    WASMCACHE_SOURCE_BYTES = 1,
    WASMCACHE_SOURCE_PATH,
    WASMCACHE_SOURCE_FD,
    WASMCACHE_SOURCE_DIGEST
} wasmcache_source_type;

/*
 * Where the wasm is. Everything is borrowed until the call returns. Make one with the functions
 * below. Text (wat) is whatever the engine makes of it.
 */
typedef struct wasmcache_source {
    size_t size; /* sizeof(wasmcache_source) */
    wasmcache_source_type type;
    const void *bytes; /* BYTES */
    size_t length;
    const char *path;             /* PATH: a regular file */
    int fd;                       /* FD: a regular file, open for reading; its offset is not used */
    const char *digest_algorithm; /* DIGEST: "sha256" names the key itself; any other name, such as
                                     "blake3", is hashed together with the digest */
    const void *digest;
    size_t digest_length; /* 1 to 128 */
    int vouched; /* DIGEST: non-zero if the caller vouches that fetch gives the bytes of that
                    digest. Otherwise a miss is saved under the SHA-256 of the bytes that were
                    compiled, which only a "sha256" digest finds again */
    wasmcache_fetch_fn fetch; /* DIGEST: NULL means that a miss is EMISS */
    wasmcache_fetch_release_fn release;
    void *payload;
} wasmcache_source;

static inline wasmcache_source wasmcache_source_empty(wasmcache_source_type type)
{
    wasmcache_source source = {sizeof(wasmcache_source),
                               WASMCACHE_SOURCE_BYTES,
                               NULL,
                               0,
                               NULL,
                               -1,
                               NULL,
                               NULL,
                               0,
                               0,
                               NULL,
                               NULL,
                               NULL};
    source.type = type;
    return source;
}

static inline wasmcache_source wasmcache_source_bytes(const void *bytes, size_t length)
{
    wasmcache_source source = wasmcache_source_empty(WASMCACHE_SOURCE_BYTES);
    source.bytes = bytes;
    source.length = length;
    return source;
}

static inline wasmcache_source wasmcache_source_path(const char *path)
{
    wasmcache_source source = wasmcache_source_empty(WASMCACHE_SOURCE_PATH);
    source.path = path;
    return source;
}

static inline wasmcache_source wasmcache_source_fd(int fd)
{
    wasmcache_source source = wasmcache_source_empty(WASMCACHE_SOURCE_FD);
    source.fd = fd;
    return source;
}

static inline wasmcache_source wasmcache_source_sha256(const uint8_t digest[32],
                                                       wasmcache_fetch_fn fetch, void *payload)
{
    wasmcache_source source = wasmcache_source_empty(WASMCACHE_SOURCE_DIGEST);
    source.digest_algorithm = "sha256";
    source.digest = digest;
    source.digest_length = 32;
    source.fetch = fetch;
    source.payload = payload;
    return source;
}

/* ---- get: load, else compile and save ---------------------------------------------------------
 */

typedef enum wasmcache_outcome {
    WASMCACHE_FAILED = 0,
    WASMCACHE_HIT,
    WASMCACHE_COMPILED,
    WASMCACHE_SAVED, /* of wasmcache_save() alone */
    WASMCACHE_JOINED /* a module that another thread of this process made meanwhile, from the same
                        wasm with the same attachment */
} wasmcache_outcome;

/* The constant name of an outcome: "failed", "hit", "compiled", "saved", "joined". */
WASMCACHE_API const char *wasmcache_outcome_name(wasmcache_outcome outcome);

/* What a call did. Filled by success and failure alike. Times are 0 for what was not done. */
typedef struct wasmcache_report {
    size_t size; /* set by WASMCACHE_REPORT_INIT */
    wasmcache_outcome outcome;
    wasmcache_reason reason; /* why it was not a hit */
    int save_error;    /* COMPILED, JOINED: 0 if the module is in the cache now, else why not; EOFF:
                          it was not to be saved */
    wasmcache_key key; /* what the module is filed under; length 0 if it came to none */
    uint64_t wasm_bytes;
    uint64_t artifact_bytes; /* 0 if it was not serialized */
    uint64_t key_ns;         /* to read and hash the source */
    uint64_t load_ns;        /* from opening the entry to the module, or to the miss */
    uint64_t compile_ns;     /* the engine's compile call alone */
    uint64_t save_ns;        /* to serialize and publish */
    uint64_t total_ns;
    int save_later;   /* 1: it is to be saved on the save_executor; save_error is 0 then */
    int in_memory;    /* 1: a hit in memory; no file was looked at */
    int layer;        /* a hit in a layer: which, from 1; 0: in none */
    uint64_t wait_ns; /* for another's compile of it */
} wasmcache_report;

#define WASMCACHE_REPORT_INIT                                                                      \
    {                                                                                              \
        sizeof(wasmcache_report), WASMCACHE_FAILED, WASMCACHE_REASON_NONE, 0, {0, 0, {0}}, 0, 0,   \
            0, 0, 0, 0, 0, 0, 0, 0, 0                                                              \
    }

/* Flags of wasmcache_get_options. */
enum {
    WASMCACHE_GET_RECOMPILE = 1u, /* do not look; compile, and replace the entry that is there */
    WASMCACHE_GET_NO_SAVE = 2u,   /* compile on a miss, but save nothing */
    WASMCACHE_GET_MUST_HIT = 4u,  /* never compile, never wait: EMISS on a miss */
    WASMCACHE_GET_NO_WAIT = 8u    /* compile at once although another does */
};

/* What a get does now. */
typedef enum wasmcache_phase {
    WASMCACHE_PHASE_LOOKUP = 1,
    WASMCACHE_PHASE_WAIT,    /* another thread or process compiles it */
    WASMCACHE_PHASE_COMPILE, /* the engine's call */
    WASMCACHE_PHASE_SAVE
} wasmcache_phase;

/* The constant name of a phase: "lookup", "wait", "compile", "save". */
WASMCACHE_API const char *wasmcache_phase_name(wasmcache_phase phase);

/* Borrowed: valid only during the callback. */
typedef struct wasmcache_progress {
    size_t size; /* of this struct in the library */
    wasmcache_phase phase;
    wasmcache_key key;       /* length 0: not known yet */
    wasmcache_reason reason; /* why it is not a hit, once that is known */
    uint64_t wasm_bytes;     /* 0: not known yet */
    uint64_t artifact_bytes; /* the same */
    uint64_t phase_ns;       /* since the phase began */
    uint64_t total_ns;       /* since the call began */
} wasmcache_progress;

/*
 * Called at the start of each phase after the lookup, and at least each 100 ms of a wait (as soon
 * as a signal handler of the host's has run, too); not during the engine's own compile call. On the
 * thread of the call; of a request, on its worker. Non-zero: the get returns EABORTED, and nothing
 * is left of it; others that wanted the same module go on. At WASMCACHE_PHASE_SAVE it means not to
 * save: the module is returned, and report->save_error is EABORTED. It must return, and must not
 * get, load or save.
 */
typedef int (*wasmcache_tick_fn)(const wasmcache_progress *progress, void *payload);

typedef struct wasmcache_get_options {
    size_t size;      /* sizeof(wasmcache_get_options) */
    unsigned flags;   /* WASMCACHE_GET_... */
    unsigned wait_ms; /* how long to wait for another thread or process that compiles the same;
                         0: 60,000. After that it waits as long again for whoever else lost its
                         patience and compiles, then compiles itself. WASMCACHE_GET_NO_WAIT: not at
                         all */
    wasmcache_tick_fn tick; /* NULL: none */
    void *tick_payload;
    const void *salt;   /* of a tenant: entries with another salt, or with none, are not found, and
                           what is saved is filed under wasmcache_key_salted(). Borrowed until the
                           call returns, of a request until its callback */
    size_t salt_length; /* at most 128; 0: no salt */
} wasmcache_get_options;

#define WASMCACHE_GET_OPTIONS_INIT                                                                 \
    {                                                                                              \
        sizeof(wasmcache_get_options), 0, 0, NULL, NULL, NULL, 0                                   \
    }

/*
 * The module of `source`: loaded from the cache, else compiled by the engine and saved before the
 * call returns, on the calling thread. `options` and `report` may be NULL. On success *out holds
 * one reference, which the caller gives back with wasmcache_module_release().
 *
 * If another thread or process of this host compiles the same module just now, it waits for that
 * one (WASMCACHE_EVENT_WAIT; docs/threads.md), for at most options->wait_ms.
 * EENGINE: the engine's own error; its text is the detail's message. EIO: a path or descriptor that
 * cannot be read (the source, never the cache). EABORTED: fetch or tick refused. EMISS: a digest
 * without fetch, an engine without a compiler, or WASMCACHE_GET_MUST_HIT, and it is not in the
 * cache. EMISUSE: out, source or attachment NULL, NULL bytes with a length, a length over
 * PTRDIFF_MAX, an unknown kind, flag or size, a kind the engine was built without. ENOMEM. A save
 * that fails is no error: report->save_error and an event tell.
 */
WASMCACHE_API int wasmcache_get(wasmcache_module **out, wasmcache_attachment *attachment,
                                wasmcache_kind kind, const wasmcache_source *source,
                                const wasmcache_get_options *options, wasmcache_report *report);

/* The engine's own module (wasmtime_module_t *), borrowed: valid while a reference is held. */
WASMCACHE_API void *wasmcache_module_native(const wasmcache_module *module);
/*
 * The engine's own module, as the caller's: to be deleted with the engine's own call. Gives back
 * the caller's reference. If others hold the module too it is a clone, which not every engine has
 * (stock Wasmer): NULL then, and the reference stays the caller's. NULL for NULL, and without
 * memory.
 */
WASMCACHE_API void *wasmcache_module_into_native(wasmcache_module *module);
/* One reference more; returns `module`. */
WASMCACHE_API wasmcache_module *wasmcache_module_ref(wasmcache_module *module);
/* One less; the last one deletes the engine's module. NULL is allowed. */
WASMCACHE_API void wasmcache_module_release(wasmcache_module *module);

/* ---- load, save, contains: the caller has the key ---------------------------------------------
 */

/*
 * Loads the entry of `key`, never compiles. EOFF, EMISS, ECORRUPT, EMISMATCH, ENEWER, EUNTRUSTED,
 * EIO: why it did not; the report has the reason. EENGINE: it is sound, but the engine does not
 * load it. EBUSY: somebody keeps changing it. ENOMEM, EMISUSE.
 */
WASMCACHE_API int wasmcache_load(wasmcache_module **out, wasmcache_attachment *attachment,
                                 wasmcache_kind kind, const wasmcache_key *key,
                                 wasmcache_report *report);
/* Flags of wasmcache_save_options. */
enum {
    WASMCACHE_SAVE_REPLACE = 1u /* also a sound entry that is there */
};

typedef struct wasmcache_save_options {
    size_t size;         /* sizeof(wasmcache_save_options) */
    unsigned flags;      /* WASMCACHE_SAVE_... */
    unsigned reserved;   /* 0 */
    uint64_t wasm_bytes; /* size of the wasm, 0: not known */
    uint64_t compile_ns; /* what the compile took, 0: not known. A cache that has to drop entries
                            keeps what was expensive */
} wasmcache_save_options;

#define WASMCACHE_SAVE_OPTIONS_INIT                                                                \
    {                                                                                              \
        sizeof(wasmcache_save_options), 0, 0, 0, 0                                                 \
    }

/*
 * Serializes the engine's module `native` and publishes it under `key`. The caller vouches that it
 * was compiled from the wasm of that key by the attached engine. A sound entry that is there
 * already stays (0 is returned). `options` may be NULL. EOFF, EFULL, EIO, EUNTRUSTED, ENEWER and
 * EMISMATCH (an entry that must not be replaced is there), EBUSY (others keep changing it, or
 * evict), EENGINE (it does not serialize), EMISUSE, ENOMEM: nothing was published, and nothing is
 * left behind. Only a WASMCACHE_DURABLE save whose last "fsync" fails has published, and a power
 * cut may take it back.
 */
WASMCACHE_API int wasmcache_save(wasmcache_attachment *attachment, wasmcache_kind kind,
                                 const wasmcache_key *key, void *native,
                                 const wasmcache_save_options *options, wasmcache_report *report);
/* 0 if the entry is there with a sound trailer for this engine (the artifact itself is not read),
 * else why not, as load. */
WASMCACHE_API int wasmcache_contains(wasmcache_attachment *attachment, wasmcache_kind kind,
                                     const wasmcache_key *key);

/* ---- numbers ---------------------------------------------------------------------------------
 */

typedef enum wasmcache_stats_scope {
    WASMCACHE_STATS_PROCESS = 1, /* of this cache object since it was opened */
    WASMCACHE_STATS_DIRECTORY    /* of all that used the directory and closed, flushed or saved
                                    since, as far as they could write to it */
} wasmcache_stats_scope;

/* Each get or load, also as a request, counts once: as a hit, a memory hit, joined, or a miss,
 * which may be a compile. */
typedef struct wasmcache_stats {
    size_t size; /* set by WASMCACHE_STATS_INIT */
    uint64_t hits;
    uint64_t memory_hits;
    uint64_t layer_hits;     /* of the hits: those in a read-only layer */
    uint64_t layer_failures; /* entries of layers that could not be used */
    uint64_t joined;         /* got the module of another thread */
    uint64_t misses[16]; /* by enum wasmcache_reason; those that joined or compiled among them */
    uint64_t compiles;
    uint64_t compile_ns;
    uint64_t spared_ns; /* what compiling took that hits loaded, as far as the entries tell */
    uint64_t saves;     /* new entries */
    uint64_t kept;      /* a sound one was there already */
    uint64_t save_failures;
    uint64_t removed; /* damaged entries */
    uint64_t remove_failures;
    uint64_t fallbacks; /* loaded from bytes where the engine could not map the file */
    uint64_t waits;     /* for another's compile */
    uint64_t wait_ns;
    uint64_t evictions;
    uint64_t evicted_bytes;
    uint64_t loaded_bytes;      /* of artifacts */
    uint64_t saved_bytes;       /* the same */
    uint64_t hit_times[24];     /* hits by what the call took: under 1, 2, 4, ... microseconds, the
                                   last: longer */
    uint64_t compile_times[24]; /* compiles: the same in milliseconds */
    uint64_t since;             /* DIRECTORY: when counting began, seconds since 1970; 0: never */
    uint64_t bytes;             /* DIRECTORY, if `known`: size of all entries */
    uint64_t entries;
    uint64_t cleaned; /* when they were counted one by one last; 0: never */
    int known;
} wasmcache_stats;

#define WASMCACHE_STATS_INIT                                                                       \
    {                                                                                              \
        sizeof(wasmcache_stats), 0, 0, 0, 0, 0, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  \
            {0}, {0}, 0, 0, 0, 0, 0                                                                \
    }

/* Fills *out. A process that is killed has not counted what it did last; nothing is counted twice.
 * EMISUSE, EOFF; DIRECTORY: EUNTRUSTED, EIO. */
WASMCACHE_API int wasmcache_stats_read(wasmcache *cache, wasmcache_stats_scope scope,
                                       wasmcache_stats *out);
/* The directory's counters start from 0; its totals stay. EOFF, EUNTRUSTED, EIO, EBUSY, EFULL. */
WASMCACHE_API int wasmcache_stats_reset(wasmcache *cache);

/* ---- entries, without an engine ---------------------------------------------------------------
 */

/* Flags of wasmcache_entry_check() and wasmcache_iterate(). */
enum {
    WASMCACHE_CHECK_DIGEST = 1u /* read the whole artifact; without it only the trailer is judged */
};

typedef struct wasmcache_entry {
    size_t size;            /* set by WASMCACHE_ENTRY_INIT */
    wasmcache_reason state; /* NONE: sound. NOT_FOUND, CORRUPT, MISMATCHED, NEWER_FORMAT,
                               UNTRUSTED, UNREADABLE. Unless it is NONE or MISMATCHED, what comes
                               from the trailer below is zero */
    int system_errno;       /* UNREADABLE: why */
    wasmcache_key key;      /* by its file name */
    wasmcache_kind kind;
    char engine_namespace[192]; /* the folder it lies in */
    uint8_t fingerprint[32];
    uint64_t file_bytes;
    uint64_t artifact_bytes;
    uint64_t wasm_bytes; /* 0: not known */
    uint64_t compile_ns; /* 0: not known */
    uint64_t created;    /* seconds since 1970, 0: not known */
    uint64_t last_used;  /* the same: when it was saved or loaded last, to the hour, by a user whose
                            hints this cache reads and who could write them */
    int pinned;          /* 1: it is not evicted */
} wasmcache_entry;

#define WASMCACHE_ENTRY_INIT                                                                       \
    {                                                                                              \
        sizeof(wasmcache_entry), WASMCACHE_REASON_NONE, 0, {0, 0, {0}}, WASMCACHE_MODULE, "", {0}, \
            0, 0, 0, 0, 0, 0, 0                                                                    \
    }

/*
 * Writes the path that the entry of `key` has or would have, at most `size` bytes with the NUL.
 * EMISUSE: namespace or key invalid, or `size` too small (nothing is cut). EOFF: no cache.
 */
WASMCACHE_API int wasmcache_entry_path(char *out, size_t size, wasmcache *cache,
                                       const char *engine_namespace, const wasmcache_key *key);
/*
 * Judges one entry and fills *out, whose state says what was found. Changes nothing.
 * 0 also for a bad entry; EOFF, EMISUSE, ENOMEM; EUNTRUSTED or EIO: the directory cannot be used.
 */
WASMCACHE_API int wasmcache_entry_check(wasmcache_entry *out, wasmcache *cache,
                                        const char *engine_namespace, const wasmcache_key *key,
                                        unsigned flags);
/* Removes the entry that is there, whatever its state; one that is published meanwhile stays. No
 * get of this process that begins after that finds it in memory (memory_modules), in any cache.
 * EMISS: there is none. EIO, EUNTRUSTED, EMISUSE, EOFF. */
WASMCACHE_API int wasmcache_remove(wasmcache *cache, const char *engine_namespace,
                                   const wasmcache_key *key);

/* Reads one entry and removes it if it is damaged: the very file that was read, never another that
 * took its name meanwhile. EMISS: it is not there, or not damaged. EBUSY: others changed it each
 * time that it was read. EIO, EUNTRUSTED, EMISUSE, ENOMEM: it could not be judged or removed. */
WASMCACHE_API int wasmcache_remove_damaged(wasmcache *cache, const char *engine_namespace,
                                           const wasmcache_key *key);

/*
 * Walks over all entries, in no order. Files that are no entries are passed over. What is published
 * or removed meanwhile may or may not be seen.
 *     wasmcache_iterate(&it, cache, NULL, 0);
 *     while ((rc = wasmcache_iterator_next(it, &entry)) == 0) ...
 *     wasmcache_iterator_close(it);
 * `engine_namespace` NULL: all. EMISUSE, ENOMEM, EUNTRUSTED, EIO. One thread at a time.
 */
WASMCACHE_API int wasmcache_iterate(wasmcache_iterator **out, wasmcache *cache,
                                    const char *engine_namespace, unsigned flags);
/* The next entry; EMISS: no more. EIO, EUNTRUSTED, ENOMEM: a folder cannot be used; go on, the next
 * call takes the next. */
WASMCACHE_API int wasmcache_iterator_next(wasmcache_iterator *iterator, wasmcache_entry *out);
/* NULL is allowed. */
WASMCACHE_API void wasmcache_iterator_close(wasmcache_iterator *iterator);

/* Flags of wasmcache_prune_options. */
enum {
    WASMCACHE_PRUNE_DRY_RUN = 1u /* remove nothing, and say what would be */
};

typedef struct wasmcache_prune_options {
    size_t size; /* sizeof(wasmcache_prune_options) */
    unsigned flags;
    unsigned reserved;        /* 0 */
    uint64_t max_bytes;       /* 0: as the cache's options say; WASMCACHE_UNLIMITED */
    uint64_t max_entries;     /* the same */
    uint64_t max_age_seconds; /* the same */
} wasmcache_prune_options;

#define WASMCACHE_PRUNE_OPTIONS_INIT                                                               \
    {                                                                                              \
        sizeof(wasmcache_prune_options), 0, 0, 0, 0, 0                                             \
    }

typedef struct wasmcache_prune_result {
    size_t size; /* set by WASMCACHE_PRUNE_RESULT_INIT */
    uint64_t removed_entries;
    uint64_t removed_bytes;
    uint64_t removed_compile_ns; /* what compiling them took, as far as it is known */
    uint64_t left_entries;
    uint64_t left_bytes;
    uint64_t failed; /* could not be removed */
} wasmcache_prune_result;

#define WASMCACHE_PRUNE_RESULT_INIT                                                                \
    {                                                                                              \
        sizeof(wasmcache_prune_result), 0, 0, 0, 0, 0, 0                                           \
    }

/*
 * Brings the directory into its limits, or into narrower ones, and counts what it holds. `options`
 * and `out` may be NULL. What is mapped somewhere stays usable there. EBUSY: another process does
 * it; EOFF, EMISUSE, EIO (also: the cache is read-only), EUNTRUSTED, ENOMEM.
 */
WASMCACHE_API int wasmcache_prune(wasmcache *cache, const wasmcache_prune_options *options,
                                  wasmcache_prune_result *out);
/* Pins the entry of `key`, which need not be there: it is not evicted. `pinned` 0: not any more.
 * EOFF, EMISUSE, EIO, EUNTRUSTED, EFULL. */
WASMCACHE_API int wasmcache_pin(wasmcache *cache, const char *engine_namespace,
                                const wasmcache_key *key, int pinned);

/*
 * Removes temporary files whose writer is gone (told by their lock, not by age or pid). Sets
 * *removed, if it is not NULL, to how many. EIO: one could not be removed; the others were tried.
 * EUNTRUSTED, ENOMEM.
 */
WASMCACHE_API int wasmcache_clean(wasmcache *cache, uint64_t *removed);

#ifdef __cplusplus
}
#endif

#endif
