/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SPOIL_H
#define TESTS_SPOIL_H

/* Ways in which what lies in an entry's place can be no good entry. */

#include "wasmcache.h"

enum spoil {
    SPOIL_ARTIFACT, /* a bit of the artifact */
    SPOIL_PADDING,  /* a bit of the padding */
    SPOIL_TRAILER,  /* a bit of the trailer */
    SPOIL_FOOTER,   /* a bit of the last 16 bytes */
    SPOIL_CUT,      /* the last byte is missing */
    SPOIL_LONG,     /* a byte more */
    SPOIL_EMPTY,
    SPOIL_KEY,         /* sound, but of another key */
    SPOIL_FINGERPRINT, /* sound, but of another engine */
    SPOIL_NAMESPACE,   /* sound, but of another namespace */
    SPOIL_KIND,        /* sound, but a component */
    SPOIL_WRITABLE,    /* sound, but anybody may write it */
    SPOIL_SYMLINK,     /* a link to a sound one */
    SPOIL_DANGLING,
    SPOIL_FIFO,
    SPOIL_SOCKET,
    SPOIL_COUNT,
    SPOIL_NEWER, /* of a later format: must stay */
    SPOIL_DIRECTORY
};

const char *spoil_name(enum spoil how);

/* What a lookup says of it: CORRUPT, MISMATCHED, UNTRUSTED, NEWER_FORMAT. */
wasmcache_reason spoil_reason(enum spoil how);

/*
 * Puts the spoilt form of the sound entry `path` in its place. It is a new inode. SYMLINK keeps the
 * sound one beside it, as "{path}.target".
 */
void spoil(const char *path, enum spoil how);

#endif
