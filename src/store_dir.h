/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_STORE_DIR_H
#define WC_STORE_DIR_H

/*
 * The directory store: where entries lie, how they are found, judged and removed. publish.h writes
 * them.
 *
 *     rc = wc_store_open_entry(store, &expect, &file, &err);   // trailer read and compared
 *     rc = wc_entry_file_verify(&file, &err);                  // digest
 *     ... file.fd, file.trailer
 *     wc_entry_file_close(&file);
 *
 * A store keeps no descriptor open: each call judges the directory anew by path. So a directory
 * that is removed, replaced or repaired is seen at once, fork, chroot and close-all-descriptors do
 * no harm, and there is no state to lock.
 */

#include "entry.h"
#include "gate.h"

struct wc_store {
    char *dir;      /* absolute; NULL: off */
    unsigned flags; /* WASMCACHE_DURABLE, ... */
    struct wc_gate gate;
};

/* What an entry has to be. */
struct wc_expect {
    wasmcache_kind kind; /* 0: either */
    const wasmcache_key *key;
    const char *engine_namespace;
    const uint8_t *fingerprint; /* NULL: any */
};

/* An entry that is open. Made by open_entry, also partly where that fails: close it always. */
struct wc_entry_file {
    int ns_fd; /* its folder, -1 if that is missing */
    int fd;    /* -1 if there is none */
    char name[WC_ENTRY_NAME_SIZE];
    struct wc_os_stat st;
    struct wc_trailer trailer; /* valid if open_entry returned 0 or EMISMATCH */
};

/* The path of an entry or, with `name` NULL, of a namespace, cut if it does not fit. */
void wc_store_path(char *out, size_t size, const struct wc_store *store,
                   const char *engine_namespace, const char *name);

/* Opens a namespace's folder; WC_GATE_CREATE makes it. EMISS, EUNTRUSTED, EIO, EFULL, ENOMEM. */
int wc_store_open_namespace(const struct wc_store *store, const char *engine_namespace, int create,
                            int *fd, struct wc_error *err);

/*
 * Opens an entry and judges all but its digest. EMISS; EUNTRUSTED: owner, mode, file type;
 * ECORRUPT; ENEWER; EMISMATCH; EIO: the system failed, which says nothing about the entry; ENOMEM.
 */
int wc_store_open_entry(const struct wc_store *store, const struct wc_expect *expect,
                        struct wc_entry_file *out, struct wc_error *err);
/* The same in the folder `ns_fd`, which it takes over. */
int wc_store_open_entry_at(const struct wc_store *store, int ns_fd, const struct wc_expect *expect,
                           struct wc_entry_file *out, struct wc_error *err);

/* Checks the digest over the very file that is open. ECORRUPT; EBUSY: it keeps
 * changing; EIO, ENOMEM: it could not be read. */
int wc_entry_file_verify(struct wc_entry_file *file, struct wc_error *err);

void wc_entry_file_close(struct wc_entry_file *file);

/* ---- removal (remove.c) ---- */

/*
 * Removes `name` in the folder `ns_fd` if it is still the file `fd` (which may be open for identity
 * only). Another file of that name survives; it can be absent for an instant. EMISS: the name is
 * gone or another's now. EIO; EUNTRUSTED: it is a directory.
 */
int wc_store_remove(const struct wc_store *store, int ns_fd, const char *engine_namespace,
                    const char *name, int fd, struct wc_error *err);

/* Removes files of writers and removers that are gone, in one folder. *removed counts them. */
int wc_store_clean(const struct wc_store *store, int ns_fd, const char *engine_namespace,
                   uint64_t *removed, struct wc_error *err);

#endif
