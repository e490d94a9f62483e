/* SPDX-License-Identifier: Apache-2.0 */
#include "stamp.h"

#include <string.h>

#include "number.h"

#define HOUR 3600

/* A stamp's value: the front of the digest, then when the entry was last used. The file is told by
 * its identity; the digest is compared so that a stamp says what was checked. */
enum { DIGEST = 24, AT_USED = 24 };
/* A use's value; its time is the last one. Uses are as wc_worth has them. */
enum { AT_COMPILE = 0, AT_USES = 8 };

static int is_recent(uint64_t then, uint64_t now, uint64_t seconds)
{
    return then <= now && now - then < seconds;
}

/* ---- stamps ---- */

void wc_stamp_find(struct wc_stamp *out, struct wc_hint_look *look,
                   const struct wc_entry_file *file, uint64_t seconds)
{
    out->possible = wc_hint_of_file(&out->about, look->hints, WC_HINT_VERIFIED, &file->st);
    out->found = out->possible && wc_hint_get(look, &out->about, &out->hint) &&
                 memcmp(out->hint.value, file->trailer.digest.bytes, DIGEST) == 0 &&
                 is_recent(out->hint.time, wc_os_wall_seconds(), seconds);
}

void wc_stamp_make(struct wc_stamp *stamp, struct wc_hint_look *look,
                   const struct wc_entry_file *file)
{
    if (!stamp->possible || !wc_hint_is_settled(file->fd, &file->st))
        return;
    wc_hint_of_file(&stamp->about, look->hints, WC_HINT_VERIFIED, &file->st);
    stamp->hint.time = wc_os_wall_seconds();
    memcpy(stamp->hint.value, file->trailer.digest.bytes, DIGEST);
    wc_put_number(stamp->hint.value + AT_USED, stamp->hint.time, 8);
    wc_hint_put(look, &stamp->about, &stamp->hint);
}

/* ---- uses ---- */

void wc_use_note(struct wc_stamp *stamp, struct wc_hint_look *look, const char *engine_namespace,
                 const wasmcache_key *key, uint64_t compile_ns)
{
    const uint64_t now = wc_os_wall_seconds();
    struct wc_hint_about entry;
    const int stamped = stamp && stamp->found;
    struct wc_hint use;
    int known;

    if (!look->hints->writes)
        return;
    if (stamped) {
        if (is_recent(wc_get_number(stamp->hint.value + AT_USED, 8), now, HOUR))
            return;
        wc_put_number(stamp->hint.value + AT_USED, now, 8);
        wc_hint_put(look, &stamp->about, &stamp->hint); /* as old as the check that it is of */
    }
    wc_hint_of_entry(&entry, engine_namespace, key);
    known = wc_hint_get(look, &entry, &use);
    if (known && !stamped && is_recent(use.time, now, HOUR))
        return;
    if (!known)
        memset(&use, 0, sizeof(use));
    if (compile_ns)
        wc_put_number(use.value + AT_COMPILE, compile_ns, 8);
    wc_put_number(use.value + AT_USES,
                  wc_worth_use(wc_get_number(use.value + AT_USES, 8), use.time, now), 8);
    use.time = now;
    wc_hint_put(look, &entry, &use);
}

int wc_use_find(struct wc_worth *worth, struct wc_hint_look *look, const char *engine_namespace,
                const wasmcache_key *key)
{
    struct wc_hint_about entry;
    struct wc_hint hint;
    wc_hint_of_entry(&entry, engine_namespace, key);
    if (!wc_hint_find(look, &entry, &hint))
        return 0;
    worth->compile_ns = wc_get_number(hint.value + AT_COMPILE, 8);
    worth->uses = wc_get_number(hint.value + AT_USES, 8);
    worth->last = hint.time;
    return worth->compile_ns > 0 && worth->uses > 0; /* else the trailer may say more */
}

uint64_t wc_use_last(struct wc_hint_look *look, const char *engine_namespace,
                     const wasmcache_key *key)
{
    struct wc_hint_about entry;
    struct wc_hint hint;
    wc_hint_of_entry(&entry, engine_namespace, key);
    return wc_hint_find(look, &entry, &hint) ? hint.time : 0;
}
