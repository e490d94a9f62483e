/* SPDX-License-Identifier: Apache-2.0 */
#include "identity_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "key.h"

static const char family[] = "wasmcache identity ", version[] = "1";

/* Its lines but the two that are no text, in order. */
static const struct line {
    const char *name;
    size_t offset, size;
} lines[] = {
#define LINE(name, field)                                                                          \
    {                                                                                              \
        name, offsetof(wasmcache_identity, field), sizeof(((wasmcache_identity *)NULL)->field)     \
    }
    LINE("adapter", adapter),   LINE("compiler", compiler), LINE("version", engine_version),
    LINE("target", target),     LINE("cpu", cpu),           LINE("build", build),
    LINE("settings", settings), LINE("probe", probe),
#undef LINE
};

enum { LINES = sizeof(lines) / sizeof(lines[0]) };

/* ---- of an attachment ---- */

static int is_plain(char c)
{
    return c >= ' ' && c <= '~';
}

/*
 * A value on one line, whatever it holds: bytes that are not printable ASCII, and the backslash,
 * are "\xHH". What would be too long is cut, and ends with "\+" and the SHA-256 of all of it, so
 * that two that differ look different.
 */
static void put_text(char out[WASMCACHE_IDENTITY_TEXT], const char *text)
{
    enum { TAIL = 2 + 64 };
    const size_t length = text ? strlen(text) : 0;
    size_t at = 0, cut = 0;
    for (size_t i = 0; i < length; i++) {
        const int plain = is_plain(text[i]) && text[i] != '\\';
        const size_t width = plain ? 1 : 4;
        if (at + width + TAIL < WASMCACHE_IDENTITY_TEXT)
            cut = at + width;
        if (at + width >= WASMCACHE_IDENTITY_TEXT) {
            uint8_t hash[32];
            wc_sha256(hash, text, length);
            memcpy(out + cut, "\\+", 2);
            wc_hex(out + cut + 2, hash, sizeof(hash));
            return;
        }
        if (plain)
            out[at] = text[i];
        else
            snprintf(out + at, width + 1, "\\x%02X", (unsigned)(unsigned char)text[i]);
        at += width;
    }
    out[at] = '\0';
}

static void describe(wasmcache_identity *out, const wasmcache_attachment *attachment,
                     const struct wc_identity *identity)
{
    const wasmcache_attach_options *o = &attachment->options;
    uint8_t cpu[64];
    const int cpu_length = wc_os_cpu(cpu);
    memset(out, 0, sizeof(*out));
    out->size = sizeof(*out);
    out->artifact_version = identity->artifact_version;
    memcpy(out->fingerprint, identity->fingerprint, sizeof(out->fingerprint));
    snprintf(out->adapter, sizeof(out->adapter), "%s", attachment->name);
    snprintf(out->compiler, sizeof(out->compiler), "%s", o->compiler);
    put_text(out->engine_version, o->engine_version);
    put_text(out->target, o->target);
    put_text(out->settings, o->settings);
    wc_hex(out->cpu, cpu, cpu_length > 0 ? (size_t)cpu_length : 0);
    wc_hex(out->build, identity->build, (size_t)identity->build_length);
    if (identity->probed)
        wc_hex(out->probe, identity->probe, sizeof(identity->probe));
}

/* ---- writing ---- */

static size_t make_text(char out[WC_IDENTITY_FILE_MAX], const wasmcache_identity *identity)
{
    char hex[65];
    size_t used = (size_t)snprintf(out, WC_IDENTITY_FILE_MAX, "%s%s\n", family, version);
    for (size_t i = 0; i < LINES; i++)
        used += (size_t)snprintf(out + used, WC_IDENTITY_FILE_MAX - used, "%s: %s\n", lines[i].name,
                                 (const char *)identity + lines[i].offset);
    wc_hex(hex, identity->fingerprint, sizeof(identity->fingerprint));
    used += (size_t)snprintf(out + used, WC_IDENTITY_FILE_MAX - used,
                             "artifact: %" PRIu32 "\nfingerprint: %s\n", identity->artifact_version,
                             hex);
    return used;
}
_Static_assert(3 * WASMCACHE_IDENTITY_TEXT + 1024 < WC_IDENTITY_FILE_MAX, "all lines have room");

