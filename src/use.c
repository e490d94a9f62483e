/* SPDX-License-Identifier: Apache-2.0 */
#include "use.h"

#define HOUR 3600

void wc_use_note(struct wc_hint_look *look, const struct wc_hint_about *entry, uint64_t compile_ns)
{
    const uint64_t now = wc_os_wall_seconds();
    uint8_t value[32] = {0};
    struct wc_hint known;
    if (!look->hints || !look->hints->writes)
        return;
    if (wc_hint_get(look, entry, &known) && known.time <= now && now - known.time < HOUR)
        return;
    for (int i = 0; i < 8; i++)
        value[i] = (uint8_t)(compile_ns >> (8 * i));
    wc_hint_put(look, entry, value);
}

uint64_t wc_use_last(struct wc_hint_look *look, const char *engine_namespace,
                     const wasmcache_key *key)
{
    struct wc_hint_about entry;
    struct wc_hint hint;
    wc_hint_of_entry(&entry, WC_HINT_USE, engine_namespace, key);
    return wc_hint_find(look, &entry, &hint) ? hint.time : 0;
}
