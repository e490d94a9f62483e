/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries that Wasmer's own cache saved: the artifact and nothing else, or, long ago, that
 * compressed. Nothing in such a file says whether it is whole, so what can be seen is looked at
 * before the engine gets it: that it begins as an artifact of this version does.
 *
 * What is nothing that the engine loads is ECORRUPT, and wc_load() then removes it as it does a
 * damaged entry. An engine gives no reason that can be told apart: where it refuses what looks
 * right, and the process is short of what it may have needed, the file stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "legacy_lzw.h"

/* No artifact has more than this; a stream of LZW of that file's size could claim 2,500 times as
 * much. */
#define OUTPUT_MAX ((size_t)1 << 30)

enum form { ARTIFACT, OTHER_VERSION, UNKNOWN };

static enum form form_of(const struct wc_call *call, const uint8_t *bytes, size_t size)
{
    const wasmcache_attachment *a = call->attachment;
    uint32_t version;
    if (!a->table.artifact_version || a->table.artifact_version(bytes, size, &version))
        return UNKNOWN;
    return version == call->identity->artifact_version ? ARTIFACT : OTHER_VERSION;
}

static int useless(const struct wc_entry_file *file, const char *why, struct wc_error *err)
{
    return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, file->path,
                   "%s is no old entry that can be loaded: %s", file->path, why);
}

/* The engine refused `size` bytes: is it the file's fault? */
static int judge_refusal(const struct wc_entry_file *file, size_t size, struct wc_error *err)
{
    char why[sizeof(err->message)];
    if (wc_os_is_short(file->fd, size))
        return WASMCACHE_EENGINE;
    memcpy(why, err->message, sizeof(why));
    return useless(file, why, err);
}

static int load_plain(struct wc_call *call, const struct wc_entry_file *file, const uint8_t *read,
                      void **native, struct wc_error *err)
{
    int rc = read ? wc_engine_load_copy(call, read, (size_t)file->st.size, native, err)
                  : wc_engine_load(call, file, native, err);
    return rc == WASMCACHE_EENGINE ? judge_refusal(file, (size_t)file->st.size, err) : rc;
}

/* Does what comes out begin as an artifact does, as far as the engine can tell? Asked before there
 * is memory for all of it: the file's own length says nothing about how much that is. */
static int begins_as_artifact(const struct wc_call *call, const uint8_t *bytes, size_t size,
                              size_t length)
{
    uint8_t head[1024] = {0};
    if (!call->attachment->table.artifact_version)
        return 1;
    length = length < sizeof(head) ? length : sizeof(head);
    (void)wc_lzw_decode(head, length, bytes, size); /* it ends early, unless that is all */
    return form_of(call, head, length) == ARTIFACT;
}

static int load_compressed(struct wc_call *call, const struct wc_entry_file *file,
                           const uint8_t *bytes, void **native, struct wc_error *err)
{
    const size_t size = (size_t)file->st.size;
    uint8_t *artifact;
    size_t length;
    int rc = 0;

    if (wc_lzw_length(&length, bytes, size, OUTPUT_MAX) < 0 || !length)
        return useless(file, "neither an artifact nor one that was compressed", err);
    if (!begins_as_artifact(call, bytes, size, length))
        return useless(file, "what was compressed is no artifact of this version", err);
    artifact = malloc(length);
    if (!artifact)
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", file->path, "No memory to decompress %s",
                       file->path);
    if (wc_lzw_decode(artifact, length, bytes, size) < 0)
        rc = wc_fail(err, WASMCACHE_EBUSY, 0, NULL, file->path, "%s changed while it was read",
                     file->path);
    else
        rc = wc_engine_load_copy(call, artifact, length, native, err);
    free(artifact);
    if (rc == 0)
        call->report.artifact_bytes = length;
    return rc == WASMCACHE_EENGINE ? judge_refusal(file, length, err) : rc;
}

/* All of the file in memory: mapped, or read (*read, to be freed) where it may not be. */
static int get_bytes(const struct wc_call *call, const struct wc_entry_file *file,
                     const void **bytes, uint8_t **read, struct wc_error *err)
{
    const size_t size = (size_t)file->st.size;
    int64_t rc;
    *read = NULL;
    if (wc_may_be_mapped(call->attachment->cache, file)) {
        rc = wc_os_map(file->fd, size, bytes);
        return rc == 0 ? 0
                       : wc_fail(err, wc_error_of_errno((int)rc), (int)rc, "mmap", file->path,
                                 "Cannot map %s", file->path);
    }
    *read = malloc(size);
    if (!*read)
        return wc_fail(err, WASMCACHE_ENOMEM, ENOMEM, "malloc", file->path, "No memory to read %s",
                       file->path);
    *bytes = *read;
    rc = wc_os_pread(file->fd, *read, size, 0);
    if (rc == (int64_t)size)
        return 0;
    free(*read);
    return wc_fail(err, WASMCACHE_EIO, rc < 0 ? (int)rc : EIO, "pread", file->path,
                   "Cannot read all of %s", file->path);
}

int wc_load_legacy(struct wc_call *call, const struct wc_entry_file *file, void **native,
                   struct wc_error *err)
{
    const int told = call->attachment->table.artifact_version != NULL;
    const size_t size = (size_t)file->st.size;
    const void *bytes;
    uint8_t *read;
    enum form form;
    int rc;

    if (!size)
        return useless(file, "it is empty", err);
    rc = get_bytes(call, file, &bytes, &read, err);
    if (rc < 0)
        return rc;
    form = form_of(call, bytes, size);
    if (form == OTHER_VERSION)
        rc = useless(file, "it is an artifact of another version", err);
    else if (form == ARTIFACT)
        rc = load_plain(call, file, read, native, err);
    else
        /* An engine whose artifacts cannot be told by their first bytes is asked. */
        rc = told ? WASMCACHE_ECORRUPT : load_plain(call, file, read, native, err);
    if (rc == WASMCACHE_ECORRUPT && form == UNKNOWN)
        rc = load_compressed(call, file, bytes, native, err);
    if (read)
        free(read);
    else
        wc_os_unmap(bytes, size);
    return rc;
}
