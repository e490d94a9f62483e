/* SPDX-License-Identifier: Apache-2.0 */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct last_error {
    wasmcache_error_detail detail;
    struct wc_error copy;
};

static _Thread_local struct last_error last = {{sizeof(wasmcache_error_detail), 0, 0, "", "", ""},
                                               {0, 0, "", 0, 0, 0, "", ""}};

void wc_error_init(struct wc_error *err)
{
    err->error = 0;
    err->system_errno = 0;
    err->call = "";
    err->off = 0;
    err->expired = 0;
    err->foreign = 0;
    err->path[0] = '\0';
    err->message[0] = '\0';
}

/* strerror_r comes in two shapes; this takes either. */
static inline const char *text_posix(int rc, const char *buffer)
{
    return rc == 0 ? buffer : "unknown error";
}

static inline const char *text_gnu(const char *text, const char *buffer)
{
    (void)buffer;
    return text;
}

#define STRERROR(os, buffer)                                                                       \
    _Generic(strerror_r(os, buffer, sizeof(buffer)), int: text_posix, char *: text_gnu)(                           \
        strerror_r(os, buffer, sizeof(buffer)), buffer)

void wc_error_describe(struct wc_error *err, int error, int os, const char *call, const char *path,
                       const char *format, ...)
{
    char text[128] = "";
    va_list args;
    int n;

    if (os < 0)
        os = -os;
    err->error = error;
    err->system_errno = os;
    err->call = call ? call : "";
    snprintf(err->path, sizeof(err->path), "%s", path ? path : "");
    va_start(args, format);
    n = vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
    if (n < 0)
        n = 0;
    if (os && (size_t)n < sizeof(err->message))
        snprintf(err->message + n, sizeof(err->message) - (size_t)n, ": %s", STRERROR(os, text));
}

/* Not snprintf, which would cost a hit as much as all else that it does outside of the system. */
int wc_path_join(char out[WC_PATH_SIZE], const char *dir, const char *name)
{
    const size_t front = strnlen(dir, WC_PATH_SIZE - 2);
    const size_t back = strnlen(name, WC_PATH_SIZE - 2 - front);
    memcpy(out, dir, front);
    out[front] = '/';
    memcpy(out + front + 1, name, back);
    out[front + 1 + back] = '\0';
    return !dir[front] && !name[back];
}

int wc_error_of_errno(int os)
{
    switch (os < 0 ? -os : os) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return WASMCACHE_EFULL;
    case ENOMEM:
        return WASMCACHE_ENOMEM;
    default:
        return WASMCACHE_EIO;
    }
}

void wc_error_keep(const struct wc_error *err, int rc)
{
    last.copy = *err;
    last.detail.error = rc;
    last.detail.system_errno = last.copy.system_errno;
    last.detail.call = last.copy.call;
    last.detail.path = last.copy.path;
    last.detail.message = last.copy.message[0] ? last.copy.message : wasmcache_error_name(rc);
}

const wasmcache_error_detail *wasmcache_last_error(void)
{
    return &last.detail;
}

const char *wasmcache_error_name(int error)
{
    switch (error) {
    case WASMCACHE_OK:
        return "ok";
    case WASMCACHE_EMISS:
        return "miss";
    case WASMCACHE_ECORRUPT:
        return "corrupt";
    case WASMCACHE_EMISMATCH:
        return "mismatched";
    case WASMCACHE_ENEWER:
        return "newer-format";
    case WASMCACHE_EUNTRUSTED:
        return "untrusted";
    case WASMCACHE_EBUSY:
        return "busy";
    case WASMCACHE_EIO:
        return "io";
    case WASMCACHE_EFULL:
        return "full";
    case WASMCACHE_EABORTED:
        return "aborted";
    case WASMCACHE_EENGINE:
        return "engine";
    case WASMCACHE_EMISUSE:
        return "misuse";
    case WASMCACHE_ENOMEM:
        return "no-memory";
    case WASMCACHE_EOFF:
        return "off";
    default:
        return "unknown";
    }
}

wasmcache_reason wc_reason_of_error(int error)
{
    switch (error) {
    case WASMCACHE_OK:
        return WASMCACHE_REASON_NONE;
    case WASMCACHE_EMISS:
        return WASMCACHE_REASON_NOT_FOUND;
    case WASMCACHE_ECORRUPT:
        return WASMCACHE_REASON_CORRUPT;
    case WASMCACHE_EMISMATCH:
        return WASMCACHE_REASON_MISMATCHED;
    case WASMCACHE_ENEWER:
        return WASMCACHE_REASON_NEWER_FORMAT;
    case WASMCACHE_EUNTRUSTED:
        return WASMCACHE_REASON_UNTRUSTED;
    case WASMCACHE_EENGINE:
        return WASMCACHE_REASON_ENGINE_REFUSED;
    default:
        return WASMCACHE_REASON_UNREADABLE;
    }
}

const char *wasmcache_reason_name(wasmcache_reason reason)
{
    switch (reason) {
    case WASMCACHE_REASON_NONE:
        return "none";
    case WASMCACHE_REASON_NOT_FOUND:
        return "not-found";
    case WASMCACHE_REASON_CORRUPT:
        return "corrupt";
    case WASMCACHE_REASON_MISMATCHED:
        return "mismatched";
    case WASMCACHE_REASON_NEWER_FORMAT:
        return "newer-format";
    case WASMCACHE_REASON_UNTRUSTED:
        return "untrusted";
    case WASMCACHE_REASON_UNREADABLE:
        return "unreadable";
    case WASMCACHE_REASON_ENGINE_REFUSED:
        return "engine-refused";
    case WASMCACHE_REASON_CACHE_OFF:
        return "cache-off";
    case WASMCACHE_REASON_UNATTACHED:
        return "unattached";
    case WASMCACHE_REASON_RECOMPILE:
        return "recompile";
    case WASMCACHE_REASON_SOURCE:
        return "source";
    case WASMCACHE_REASON_EXPIRED:
        return "expired";
    }
    return "unknown";
}

const char *wasmcache_outcome_name(wasmcache_outcome outcome)
{
    switch (outcome) {
    case WASMCACHE_FAILED:
        return "failed";
    case WASMCACHE_HIT:
        return "hit";
    case WASMCACHE_COMPILED:
        return "compiled";
    case WASMCACHE_SAVED:
        return "saved";
    case WASMCACHE_JOINED:
        return "joined";
    }
    return "unknown";
}

const char *wasmcache_phase_name(wasmcache_phase phase)
{
    switch (phase) {
    case WASMCACHE_PHASE_LOOKUP:
        return "lookup";
    case WASMCACHE_PHASE_WAIT:
        return "wait";
    case WASMCACHE_PHASE_COMPILE:
        return "compile";
    case WASMCACHE_PHASE_SAVE:
        return "save";
    }
    return "unknown";
}

const char *wasmcache_version(void)
{
    return WASMCACHE_VERSION;
}
