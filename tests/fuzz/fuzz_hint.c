/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a table of hints as somebody may have left it, and what is then asked and put. The
 * table is a file with holes; the input has the slots of the five sets in which something is looked
 * for. What a hint says is what a second, simple reader finds in the bytes; what was put is found
 * by another process; who only reads leaves the file as it is; and it never gets larger than a
 * table.
 *
 * No mutation gets past a check of 64 bits or meets an id of 128, so a slot's own check says, as
 * instructions, whether the two are made right.
 *
 *     flags (1), length of the file (3), owner (1), seconds now (4), header (40), slots (64 each)
 *
 * covers: src/hint.c src/stamp.c src/worth.c
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "fuzz/fuzz.h"
#include "hint.h"
#include "stamp.h"

enum { ABOUTS = 5, WAYS = 8, SLOT = 64, HEADER = 4096, TABLE = HEADER + 2 * 65536 * SLOT };

/* What the first byte says. */
enum {
    RIGHT_HEADER = 1, /* the header is made right */
    WRITES = 2,
    CUT = 4,      /* the file is as long as is said, not as long as what was written */
    OPEN_TO = 8,  /* others may read it: not ours to write */
    NO_FILE = 16, /* there is none */
    A_LINK = 32,  /* but a link to one */
};

static const char name[] = ".hints-1-le", elsewhere[] = "elsewhere";

struct lab {
    uint8_t sets[ABOUTS][WAYS * SLOT]; /* as they are in the file */
    struct wc_hint_about about[ABOUTS];
    uint32_t owner;
    int writes;
};

static void start(const struct lab *lab, struct wc_hints *hints, struct wc_hint_look *look)
{
    wc_hints_init(hints, lab->writes);
    hints->has_boot = 1;
    wc_hint_look_start(look, hints);
    wc_hint_look_at(look, fuzz_directory_fd(), WC_HINT_INSIDE, lab->owner);
}

static void stop(struct wc_hints *hints, struct wc_hint_look *look)
{
    int sets = 0;
    for (int i = 0; i < WC_HINT_MEMORY_SETS; i++)
        sets += hints->sets[i] != NULL;
    must(sets <= 2 * ABOUTS);
    wc_hint_look_end(look);
    wc_hints_release(hints);
}

/* ---- the second reader ---- */

FUZZ_ORACLE static off_t place(const struct wc_hint_about *about)
{
    return HEADER + (off_t)(about->area * 8192 + about->set % 8192) * WAYS * SLOT;
}

FUZZ_ORACLE static int is_sound(const uint8_t *slot, uint32_t owner)
{
    uint64_t check;
    memcpy(&check, slot + 56, 8);
    return check == XXH3_64bits_withSeed(slot, 56, UINT64_C(1) << 32 | owner);
}

FUZZ_ORACLE static const uint8_t *naive_find(const uint8_t *set, const struct wc_hint_about *about,
                                             uint32_t owner)
{
    for (int i = 0; i < WAYS; i++)
        if (memcmp(set + i * SLOT, about->id, 16) == 0 && is_sound(set + i * SLOT, owner))
            return set + i * SLOT;
    return NULL;
}

FUZZ_ORACLE static void check_found(int found, const struct wc_hint *hint, const uint8_t *slot)
{
    must(!found == !slot);
    must(!slot ||
         (memcmp(hint->value, slot + 16, 32) == 0 && memcmp(&hint->time, slot + 48, 8) == 0));
}

/* ---- planting ---- */

static void make_abouts(struct lab *lab)
{
    static const uint8_t hash[32] = {1, 2, 3};
    const struct wc_os_stat st = {.dev = 1, .ino = 2, .size = 3, .ctime_ns = 4};
    const wasmcache_key key = {.algorithm = WASMCACHE_KEY_SHA256, .bytes = {5}};
    struct wc_hints hints;
    wc_hints_init(&hints, 0);
    hints.has_boot = 1;
    must(wc_hint_of_file(&lab->about[0], &hints, WC_HINT_SOURCE, &st));
    must(wc_hint_of_file(&lab->about[1], &hints, WC_HINT_VERIFIED, &st));
    wc_hint_of_hash(&lab->about[2], WC_HINT_PROBE, hash);
    wc_hint_of_hash(&lab->about[3], WC_HINT_VERSION, hash);
    lab->about[3].set = lab->about[2].set; /* as the identity has them */
    wc_hint_of_entry(&lab->about[4], "fuzz-v1", &key);
    wc_hints_release(&hints);
}

