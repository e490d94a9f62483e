/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 7, 10, 14 and 29 for other caches: small disks, power cuts, many at once, planted files. */
#define _GNU_SOURCE
#include "others.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "torture/disk.h"

/* ---- row 7 ---- */

static void on_small_disk(struct bench *b, uint64_t bytes, unsigned inodes)
{
    struct tally *t = b->tally;
    char options[100];
    struct told first, second, next;
    snprintf(options, sizeof(options), "mode=0755,size=%llu,nr_inodes=%u",
             (unsigned long long)(bytes ? bytes : 1u << 26), inodes);
    bench_prepare(b, NULL);
    if (mkdir(b->dir, 0755) < 0 || mount("none", b->dir, "tmpfs", 0, options) < 0) {
        tally_skip(t, "a tmpfs cannot be mounted on %s: %s", b->dir, strerror(errno));
        return;
    }
    t->runs++;
    tally_about(t, "%s", options);
    bench_get(b, &first, KEY, 0, NULL, NULL);
    bench_judge(b, &first, KEY, 0);
    bench_get(b, &second, BY, 0, NULL, NULL);
    bench_judge(b, &second, BY, 0);
    bench_get(b, &next, KEY, 0, NULL, NULL);
    bench_judge(b, &next, KEY, 0);
    if (first.saved)
        tally_check(t, 'A', next.hit, "it said \"saved\", and it is not there");
    b->met += !next.hit;
    /* Room again: each key can be used. */
    (void)mount("none", b->dir, "tmpfs", MS_REMOUNT, "size=64m,nr_inodes=1000");
    bench_check_usable(b, KEY);
    bench_check_usable(b, BY);
    bench_check_left(b);
    (void)umount2(b->dir, MNT_DETACH);
}

void others_full(struct bench *b)
{
    struct stat st;
    const unsigned step = b->quick ? 8 : 1;
    if (geteuid() != 0 || stat(b->key_copy, &st) < 0) {
        tally_skip(b->tally, "a tmpfs of its own needs root");
        return;
    }
    /* From one page to room for three entries, for each by its own size; and each count of inodes.
     */
    for (unsigned i = 1; i <= 48; i += step) {
        const uint64_t pages = 1 + (uint64_t)st.st_size * 3 * i / 48 / 4096;
        on_small_disk(b, pages * 4096, 1000);
        if (i <= 24)
            on_small_disk(b, 0, i);
    }
    scratch_remove(b->dir);
}

/* ---- row 10 ---- */

struct cut {
    const struct bench *b;
    const struct disk *disk;
    enum disk_cut how;
    unsigned nth, seen;
    int met;
};

static void cut_at(struct trace_call *call, void *payload)
{
    struct cut *c = payload;
    if (call->at_exit || c->met || !bench_touches(c->b, call) || ++c->seen != c->nth)
        return;
    c->met = disk_cut(c->disk, c->how) == 0;
    trace_kill(call);
}