static int fill(const struct wc_store *store, int fd, const char *text, size_t length)
{
    int rc = wc_os_write(fd, text, length);
    if (rc == 0)
        rc = wc_os_chmod(fd, wc_gate_file_mode(&store->gate));
    if (rc == 0)
        rc = wc_gate_date(&store->gate, fd);
    return rc == 0 ? wc_os_flush(fd) : rc;
}

static int publish_unnamed(const struct wc_store *store, int at, const char *text, size_t length)
{
    int rc, fd = wc_os_open_unnamed(at);
    if (fd < 0)
        return fd;
    rc = fill(store, fd, text, length);
    if (rc == 0)
        rc = wc_os_link_unnamed(fd, at, WC_IDENTITY_NAME);
    wc_os_close(fd);
    return rc;
}

/* A temp as entries have them, so that what a dead process leaves is cleaned up with theirs. A
 * clean-up that is faster than our lock takes the temp: then there is no file yet. */
static void publish_named(const struct wc_store *store, int at, const char *text, size_t length)
{
    char temp[WC_PRIVATE_NAME_SIZE];
    int rc, fd;
    if (wc_private_name(temp, NULL) < 0)
        return;
    fd = wc_os_create(at, temp);
    if (fd < 0)
        return;
    (void)wc_os_try_lock(fd);
    if (fill(store, fd, text, length) == 0) {
        rc = wc_os_link(at, temp, WC_IDENTITY_NAME);
        if (rc < 0 && rc != -EEXIST) /* a file system without hard links */
            rc = wc_os_rename_noreplace(at, temp, WC_IDENTITY_NAME);
        if (rc == -EINVAL)
            (void)wc_os_rename(at, temp, WC_IDENTITY_NAME);
    }
    (void)wc_os_unlink(at, temp);
    wc_os_close(fd);
}

void wc_identity_file_write(const struct wc_store *store, const struct wc_folder *folder,
                            const wasmcache_attachment *attachment,
                            const struct wc_identity *identity)
{
    char text[WC_IDENTITY_FILE_MAX];
    wasmcache_identity own;
    struct wc_os_stat st;
    size_t length;
    int rc;
    if (wc_os_stat_at(folder->fd, WC_IDENTITY_NAME, &st) != -ENOENT)
        return;
    describe(&own, attachment, identity);
    length = make_text(text, &own);
    if (wc_os_file_size_limit() < length) /* not to be found out by SIGXFSZ */
        return;
    rc = publish_unnamed(store, folder->fd, text, length);
    if (rc < 0 && rc != -EEXIST)
        publish_named(store, folder->fd, text, length);
    wc_gate_date_folder(&store->gate, folder->fd);
}

/* ---- reading ---- */

static int damaged(const char *path, const char *what, struct wc_error *err)
{
    return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, path, "%s is damaged (%s)", path, what);
}

/* What our own are made of: hex of a digest, a number. 0: it is not that. */
static int take_fingerprint(wasmcache_identity *out, const char *value)
{
    wasmcache_key key;
    if (strlen(value) != 64 || wasmcache_key_from_hex(&key, value) < 0)
        return 0;
    memcpy(out->fingerprint, key.bytes, sizeof(out->fingerprint));
    return 1;
}

static int take_artifact(wasmcache_identity *out, const char *value)
{
    uint64_t number = 0;
    const size_t length = strlen(value);
    if (!length || length > 10 || strspn(value, "0123456789") != length)
        return 0;
    for (; *value; value++)
        number = number * 10 + (uint64_t)(*value - '0');
    out->artifact_version = (uint32_t)number;
    return number <= UINT32_MAX;
}

/* 0: the value is none that this library writes. */
static int take_line(wasmcache_identity *out, const char *name, const char *value)
{
    if (strcmp(name, "fingerprint") == 0)
        return take_fingerprint(out, value);
    if (strcmp(name, "artifact") == 0)
        return take_artifact(out, value);
    for (size_t i = 0; i < LINES; i++) {
        if (strcmp(name, lines[i].name) != 0)
            continue;
        if (strlen(value) >= lines[i].size)
            return 0;
        memcpy((char *)out + lines[i].offset, value, strlen(value) + 1);
    }
    return 1;
}