FUZZ_ORACLE static void make_slot(uint8_t *slot, const struct wc_hint_about *about, uint32_t owner)
{
    const uint8_t id = slot[56] & 1, check = slot[56] & 2;
    uint64_t right;
    if (id)
        memcpy(slot, about->id, sizeof(about->id));
    right = XXH3_64bits_withSeed(slot, 56, UINT64_C(1) << 32 | owner);
    if (check)
        memcpy(slot + 56, &right, 8);
}

FUZZ_ORACLE static void make_header(uint8_t header[40], uint32_t owner)
{
    const uint32_t numbers[4] = {0x01020304, 1, owner, 2 * 65536};
    uint64_t check;
    memcpy(header, "wasmcache hints", 16);
    memcpy(header + 16, numbers, 16);
    check = XXH3_64bits(header, 32);
    memcpy(header + 32, &check, 8);
}

/* The sets as they are in the file. */
FUZZ_ORACLE static void read_sets(struct lab *lab)
{
    int fd = openat(fuzz_directory_fd(), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    memset(lab->sets, 0, sizeof(lab->sets));
    for (int i = 0; i < ABOUTS && fd >= 0; i++)
        /* Less than a slot is nothing, though the bytes that lack may be the zeros that stand for
         * them. */
        if (pread(fd, lab->sets[i], sizeof(lab->sets[i]), place(&lab->about[i])) < SLOT)
            memset(lab->sets[i], 0, SLOT);
    close(fd);
}

FUZZ_ORACLE static void plant(struct lab *lab, unsigned flags, off_t length,
                              struct fuzz_input *input)
{
    const int at = fuzz_directory_fd();
    uint8_t header[40] = {0};
    int fd;
    (void)unlinkat(at, name, 0);
    fuzz_bytes(input, header, sizeof(header));
    if (flags & NO_FILE)
        return;
    if (flags & RIGHT_HEADER)
        make_header(header, lab->owner);
    if (flags & A_LINK)
        must(symlinkat(elsewhere, at, name) == 0);
    fd = fuzz_plant(at, flags & A_LINK ? elsewhere : name, header, sizeof(header),
                    flags & OPEN_TO ? 0644 : 0600);
    for (int i = 0; i < ABOUTS && input->left; i++) {
        uint8_t set[WAYS * SLOT] = {0};
        size_t n = fuzz_bytes(input, set, sizeof(set));
        for (size_t s = 0; s * SLOT < n; s++)
            make_slot(set + s * SLOT, &lab->about[i], lab->owner);
        must(pwrite(fd, set, n, place(&lab->about[i])) == (ssize_t)n);
    }
    must(!(flags & CUT) || ftruncate(fd, length) == 0);
    close(fd);
}

/* ---- what is done with it ---- */

static void check_reads(const struct lab *lab)
{
    struct wc_hints hints;
    struct wc_hint_look look;
    struct wc_hint first, second;
    start(lab, &hints, &look);
    for (int i = 0; i < ABOUTS; i++) {
        const uint8_t *slot = naive_find(lab->sets[i], &lab->about[i], lab->owner);
        check_found(wc_hint_find(&look, &lab->about[i], &first), &first, slot);
        check_found(wc_hint_get(&look, &lab->about[i], &first), &first, slot);
        /* From memory now. */
        check_found(wc_hint_get(&look, &lab->about[i], &second), &second, slot);
    }
    stop(&hints, &look);
}

/* The file after something was put: the slots of the set that are sound as before, but one at most;
 * of a table that was not ours nothing is left. */
FUZZ_ORACLE static void check_set(const struct lab *before, const struct lab *after, int i,
                                  int was_ours)
{
    const uint8_t *lost = NULL, *new = NULL;
    for (int s = 0; s < WAYS; s++) {
        const uint8_t *was = before->sets[i] + s * SLOT, *is = after->sets[i] + s * SLOT;
        if (memcmp(was, is, SLOT) == 0)
            continue;
        if (is_sound(is, after->owner)) {
            must(!new &&memcmp(is, after->about[i].id, 16) == 0);
            new = is;
        }
        if (is_sound(was, before->owner) && was_ours) {
            must(!lost && is_sound(is, after->owner));
            lost = was;
        }
        must(!was_ours || is_sound(is, after->owner));
    }
    if (!lost || memcmp(lost, after->about[i].id, 16) == 0)
        return;
    /* It was one of another thing: then there was no room, and it was the oldest. */
    must(naive_find(before->sets[i], &after->about[i], before->owner) == NULL);
    for (int s = 0; s < WAYS; s++) {
        const uint8_t *was = before->sets[i] + s * SLOT;
        uint64_t time, oldest;
        memcpy(&time, was + 48, 8);
        memcpy(&oldest, lost + 48, 8);
        must(is_sound(was, before->owner) ? time >= oldest : oldest == 0);
    }
}

static void check_size(void)
{
    struct stat st;
    must(fstatat(fuzz_directory_fd(), name, &st, AT_SYMLINK_NOFOLLOW) == 0);
    must(S_ISREG(st.st_mode) && st.st_size <= TABLE && st.st_blocks <= 2 * (1 + ABOUTS) * 8);
}

/* May be written to: it is told by its header, and nobody else can read it. */
FUZZ_ORACLE static int is_ours(const struct lab *lab)
{
    uint8_t want[40], header[40];
    struct stat st;
    int ours, fd = openat(fuzz_directory_fd(), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    make_header(want, lab->owner);
    ours = fd >= 0 && fstat(fd, &st) == 0 && !(st.st_mode & 077) && st.st_size <= TABLE &&
           pread(fd, header, 40, 0) == 40 && memcmp(header, want, 40) == 0;
    close(fd);
    return ours;
}

static void check_put(struct lab *lab, int i, const struct wc_hint *hint)
{
    const struct lab before = *lab;
    const int was_ours = is_ours(lab);
    struct wc_hints hints;
    struct wc_hint_look look;
    struct wc_hint back;

    start(lab, &hints, &look);
    wc_hint_put(&look, &lab->about[i], hint);
    must(wc_hint_get(&look, &lab->about[i], &back) && memcmp(&back, hint, sizeof(back)) == 0);
    stop(&hints, &look);

    read_sets(lab);
    if (!lab->writes) {
        must(memcmp(lab, &before, sizeof(before)) == 0);
        return;
    }
    check_size();
    check_set(&before, lab, i, was_ours);
    /* Another process. */
    start(lab, &hints, &look);
    must(wc_hint_find(&look, &lab->about[i], &back) && memcmp(&back, hint, sizeof(back)) == 0);
    stop(&hints, &look);
}

/* The hints as those take them who believe them. */
static void check_uses(const struct lab *lab, uint64_t now)
{
    const wasmcache_key key = {.algorithm = WASMCACHE_KEY_SHA256, .bytes = {5}};
    struct wc_hints hints;
    struct wc_hint_look look;
    struct wc_entry_file file;
    struct wc_stamp stamp;
    struct wc_worth worth = {.bytes = 4096};
    uint64_t before, last;
    const uint8_t *slot = naive_find(lab->sets[1], &lab->about[1], lab->owner);

    wc_os_wall_forced = (int64_t)(now * 1000000000u);
    start(lab, &hints, &look);
    memset(&file, 0, sizeof(file));
    file.fd = -1;
    file.st.dev = 1;
    file.st.ino = 2;
    file.st.size = 3;
    file.st.ctime_ns = 4;
    wc_stamp_find(&stamp, &look, &file, 3600);
    if (stamp.found) {
        must(slot && memcmp(slot + 16, file.trailer.digest.bytes, 24) == 0);
        must(stamp.hint.time <= now && now - stamp.hint.time < 3600);
    }
    (void)wc_use_find(&worth, &look, "fuzz-v1", &key);
    must(wc_worth_step(&worth, now) < WC_WORTH_STEPS);
    before = wc_use_last(&look, "fuzz-v1", &key);
    wc_use_note(&stamp, &look, "fuzz-v1", &key, 7);
    stop(&hints, &look);
    start(lab, &hints, &look); /* the table may be another file now */
    last = wc_use_last(&look, "fuzz-v1", &key);
    must(last == before || (lab->writes && last == now));
    if (lab->writes && !stamp.found) /* what lies in the future is not believed */
        must(last <= now && now - last < 3600);
    (void)wc_use_find(&worth, &look, "fuzz-v1", &key);
    must(last == before || (worth.compile_ns == 7 && worth.uses >= WC_WORTH_USE &&
                            worth.uses <= UINT32_MAX + (uint64_t)WC_WORTH_USE));
    must(wc_worth_step(&worth, now) < WC_WORTH_STEPS);
    stop(&hints, &look);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_number(&input, 1);
    const off_t length = (off_t)(fuzz_number(&input, 3) % (TABLE + 8192));
    struct lab lab;
    struct wc_hint hint;
    uint64_t now;

    memset(&lab, 0, sizeof(lab));
    lab.owner = (uint32_t)fuzz_number(&input, 1);
    lab.writes = !!(flags & WRITES);
    now = fuzz_number(&input, 4);
    make_abouts(&lab);
    plant(&lab, flags, length, &input);
    read_sets(&lab);
    check_reads(&lab);
    check_uses(&lab, now);
    read_sets(&lab);
    memset(&hint, (int)(now & 0xFF), sizeof(hint));
    check_put(&lab, (int)(now % ABOUTS), &hint);
    check_reads(&lab);
    wc_os_wall_forced = -1;
    return 0;
}