/* The kernel has written the first half of the new entry, by itself, and no more. */
static void write_half_back(const struct bench *b)
{
    struct stat st;
    const int fd = open(b->entry[KEY], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0)
        (void)sync_file_range(fd, 0, st.st_size / 2,
                              SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    close(fd);
}

/* 0: the get ended before; the power is cut then. `half`: see above. */
static int cut_one(struct bench *b, const struct disk *disk, struct cut *c, int half)
{
    struct told told;
    int rc;
    bench_prepare(b, b->with_by);
    disk_sync(disk);
    c->seen = 0;
    c->met = 0;
    b->tally->runs++;
    bench_get(b, &told, KEY, 0, cut_at, c);
    tally_about(b->tally, "power cut at call %u of %u%s", c->nth, c->seen,
                c->how == DISK_FLUSH_LOG ? ", with its log" : "");
    bench_judge(b, &told, KEY, c->met);
    if (!c->met && half)
        write_half_back(b);
    if (!c->met)
        (void)disk_cut(disk, c->how);
    b->met++;
    rc = disk_remount((struct disk *)(uintptr_t)disk, "");
    if (!bench_must(b, rc == 0, "it is not mounted again: %s", strerror(rc)))
        return 0;
    told.saved = 0; /* none of them promises that it is on the disk */
    bench_aftermath(b, &told, 0);
    return c->met;
}

void others_power(struct bench *outer)
{
    struct disk disk;
    struct bench b;
    const char *why = disk_init(&disk, "ext4", 64 << 20, -1);
    const unsigned step = outer->quick ? 3 : 1, last = outer->quick ? 3 : 20;
    if (!why && disk_mount(&disk, "") != 0)
        why = "it cannot be mounted";
    if (!why && trace_missing())
        why = trace_missing();
    if (why) {
        disk_end(&disk);
        tally_skip(outer->tally, "ext4: %s", why);
        return;
    }
    setenv("TMPDIR", disk.dir, 1);
    if (bench_init(&b, outer->tally, outer->subject, outer->seed, outer->quick) == 0) {
        disk_sync(&disk);
        for (int flush = 0; flush <= 1; flush++) {
            struct cut c = {.b = &b, .disk = &disk, .how = flush ? DISK_FLUSH_LOG : DISK_NO_FLUSH};
            c.nth = 1;
            while (c.nth < 2000 && cut_one(&b, &disk, &c, 0))
                c.nth += step;
            /* After all of it, which is the usual moment. */
            for (unsigned i = 1; i < last; i++)
                cut_one(&b, &disk, &c, i % 2 == 0);
        }
        outer->met += b.met;
        outer->left += b.left;
        outer->stuck += b.stuck;
        outer->freed += b.freed;
    }
    outer->broken |= b.broken;
    bench_end(&b);
    disk_end(&disk);
}

/* ---- row 14 ---- */

void others_writers(struct bench *b)
{
    enum { MANY = 8 };
    const unsigned rounds = b->quick ? 3 : 100;
    for (unsigned round = 0; round < rounds; round++) {
        struct told told[MANY];
        bench_prepare(b, b->with_by);
        tally_about(b->tally, "round %u of %d writers", round, MANY);
        bench_get_many(b, told, MANY, KEY);
        for (unsigned i = 0; i < MANY; i++) {
            b->tally->runs++;
            b->met += (unsigned long)told[i].compiled;
            bench_judge(b, &told[i], KEY, 0);
        }
        bench_aftermath(b, &told[0], 0);
    }
}

/* ---- row 29 ---- */

enum kind { LINK, LINK_TO_NOTHING, FIFO, DIRECTORY, DEVICE, LINKED_FOLDER, KINDS };

static const char *const kind_names[] = {"a link to a file", "a link to nothing",
                                         "a FIFO",           "a directory",
                                         "a device",         "a linked folder"};

static int plant(const char *path, enum kind kind, const char *victim, const char *nothing)
{
    scratch_remove(path);
    switch (kind) {
    case LINK:
        return symlink(victim, path);
    case LINK_TO_NOTHING:
        return symlink(nothing, path);
    case FIFO:
        return mkfifo(path, 0600);
    case DIRECTORY:
        return mkdir(path, 0700);
    default:
        return mknod(path, S_IFCHR | 0600, 0x0105); /* zeros without end */
    }
}

/* Something else lies where the entry is looked for, or saved, or where its folder is. */
void others_planted(struct bench *b)
{
    static const char text[] = "this belongs to somebody else";
    char *victim = scratch_in(&b->scratch, "victim"), *nothing = scratch_in(&b->scratch, "nothing");
    char *elsewhere = scratch_in(&b->scratch, "elsewhere"), *folder, *slash;
    folder = scratch_text(&b->scratch, "%s", b->entry[KEY]);
    if ((slash = strrchr(folder, '/')) != NULL)
        *slash = '\0';
    for (int kind = 0; kind < KINDS; kind++)
        for (int round = 0; round < (b->quick ? 1 : 2); round++) {
            struct told told;
            size_t size;
            uint8_t *now;
            int rc;
            if (kind == DEVICE && geteuid() != 0)
                continue;
            scratch_write(victim, text, sizeof(text), 0600);
            scratch_remove(elsewhere);
            bench_prepare(b,
                          kind == LINKED_FOLDER && strcmp(folder, b->dir) != 0 ? NULL : b->with_by);
            if (kind == LINKED_FOLDER) {
                if (strcmp(folder, b->dir) == 0)
                    continue;
                (void)mkdir(elsewhere, 0755);
                (void)mkdir(b->dir, 0755);
                slash = folder + strlen(b->dir) + 1;
                for (char *next = strchr(slash, '/'); next; next = strchr(next + 1, '/')) {
                    *next = '\0';
                    (void)mkdir(folder, 0755);
                    *next = '/';
                }
                rc = symlink(elsewhere, folder);
            } else {
                rc = plant(b->entry[KEY], (enum kind)kind, victim, nothing);
            }
            tally_about(b->tally, "%s", kind_names[kind]);
            if (!bench_must(b, rc == 0, "it cannot be planted: %s", strerror(errno)))
                continue;
            b->tally->runs++;
            b->met++;
            bench_get(b, &told, KEY, 0, NULL, NULL);
            bench_judge(b, &told, KEY, 0);
            now = scratch_read(victim, &size);
            tally_check(b->tally, 'X',
                        size == sizeof(text) && memcmp(now, text, size) == 0 &&
                            !scratch_exists(nothing) &&
                            (kind != LINKED_FOLDER || !*scratch_tree(&b->scratch, elsewhere)),
                        "it wrote through it, outside of its directory");
            free(now);
            scratch_remove(nothing);
            if (kind != LINKED_FOLDER) {
                scratch_remove(b->entry[KEY]);
                bench_check_usable(b, KEY);
                bench_check_by(b);
            }
        }
    scratch_remove(victim);
    scratch_remove(elsewhere);
}
