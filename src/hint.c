/* SPDX-License-Identifier: Apache-2.0 */
#include "hint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "key.h"
#include "namespace.h"

enum { SLOT = 64, WAYS = 8, SETS = 8192, AREAS = 2, HEADER = 4096, HEADER_USED = 40, VERSION = 1 };
enum { AT_ID = 0, AT_VALUE = 16, AT_TIME = 48, AT_CHECK = 56 };
enum { SET = SLOT * WAYS, MEMORY_SETS = WC_HINT_MEMORY_SETS / AREAS };
_Static_assert((int)SET == (int)WC_HINT_SET_SIZE, "a look has room for a set");
#define FILE_SIZE (HEADER + (uint64_t)AREAS * SETS * SET)

/* The header's mark, and the name for each byte order. */
static const char magic[16] = "wasmcache hints";
static const char name_little[] = "../.hints-1-le", name_big[] = "../.hints-1-be";

static const char *table_name(const struct wc_hint_look *look)
{
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return (first ? name_little : name_big) + (look->place == WC_HINT_BESIDE ? 0 : strlen("../"));
}

void wc_hints_init(struct wc_hints *hints, int writes)
{
    memset(hints, 0, sizeof(*hints));
    pthread_mutex_init(&hints->lock, NULL);
    hints->writes = writes;
}

void wc_hints_find_boot(struct wc_hints *hints)
{
    hints->has_boot = wc_os_boot_id(hints->boot) == 0;
}

void wc_hints_release(struct wc_hints *hints)
{
    for (int i = 0; i < WC_HINT_MEMORY_SETS; i++) {
        free(hints->sets[i]);
        hints->sets[i] = NULL;
    }
    pthread_mutex_destroy(&hints->lock);
}

void wc_hint_look_start(struct wc_hint_look *look, struct wc_hints *hints)
{
    look->hints = hints;
    look->at = -1;
    look->find = NULL;
    look->fd = -1;
    look->tried = 0;
    look->place = WC_HINT_INSIDE;
    look->owner = 0;
    look->has_set = 0;
}

void wc_hint_look_later(struct wc_hint_look *look,
                        void (*find)(struct wc_hint_look *look, void *payload), void *payload)
{
    look->find = find;
    look->payload = payload;
}

void wc_hint_look_at(struct wc_hint_look *look, int at, enum wc_hint_place place, uint32_t owner)
{
    look->at = at;
    look->place = place;
    look->owner = owner;
}

void wc_hint_look_leave(struct wc_hint_look *look)
{
    if (look->place == WC_HINT_INSIDE_OWN)
        wc_os_close(look->at);
    look->at = -1;
    look->place = WC_HINT_INSIDE;
}

void wc_hint_look_end(struct wc_hint_look *look)
{
    wc_hint_look_leave(look);
    look->find = NULL;
    wc_os_close(look->fd);
    look->fd = -1;
    look->tried = 0;
    look->has_set = 0;
}

/* ---- what a hint is about ---- */

static void about_hash(struct wc_hint_about *out, const uint8_t hash[16])
{
    memcpy(out->id, hash, sizeof(out->id));
    memcpy(&out->set, hash, sizeof(out->set));
    out->area = 0;
}

int wc_hint_of_file(struct wc_hint_about *out, const struct wc_hints *hints, enum wc_hint_kind kind,
                    const struct wc_os_stat *st)
{
    const uint64_t fields[7] = {VERSION,
                                (uint64_t)kind,
                                st->dev,
                                st->ino,
                                st->size,
                                (uint64_t)st->mtime_ns,
                                (uint64_t)st->ctime_ns};
    struct wc_sha256_state state;
    uint8_t hash[32];

    if (!hints->has_boot)
        return 0;
    /* Not a fast hash: who names the file's times and sizes may be somebody who wants two to meet.
     */
    wc_sha256_start(&state);
    wc_sha256_add(&state, fields, sizeof(fields));
    wc_sha256_add(&state, hints->boot, sizeof(hints->boot));
    wc_sha256_finish(&state, hash);
    about_hash(out, hash);
    return 1;
}

void wc_hint_of_hash(struct wc_hint_about *out, enum wc_hint_kind kind, const uint8_t hash[32])
{
    const uint64_t fields[2] = {VERSION, (uint64_t)kind};
    struct wc_sha256_state state;
    uint8_t again[32];
    wc_sha256_start(&state);
    wc_sha256_add(&state, fields, sizeof(fields));
    wc_sha256_add(&state, hash, 32);
    wc_sha256_finish(&state, again);
    about_hash(out, again);
}

