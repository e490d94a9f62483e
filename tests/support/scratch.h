/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

/*
 * Directories for tests, what is in them, and children that are somebody else.
 *
 *     struct scratch s;
 *     scratch_init(&s);                                   // a new directory, mode 0755
 *     char *cache = scratch_in(&s, "cache");              // a path in it, which s owns
 *     ...
 *     scratch_end(&s);                                    // removes it with all that is in it
 *
 * What goes wrong here ends the test with cmocka's fail().
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct scratch {
    char dir[200];
    struct scratch_string *strings;
};

void scratch_init(struct scratch *s);
void scratch_end(struct scratch *s);

/* The path of something in the directory. Valid until scratch_end(). */
char *scratch_in(struct scratch *s, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/* Text that s owns. */
char *scratch_text(struct scratch *s, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/*
 * All that lies below `dir`, as sorted relative paths with a newline behind each, directories with
 * a slash: "CACHEDIR.TAG\nns-v1/\nns-v1/AB.bin\n". Tables of hints, tallies, locks and
 * identity files are passed over: they may come at any time. Valid until scratch_end().
 */
const char *scratch_tree(struct scratch *s, const char *dir);

/* Removes what lies at `path` with all that is in it, if there is something. */
void scratch_remove(const char *path);

/* The content of a file; malloc-ed, with a zero byte behind it that does not count. */
uint8_t *scratch_read(const char *path, size_t *size);
/* Makes or replaces a file (by rename, so that it is a new inode) with exactly that mode. */
void scratch_write(const char *path, const void *bytes, size_t size, mode_t mode);
/* Flips one bit in place, whatever the file's mode; the inode stays. */
void scratch_flip(const char *path, uint64_t bit);
/* 1 if both can be read and have the same bytes. */
int scratch_same(const char *a, const char *b);

/* What lstat says; fails if there is nothing. */
ino_t scratch_inode(const char *path);
mode_t scratch_mode(const char *path); /* the 07777 bits */
int scratch_exists(const char *path);  /* 1 or 0; a dangling link exists */

/* Descriptors that this process has open. */
unsigned scratch_descriptors(void);

/*
 * Runs `body` in a child as user and group `uid` (0: as now) and returns its exit status: what body
 * returned, 100 + signal if one ended it. It is ended after `seconds`. In the child cmocka's
 * asserts print, and end it with SIGABRT.
 */
int scratch_child(int (*body)(void *), void *argument, uid_t uid, unsigned seconds);

/* The same without waiting; scratch_wait() gives the status. */
pid_t scratch_start(int (*body)(void *), void *argument, uid_t uid, unsigned seconds);
int scratch_wait(pid_t child);

/* 1 if we are root and so can become somebody else, mount and mknod. Otherwise says on stdout what
 * is skipped for that reason. */
int scratch_is_root(const char *skipped);

/* 1 if this system can have the pages of a mapping be there before they are read (Linux 5.14). */
int scratch_has_views(void);

/*
 * For tests that make very many files: from now on scratch directories lie on a tmpfs of their own,
 * seen by this process and its children only. Does nothing where that may not be done.
 */
void scratch_in_memory(void);
void scratch_in_memory_end(void);

#define SCRATCH_NOBODY ((uid_t)65534)

#endif
