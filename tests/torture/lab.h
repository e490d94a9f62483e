/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_LAB_H
#define TORTURE_LAB_H

/*
 * One thing that a host does with a cache, done again and again in a child from the same start,
 * while something goes wrong; and what must hold after each.
 *
 *     lab_init(&lab, tally, 0);
 *     lab_prepare(&lab, &lab_acts[i]);     // the directory is as at the start
 *     trace(&end, lab_child, &lab, ...);   // or lab_run(&lab, &end)
 *     lab_check(&lab, &end, LAB_KILLED);   // counts W D S T L K A
 *     ...
 *     lab_end(&lab);
 *
 * The directory holds: the entry of the module in question (absent, good, damaged or old), an entry
 * that nobody touches, and where the act is a clean-up what a dead process left.
 */

#include <sys/types.h>

#include "support/rig.h"
#include "torture/tally.h"
#include "torture/trace.h"

enum lab_start { LAB_ABSENT, LAB_GOOD, LAB_DAMAGED, LAB_OLD, LAB_NO_FOLDERS };

enum {
    /* what an act promises */
    LAB_GIVES = 1,   /* it returns the module, whatever happens */
    LAB_KEEPS = 2,   /* a good entry stays the very file it was */
    LAB_REMOVES = 4, /* the good entry may be gone if the call says so */
    LAB_LEFT = 8,    /* starts with what a dead process left */
    LAB_OPENS = 16,  /* opens the cache itself */
    LAB_STAYS = 64,  /* a good entry is there in the end, that one or a better one */
    LAB_MANY = 32,   /* starts with more entries than the limit allows; any may go but the pinned */
};

/* How a run ended that must not count against D. */
enum { LAB_PLAIN = 0, LAB_KILLED = 1 };

struct lab_seen; /* what the child tells, in shared memory */

struct lab_act {
    const char *name;
    int row; /* 1 save, 2 load, 3 the rest */
    enum lab_start start;
    unsigned promises;
    unsigned flags; /* of the cache */
    int (*run)(struct rig *r, struct lab_seen *seen);
};

extern const struct lab_act lab_acts[];
extern const unsigned lab_act_count;
const struct lab_act *lab_act_of(const char *name);

struct lab {
    struct tally *tally;
    struct rig r; /* the parent's; its cache is not open */
    const struct lab_act *act;
    struct lab_seen *seen;
    char *ns, *entry, *by, *left_name, *left_entry, *temp_name, *source, *attic;
    uint8_t *good, *left;
    size_t good_size, left_size;
    ino_t inode, by_inode;
    unsigned flags; /* more, of the cache */
    /* Called in the child right before and after what the act does; trace_on and trace_off. Or
     * NULL. */
    void (*begin)(struct lab *lab);
    void (*finish)(struct lab *lab);
    const void *payload; /* theirs */
    int (*body)(void *); /* what lab_run() runs in the child: lab_child, or what calls it */
    int power;           /* the power was cut: only durable saves are promised */
    int memory_may_lack; /* an act may then end with ENOMEM instead of a module */
};

/* `flags` WASMCACHE_DURABLE, ... for the cache; the artifact has at least so many bytes. */
void lab_init(struct lab *lab, struct tally *t, unsigned flags, size_t artifact);
void lab_end(struct lab *lab);

void lab_prepare(struct lab *lab, const struct lab_act *act);
/* What came before has left the directory as it is; `act` goes on from there, and promises no more
 * than to give its module if it is to. */
void lab_resume(struct lab *lab, struct lab_act *act);
/* A body for trace(), argument a struct lab. */
int lab_child(void *argument);
/* The same in a child that is not traced, which is ended after `seconds`. */
void lab_run(struct lab *lab, struct trace_end *end, unsigned seconds);
void lab_check(struct lab *lab, const struct trace_end *end, int how);

/* For finish(): the child tells of the fault that it met, and of what it found afterwards. */
void lab_tell_met(struct lab *lab, int met);
int lab_met(const struct lab *lab);

/* For rows that have a rig of their own: rig_end(), and counts what the engine saw as W and L. */
void lab_rig_end(struct tally *t, struct rig *r);
uint64_t lab_dice(uint64_t *seed);
/* The wasm of the module of that number, for rows with many. */
void lab_module_name(char out[40], unsigned number);

/* What the act's call returned. */
int lab_returned(const struct lab *lab);
/* 1 if the module can be loaded now, in a cache that is opened anew. */
int lab_loads(struct lab *lab);
/* 1 if the child's engine was handed bytes that it did not make. */
int lab_handed_wrong(const struct lab *lab);

/* 1 if the child's call says that the module is saved, which it may not take back. */
int lab_acknowledged(const struct lab *lab);
/* Counts as X whether a save that failed names the call and that errno. */
void lab_check_message(struct lab *lab, int error);

#endif
