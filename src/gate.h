/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_GATE_H
#define WC_GATE_H

/*
 * May this directory, this file be trusted? Judged by descriptor: the owner is root, the effective
 * user or one of the trusted users, and neither group nor others may write. docs/trust.md has the
 * table of all cases.
 *
 *     rc = wc_gate_open(&gate, "/var/cache/x", WC_GATE_CREATE, &fd, &found, &err);
 *     if (wc_gate_trusts(&gate, &stat)) ...
 *
 * A directory that anybody may write, or that is another's but open to us, is used through a folder
 * "u{uid}" in it, which is ours alone. A link in its place is followed if its owner is trusted.
 */

#include "error.h"
#include "os/os.h"

struct wc_gate {
    wasmcache_share share;
    uint32_t *trust_uids;
    size_t trust_uid_count;
    int dated;    /* what we make is to have this time */
    int64_t time; /* seconds since 1970 */
};

/* What the gate saw, also where it refused. */
struct wc_gate_found {
    uint32_t uid, mode; /* of the directory that decided */
    int own_folder;     /* 1: "u{uid}" below the path is used */
    int could_make;     /* it is that folder which is missing, and it can be made */
};

enum { WC_GATE_LOOK = 0, WC_GATE_CREATE = 1 };

int wc_gate_trusts(const struct wc_gate *gate, const struct wc_os_stat *st);

/* Modes of what we make. */
uint32_t wc_gate_dir_mode(const struct wc_gate *gate);
uint32_t wc_gate_file_mode(const struct wc_gate *gate);

/* Gives it the time that what we make has, if that is not just when it is made. */
int wc_gate_date(const struct wc_gate *gate, int fd);

/* The same for a folder and the directory that it is in. Each that changed the folder does it after
 * that, so that the last of them has the last word. A file system that will not have it keeps
 * nobody from his entry. */
void wc_gate_date_folder(const struct wc_gate *gate, int fd);

/*
 * Opens the directory at `path`, with CREATE made with all parents (and marked with CACHEDIR.TAG)
 * if it is missing. EMISS: it is missing and was not to be made. EUNTRUSTED, EIO, EFULL, ENOMEM.
 */
int wc_gate_open(const struct wc_gate *gate, const char *path, int create, int *fd,
                 struct wc_gate_found *found, struct wc_error *err);

/* LOOK gave EMISS: would CREATE make it, as far as modes tell? */
int wc_gate_could_make(const char *path, const struct wc_gate_found *found);

/*
 * The same for folder `name` in the trusted directory `at`; `path` is for messages. With CREATE it
 * is made if it is missing.
 */
int wc_gate_open_at(const struct wc_gate *gate, int at, const char *name, const char *path,
                    int create, int *fd, struct wc_error *err);

#endif