void wc_hint_of_entry(struct wc_hint_about *out, const char *engine_namespace,
                      const wasmcache_key *key)
{
    uint8_t name[sizeof(key->bytes) + WC_NAMESPACE_SIZE + 1];
    const size_t length = strlen(engine_namespace) + 1;
    XXH128_canonical_t id;
    /* A fast hash: who makes two names meet makes one of two entries look used. For that uses have
     * sets of their own, in which nothing is looked for that is believed. */
    memcpy(name, key->bytes, sizeof(key->bytes));
    name[sizeof(key->bytes)] = (uint8_t)key->algorithm;
    memcpy(name + sizeof(key->bytes) + 1, engine_namespace, length);
    XXH128_canonicalFromHash(
        &id, XXH3_128bits_withSeed(name, sizeof(key->bytes) + 1 + length,
                                   (uint64_t)VERSION << 32 | (uint64_t)WC_HINT_USE));
    about_hash(out, id.digest);
    out->area = 1;
}

int wc_hint_is_settled(int fd, const struct wc_os_stat *st)
{
    const int64_t age = wc_os_settles_after_ns(fd);
    const int64_t now = wc_os_wall_ns();
    return age > 0 && st->ctime_ns <= now - age && st->mtime_ns <= now;
}

/* ---- slots ---- */

static uint64_t slot_check(const uint8_t *slot, uint32_t owner)
{
    return XXH3_64bits_withSeed(slot, AT_CHECK, (uint64_t)VERSION << 32 | owner);
}

static void slot_make(uint8_t slot[SLOT], const struct wc_hint_about *about,
                      const struct wc_hint *hint, uint32_t owner)
{
    uint64_t check;
    memcpy(slot + AT_ID, about->id, sizeof(about->id));
    memcpy(slot + AT_VALUE, hint->value, sizeof(hint->value));
    memcpy(slot + AT_TIME, &hint->time, sizeof(hint->time));
    check = slot_check(slot, owner);
    memcpy(slot + AT_CHECK, &check, sizeof(check));
}

/* 0: there is nothing in it, or nothing that was written in one piece by us. */
static int slot_is_sound(const uint8_t *slot, uint32_t owner)
{
    uint64_t check;
    memcpy(&check, slot + AT_CHECK, sizeof(check));
    return check == slot_check(slot, owner);
}

static uint64_t slot_time(const uint8_t *slot)
{
    uint64_t time;
    memcpy(&time, slot + AT_TIME, sizeof(time));
    return time;
}

static int set_find(const uint8_t set[SET], const struct wc_hint_about *about, uint32_t owner,
                    struct wc_hint *out)
{
    for (const uint8_t *slot = set; slot < set + SET; slot += SLOT) {
        if (memcmp(slot + AT_ID, about->id, sizeof(about->id)) != 0 || !slot_is_sound(slot, owner))
            continue;
        memcpy(out->value, slot + AT_VALUE, sizeof(out->value));
        out->time = slot_time(slot);
        return 1;
    }
    return 0;
}

/* Where a hint goes: over itself, else into a free slot, else over the oldest. */
static unsigned set_place(const uint8_t set[SET], const struct wc_hint_about *about, uint32_t owner)
{
    unsigned place = 0;
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < WAYS; i++) {
        const uint8_t *slot = set + (size_t)i * SLOT;
        const int sound = slot_is_sound(slot, owner);
        const uint64_t time = sound ? slot_time(slot) : 0;
        if (sound && memcmp(slot + AT_ID, about->id, sizeof(about->id)) == 0)
            return i;
        if (time < oldest) {
            oldest = time;
            place = i;
        }
    }
    return place;
}

/* ---- the file ---- */

static uint64_t set_number(const struct wc_hint_about *about, uint64_t sets)
{
    return about->area * sets + about->set % sets;
}

static uint64_t set_offset(const struct wc_hint_about *about)
{
    return HEADER + set_number(about, SETS) * SET;
}

static void header_make(uint8_t header[HEADER_USED], uint32_t owner)
{
    const uint32_t numbers[4] = {0x01020304, VERSION, owner, AREAS * SETS * WAYS};
    uint64_t check;
    memcpy(header, magic, 16);
    memcpy(header + 16, numbers, 16);
    check = XXH3_64bits(header, 32);
    memcpy(header + 32, &check, sizeof(check));
}

/* Where the table lies, now that it is needed. */
static int find_place(struct wc_hint_look *look)
{
    void (*const find)(struct wc_hint_look * look, void *payload) = look->find;
    look->find = NULL;
    if (look->at < 0 && find)
        find(look, look->payload);
    return look->at;
}

/* To read, the slots' own checks are enough. The directory was judged, so what lies in it was put
 * there by somebody who is trusted. */
static int file_for_reading(struct wc_hint_look *look)
{
    if (look->fd < 0 && !look->tried && find_place(look) >= 0) {
        look->tried = 1;
        look->fd = wc_os_open_read(look->at, table_name(look));
    }
    return look->fd;
}

/* Is it a table of ours, that nobody else has by another name? */
static int file_is_ours(int fd, uint32_t owner)
{
    uint8_t want[HEADER_USED], header[HEADER_USED];
    struct wc_os_stat st;
    header_make(want, owner);
    return wc_os_fstat(fd, &st) == 0 && st.type == WC_OS_FILE && st.uid == wc_os_euid() &&
           st.nlink == 1 && !(st.mode & 077) && st.size <= FILE_SIZE &&
           wc_os_pread(fd, header, sizeof(header), 0) == sizeof(header) &&
           memcmp(header, want, sizeof(header)) == 0;
}

