/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_ERROR_H
#define WC_ERROR_H

/*
 * Errors travel as a struct wc_error on the stack of the public call, and only that call makes its
 * error the thread's last one:
 *
 *     struct wc_error err;
 *     wc_error_init(&err);
 *     rc = something(&err);              // which calls wc_fail(&err, ...) where it went wrong
 *     return wc_error_publish(&err, rc);
 *
 * So a failure that the library deals with (a save that does not fail the get) leaves the last
 * error alone. Who sees a failure first describes it; nobody above writes over that.
 */

#include "wasmcache.h"

/* Paths in messages and reports are cut at this; what is opened is never cut. */
#define WC_PATH_SIZE 1024

struct wc_error {
    int error;        /* enum wasmcache_error */
    int system_errno; /* positive */
    const char *call; /* a constant, "" if none */
    int off;          /* 1: it is about the whole cache directory, not about one entry */
    int foreign;      /* 1: a file that this library did not write */
    int expired;      /* 1: EMISS, since what is there is too old */
    char path[WC_PATH_SIZE];
    char message[640];
};

void wc_error_init(struct wc_error *err);

/*
 * Describes a failure and gives `error`. `os` is a positive or negative errno, or 0. `path` may be
 * NULL. The format makes the message; where `os` is set, the system's text is put behind it.
 * A macro, so that compilers and analyzers see at the call that the result is not 0.
 */
#define wc_fail(err, error, ...) (wc_error_describe((err), (error), __VA_ARGS__), (error))

void wc_error_describe(struct wc_error *err, int error, int os, const char *call, const char *path,
                       const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 6, 7)))
#endif
    ;

/* The enum wasmcache_error for a failed system call: EFULL, ENOMEM or EIO. */
int wc_error_of_errno(int os);

/* Makes `err` the calling thread's last error. */
void wc_error_keep(const struct wc_error *err, int rc);

/* The same if rc < 0. Returns rc. */
static inline int wc_error_publish(const struct wc_error *err, int rc)
{
    if (rc < 0)
        wc_error_keep(err, rc);
    return rc;
}

/* "dir/name". 0: it did not fit, and is cut. */
int wc_path_join(char out[WC_PATH_SIZE], const char *dir, const char *name);

/* The reason of a miss that goes with a load's error. */
wasmcache_reason wc_reason_of_error(int error);

#endif
