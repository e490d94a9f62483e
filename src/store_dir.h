/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_STORE_DIR_H
#define WC_STORE_DIR_H

/*
 * The directory store: where entries lie, how they are found, judged and removed. publish.h writes
 * them.
 *
 *     rc = wc_store_open_folder(&folder, store, ns, &err);             // judged by the gate
 *     rc = wc_store_open_entry(&file, store, &folder, &expect, &err);  // trailer read and compared
 *     rc = wc_entry_file_verify(&file, &err);                          // digest
 *     ... file.fd, file.trailer
 *     wc_entry_file_close(&file);
 *     wc_folder_close(&folder);
 *
 * A store keeps no descriptor open: each call judges the directory anew by path, but for loads,
 * which may take what was found a moment ago (call.h). So a directory that is removed, replaced or
 * repaired is seen at once, fork, chroot and close-all-descriptors do no harm, and there is no
 * state to lock.
 */

#include "entry.h"
#include "gate.h"

struct wc_store {
    char *dir;      /* absolute; NULL: off */
    unsigned flags; /* WASMCACHE_DURABLE, ... */
    struct wc_gate gate;
};

/* The folder of a namespace, open. */
struct wc_folder {
    int fd;                  /* -1: not open */
    int straight;            /* no link leads to it, and directory and folder are to be trusted */
    uint32_t owner;          /* of the directory that it lies in */
    char path[WC_PATH_SIZE]; /* for messages */
};
#define WC_FOLDER_INIT                                                                             \
    {                                                                                              \
        -1, 0, 0, ""                                                                               \
    }

/* Opens a namespace's folder. EMISS, EUNTRUSTED, EIO, ENOMEM. */
int wc_store_open_folder(struct wc_folder *out, const struct wc_store *store,
                         const char *engine_namespace, struct wc_error *err);
/* The same, and makes it if it is not there; once more if somebody removes meanwhile what was found
 * or made. EUNTRUSTED, EIO, EFULL, ENOMEM. */
int wc_store_make_folder(struct wc_folder *out, const struct wc_store *store,
                         const char *engine_namespace, struct wc_error *err);
void wc_folder_close(struct wc_folder *folder);

/* What an entry has to be. */
struct wc_expect {
    wasmcache_kind kind; /* 0: either */
    const wasmcache_key *key;
    const char *engine_namespace;
    const uint8_t *fingerprint; /* NULL: any */
    int shared; /* other programs save here too: what has no trailer of ours is theirs (EMISMATCH)
                 */
    int legacy; /* what has no trailer of ours is an old entry, and taken: 0 without has_trailer */
};

/* An entry that is open. Made by open_entry, also partly where that fails: close it always. */
struct wc_entry_file {
    int fd; /* -1: there is none, or it cannot be opened */
    char name[WC_ENTRY_NAME_SIZE];
    char path[WC_PATH_SIZE]; /* for messages */
    struct wc_os_stat st;
    struct wc_trailer trailer; /* valid if open_entry returned 0 or EMISMATCH with has_trailer; of
                                  an old entry only artifact_bytes, which is all of the file */
    int has_trailer;
    int checked; /* its digest was right when it was read, now or before, with the same times and
                    size */
};

/*
 * Opens an entry and judges all but its digest. A folder that is not open is gone through by its
 * path, which no link may be a part of: for who knows that it was judged. EMISS; EUNTRUSTED: owner,
 * mode, file type; ECORRUPT; ENEWER; EMISMATCH; EIO: the system failed, which says nothing about
 * the entry; ENOMEM.
 */
int wc_store_open_entry(struct wc_entry_file *out, const struct wc_store *store,
                        const struct wc_folder *folder, const struct wc_expect *expect,
                        struct wc_error *err);

/* Is a file that was not read still the one that was opened, with the same size and times? */
int wc_entry_file_unchanged(const struct wc_entry_file *file);

/* Checks the digest over the very file that is open, to its end. ECORRUPT; EBUSY: it keeps
 * changing; EIO, ENOMEM: it could not be read. */
int wc_entry_file_verify(struct wc_entry_file *file, struct wc_error *err);

/* Reads the artifact, all of it, into memory that the caller frees, and checks its digest there.
 * ECORRUPT; EIO, ENOMEM: it could not be read. */
int wc_entry_file_read(const struct wc_entry_file *file, uint8_t **out, struct wc_error *err);

void wc_entry_file_close(struct wc_entry_file *file);

/* ---- removal (remove.c) ---- */

/*
 * Removes `name` in `folder` if it is still the file `fd` (which may be open for identity only).
 * Another file of that name survives; it can be absent for an instant. EMISS: the name is gone.
 * EBUSY: it is another file's now. EIO; EUNTRUSTED: it is a directory.
 */
int wc_store_remove(const struct wc_folder *folder, const char *name, int fd, struct wc_error *err);

/* Removes files of writers and removers that are gone. *removed counts them. */
int wc_store_clean(const struct wc_folder *folder, uint64_t *removed, struct wc_error *err);

#endif