static int file_make(const struct wc_hint_look *look)
{
    uint8_t header[HEADER_USED];
    int fd = wc_os_create(look->at, table_name(look));
    if (fd < 0)
        return fd;
    header_make(header, look->owner);
    if (wc_os_pwrite(fd, header, sizeof(header), 0) == 0)
        return fd;
    wc_os_close(fd);
    (void)wc_os_unlink(look->at, table_name(look));
    return -EIO;
}

/* A file in its place that is no table of ours is taken away, whatever it is: hints may be lost. */
static int file_for_writing(struct wc_hint_look *look)
{
    int fd;
    if (!look->hints->writes || wc_os_file_size_limit() < FILE_SIZE || find_place(look) < 0)
        return -1;
    fd = wc_os_open_update(look->at, table_name(look));
    if (fd >= 0 && !file_is_ours(fd, look->owner)) {
        wc_os_close(fd);
        fd = -ELOOP;
    }
    if (fd == -ELOOP || fd == -ENXIO || fd == -EACCES) {
        if (wc_os_unlink(look->at, table_name(look)) < 0)
            return -1;
        fd = -ENOENT;
    }
    return fd == -ENOENT ? file_make(look) : fd;
}

static void file_put(struct wc_hint_look *look, const struct wc_hint_about *about,
                     const struct wc_hint *hint)
{
    uint8_t set[SET], slot[SLOT];
    const uint64_t offset = set_offset(about);
    int fd = file_for_writing(look);
    if (fd < 0)
        return;
    memset(set, 0, sizeof(set));
    if (wc_os_pread(fd, set, sizeof(set), offset) >= 0) { /* less than asked for: not written yet */
        slot_make(slot, about, hint, look->owner);
        (void)wc_os_pwrite(fd, slot, sizeof(slot),
                           offset + (uint64_t)set_place(set, about, look->owner) * SLOT);
    }
    wc_os_close(fd);
}

/* ---- the process ---- */

static uint8_t **memory_set(struct wc_hints *hints, const struct wc_hint_about *about)
{
    return &hints->sets[set_number(about, MEMORY_SETS)];
}

static int memory_get(struct wc_hints *hints, const struct wc_hint_about *about,
                      struct wc_hint *out)
{
    const uint8_t *set;
    int found;
    if (pthread_mutex_trylock(&hints->lock) != 0)
        return 0;
    set = *memory_set(hints, about);
    found = set && set_find(set, about, 0, out);
    pthread_mutex_unlock(&hints->lock);
    return found;
}

static void memory_put(struct wc_hints *hints, const struct wc_hint_about *about,
                       const struct wc_hint *hint)
{
    uint8_t **set;
    if (pthread_mutex_trylock(&hints->lock) != 0)
        return;
    set = memory_set(hints, about);
    if (!*set)
        *set = calloc(1, SET);
    if (*set)
        slot_make(*set + (size_t)set_place(*set, about, 0) * SLOT, about, hint, 0);
    pthread_mutex_unlock(&hints->lock);
}

/* ---- both ---- */

/* Reads the set once for all hints that are looked for in it. 0: there is nothing of it. */
static int file_get_set(struct wc_hint_look *look, const struct wc_hint_about *about)
{
    const uint64_t number = set_number(about, SETS);
    int fd;
    if (look->has_set && look->set_number == number)
        return 1;
    fd = file_for_reading(look);
    if (fd < 0)
        return 0;
    memset(look->set, 0, SET);
    look->has_set = wc_os_pread(fd, look->set, SET, set_offset(about)) >= SLOT;
    look->set_number = number;
    return look->has_set;
}

int wc_hint_find(struct wc_hint_look *look, const struct wc_hint_about *about, struct wc_hint *out)
{
    return file_get_set(look, about) && set_find(look->set, about, look->owner, out);
}

int wc_hint_get(struct wc_hint_look *look, const struct wc_hint_about *about, struct wc_hint *out)
{
    if (memory_get(look->hints, about, out))
        return 1;
    if (!wc_hint_find(look, about, out))
        return 0;
    memory_put(look->hints, about, out);
    return 1;
}

void wc_hint_put(struct wc_hint_look *look, const struct wc_hint_about *about,
                 const struct wc_hint *hint)
{
    memory_put(look->hints, about, hint);
    file_put(look, about, hint);
    look->has_set = 0;
}

void wc_hint_put_now(struct wc_hint_look *look, const struct wc_hint_about *about,
                     const uint8_t value[32])
{
    struct wc_hint hint;
    memcpy(hint.value, value, sizeof(hint.value));
    hint.time = wc_os_wall_seconds();
    wc_hint_put(look, about, &hint);
}