static int parse(wasmcache_identity *out, char *text, size_t length, const char *path,
                 struct wc_error *err)
{
    char *line = text, *end;
    for (size_t i = 0; i < length; i++)
        if (text[i] != '\n' && !is_plain(text[i]))
            return damaged(path, "it is no text", err);
    if (!length || text[length - 1] != '\n' || strncmp(text, family, strlen(family)) != 0)
        return damaged(path, "it does not begin or end as it should", err);
    end = strchr(line, '\n');
    *end = '\0';
    if (strcmp(line + strlen(family), version) != 0)
        return wc_fail(err, WASMCACHE_ENEWER, 0, NULL, path,
                       "%s has a format that this version does not know", path);
    for (line = end + 1; line < text + length; line = end + 1) {
        char *value;
        end = strchr(line, '\n');
        *end = '\0';
        value = strstr(line, ": ");
        if (!value)
            return damaged(path, "a line has no value", err);
        *value = '\0';
        if (!take_line(out, line, value + 2))
            return damaged(path, line, err);
    }
    return 0;
}

static int read_judged(wasmcache_identity *out, const struct wc_store *store, int fd,
                       const char *path, struct wc_error *err)
{
    char text[WC_IDENTITY_FILE_MAX + 1];
    struct wc_os_stat st;
    int64_t n;
    int rc = wc_os_fstat(fd, &st);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_EIO, rc, "fstat", path, "Cannot look at %s", path);
    if (st.type != WC_OS_FILE || !wc_gate_trusts(&store->gate, &st))
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                       "%s is not to be trusted (owner %" PRIu32 ", mode %04" PRIo32 ")", path,
                       st.uid, st.mode);
    if (st.size > WC_IDENTITY_FILE_MAX)
        return damaged(path, "it is too long", err);
    n = wc_os_pread(fd, text, WC_IDENTITY_FILE_MAX, 0);
    if (n < 0)
        return wc_fail(err, WASMCACHE_EIO, (int)n, "pread", path, "Cannot read %s", path);
    text[n] = '\0';
    memset(out, 0, sizeof(*out));
    out->size = sizeof(*out);
    return parse(out, text, (size_t)n, path, err);
}

int wc_identity_file_read(wasmcache_identity *out, const struct wc_store *store,
                          const struct wc_folder *folder, struct wc_error *err)
{
    char path[WC_PATH_SIZE];
    int rc, fd = wc_os_open_read(folder->fd, WC_IDENTITY_NAME);
    wc_path_join(path, folder->path, WC_IDENTITY_NAME);
    if (fd == -ENOENT)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, path, "There is no %s", path);
    if (fd == -ELOOP || fd == -ENXIO)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path, "%s is not a regular file", path);
    if (fd < 0)
        return wc_fail(err, wc_error_of_errno(fd), fd, "open", path, "Cannot open %s", path);
    rc = read_judged(out, store, fd, path, err);
    wc_os_close(fd);
    return rc;
}

/* ---- public ---- */

static int misuse(struct wc_error *err, const char *function)
{
    return wc_error_publish(err, wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                         "%s: NULL, without WASMCACHE_IDENTITY_INIT, or a "
                                         "namespace that is none",
                                         function));
}

int wasmcache_identity_of(wasmcache_identity *out, wasmcache_attachment *attachment)
{
    const struct wc_identity *identity;
    wasmcache_identity own;
    struct wc_error err;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t))
        return misuse(&err, "wasmcache_identity_of");
    if (!attachment)
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no attachment"));
    identity = wc_attachment_identity(attachment, NULL);
    if (identity->error)
        return wc_error_publish(
            &err, wc_fail(&err, identity->error, 0, NULL, NULL, "%s", identity->message));
    describe(&own, attachment, identity);
    wc_sized_out(out, &own, sizeof(own));
    return 0;
}

int wasmcache_identity_read(wasmcache_identity *out, wasmcache *cache, const char *engine_namespace)
{
    struct wc_folder folder = WC_FOLDER_INIT;
    wasmcache_identity found;
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t) || !wc_namespace_valid(engine_namespace))
        return misuse(&err, "wasmcache_identity_read");
    if (!wc_cache_usable(cache))
        return wc_error_publish(&err,
                                wc_fail(&err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache"));
    rc = wc_store_open_folder(&folder, &cache->store, engine_namespace, &err);
    if (rc == 0)
        rc = wc_identity_file_read(&found, &cache->store, &folder, &err);
    wc_folder_close(&folder);
    if (rc == 0)
        wc_sized_out(out, &found, sizeof(found));
    return wc_error_publish(&err, rc);
}
