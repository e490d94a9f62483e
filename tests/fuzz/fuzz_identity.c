/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte says which way; even: the rest is a file `.identity` as somebody may have left it
 * in a namespace's folder. A second parser must agree on what it is and on each value, and nothing
 * that people get to see has a byte that is not printable.
 *
 * Odd: the rest are version, target and settings of an engine, with a zero byte between. What is
 * written of them must be such a file, in which the values are the same again, or cut with the hash
 * of the whole.
 *
 * covers: src/identity_file.c
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "identity_file.h"
#include "key.h"

enum { TEXTS = 8 };

static struct wc_store store;
static struct wc_folder folder = WC_FOLDER_INIT;
static int planted = -1;

static void set_up(void)
{
    if (folder.fd >= 0)
        return;
    store.dir = (char *)(uintptr_t)fuzz_directory();
    folder.fd = fuzz_directory_fd();
    (void)wc_path_join(folder.path, store.dir, "fuzz-v1");
}

/* ---- the second parser ---- */

static const struct {
    const char *name;
    size_t offset, size;
} texts[TEXTS] = {
    {"adapter", offsetof(wasmcache_identity, adapter), 32},
    {"compiler", offsetof(wasmcache_identity, compiler), 32},
    {"version", offsetof(wasmcache_identity, engine_version), 512},
    {"target", offsetof(wasmcache_identity, target), 512},
    {"settings", offsetof(wasmcache_identity, settings), 512},
    {"cpu", offsetof(wasmcache_identity, cpu), 129},
    {"build", offsetof(wasmcache_identity, build), 65},
    {"probe", offsetof(wasmcache_identity, probe), 65},
};

FUZZ_ORACLE static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

FUZZ_ORACLE static int naive_line(wasmcache_identity *out, const uint8_t *line, size_t length)
{
    size_t colon = 0, value, rest;
    while (colon + 1 < length && (line[colon] != ':' || line[colon + 1] != ' '))
        colon++;
    if (colon + 1 >= length)
        return WASMCACHE_ECORRUPT;
    value = colon + 2;
    rest = length - value;
    if (colon == 11 && memcmp(line, "fingerprint", 11) == 0) {
        if (rest != 64)
            return WASMCACHE_ECORRUPT;
        for (size_t i = 0; i < 64; i++) {
            const int digit = hex_digit(line[value + i]);
            if (digit < 0)
                return WASMCACHE_ECORRUPT;
            out->fingerprint[i / 2] =
                (uint8_t)(i % 2 ? out->fingerprint[i / 2] | digit : digit << 4);
        }
        return 0;
    }
    if (colon == 8 && memcmp(line, "artifact", 8) == 0) {
        uint64_t number = 0;
        for (size_t i = 0; i < rest; i++) {
            if (line[value + i] < '0' || line[value + i] > '9' || i == 10)
                return WASMCACHE_ECORRUPT;
            number = number * 10 + (line[value + i] - '0');
        }
        out->artifact_version = (uint32_t)number;
        return rest && number <= UINT32_MAX ? 0 : WASMCACHE_ECORRUPT;
    }
    for (int i = 0; i < TEXTS; i++) {
        char *to = (char *)out + texts[i].offset;
        if (colon != strlen(texts[i].name) || memcmp(line, texts[i].name, colon) != 0)
            continue;
        if (rest >= texts[i].size)
            return WASMCACHE_ECORRUPT;
        memset(to, 0, texts[i].size);
        memcpy(to, line + value, rest);
    }
    return 0;
}

FUZZ_ORACLE static int naive_parse(wasmcache_identity *out, const uint8_t *text, size_t size)
{
    static const char first[] = "wasmcache identity ";
    size_t line = 0;
    memset(out, 0, sizeof(*out));
    if (size > WC_IDENTITY_FILE_MAX || size < sizeof(first) || text[size - 1] != '\n' ||
        memcmp(text, first, sizeof(first) - 1) != 0)
        return WASMCACHE_ECORRUPT;
    for (size_t i = 0; i < size; i++)
        if (text[i] != '\n' && (text[i] < 0x20 || text[i] > 0x7E))
            return WASMCACHE_ECORRUPT;
    if (size < sizeof(first) + 1 || text[sizeof(first) - 1] != '1' || text[sizeof(first)] != '\n')
        return WASMCACHE_ENEWER;
    for (size_t i = 0; i < size; i++) {
        int rc;
        if (text[i] != '\n')
            continue;
        rc = line ? naive_line(out, text + line, i - line) : 0;
        if (rc < 0)
            return rc;
        line = i + 1;
    }
    return 0;
}

/* ---- read ---- */

FUZZ_ORACLE static void check_same(const wasmcache_identity *a, const wasmcache_identity *b)
{
    must(a->artifact_version == b->artifact_version);
    must(memcmp(a->fingerprint, b->fingerprint, sizeof(a->fingerprint)) == 0);
    for (int i = 0; i < TEXTS; i++)
        must(strcmp((const char *)a + texts[i].offset, (const char *)b + texts[i].offset) == 0);
}

FUZZ_ORACLE static void check_printable(const wasmcache_identity *identity)
{
    for (int i = 0; i < TEXTS; i++) {
        const char *text = (const char *)identity + texts[i].offset;
        must(memchr(text, 0, texts[i].size) != NULL);
        for (; *text; text++)
            must(*text >= 0x20 && *text <= 0x7E);
    }
}

static int read_identity(wasmcache_identity *out)
{
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    memset(out, 0xA5, sizeof(*out));
    rc = wc_identity_file_read(out, &store, &folder, &err);
    must(rc == 0 || (rc < 0 && err.error == rc && err.message[0]));
    for (const char *c = err.message; rc < 0 && *c; c++)
        must(*c >= 0x20 && *c <= 0x7E); /* no line of the file is said with what else is in it */
    return rc;
}

static void check_file(const uint8_t *data, size_t size)
{
    wasmcache_identity found, expected;
    int rc, expected_rc;

    if (planted < 0)
        planted = fuzz_plant(folder.fd, WC_IDENTITY_NAME, NULL, 0, 0600);
    must(ftruncate(planted, (off_t)size) == 0);
    must(!size || pwrite(planted, data, size, 0) == (ssize_t)size);
    rc = read_identity(&found);
    expected_rc = naive_parse(&expected, data, size);
    must(rc == expected_rc);
    if (rc < 0)
        return;
    must(found.size == sizeof(found));
    check_same(&found, &expected);
    check_printable(&found);
}

/* ---- write ---- */

/* `text` written on one line as `value`: take the escapes back. */
FUZZ_ORACLE static void check_value(const char *value, const char *text)
{
    const char *at = text;
    char hash[65];
    uint8_t bytes[32];
    for (; *value; at++) {
        if (value[0] == '\\' && value[1] == '+') {
            wc_sha256(bytes, text, strlen(text));
            wc_hex(hash, bytes, sizeof(bytes));
            must(strcmp(value + 2, hash) == 0 && *at);
            return;
        }
        if (value[0] == '\\') {
            must(value[1] == 'x');
            must((hex_digit((uint8_t)value[2]) << 4 | hex_digit((uint8_t)value[3])) ==
                 (uint8_t)*at);
            value += 4;
        } else {
            must(*value++ == *at);
        }
    }
    must(!*at);
}

static void check_written(char *strings[3])
{
    static struct wc_identity identity;
    static wasmcache_attachment attachment;
    wasmcache_identity found;
    char long_name[] = "abcdefghijklmnopqrstuvwxyz01234";

    memset(&identity, 0, sizeof(identity));
    memset(&attachment, 0, sizeof(attachment));
    memcpy(attachment.name, long_name, sizeof(long_name));
    attachment.options.compiler = "none";
    attachment.options.engine_version = strings[0];
    attachment.options.target = strings[1];
    attachment.options.settings = strings[2];
    identity.artifact_version = UINT32_MAX;
    memset(identity.fingerprint, 0xFE, sizeof(identity.fingerprint));
    identity.probed = 1;
    identity.build_length = sizeof(identity.build);

    if (planted >= 0)
        close(planted);
    planted = -1;
    (void)unlinkat(folder.fd, WC_IDENTITY_NAME, 0);
    wc_identity_file_write(&store, &folder, &attachment, &identity);
    must(read_identity(&found) == 0);
    check_printable(&found);
    must(strcmp(found.adapter, long_name) == 0 && strcmp(found.compiler, "none") == 0);
    must(found.artifact_version == UINT32_MAX &&
         memcmp(found.fingerprint, identity.fingerprint, sizeof(found.fingerprint)) == 0);
    must(strlen(found.build) == 64 && strlen(found.probe) == 64);
    check_value(found.engine_version, strings[0]);
    check_value(found.target, strings[1]);
    check_value(found.settings, strings[2]);
    (void)unlinkat(folder.fd, WC_IDENTITY_NAME, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy, *strings[3];
    set_up();
    if (!size || !(data[0] & 1)) {
        check_file(data + !!size, size - !!size);
        return 0;
    }
    copy = calloc(1, size + 3); /* at least three zero bytes are in it */
    must(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    strings[0] = copy;
    for (int i = 1; i < 3; i++)
        strings[i] = strings[i - 1] + strlen(strings[i - 1]) + 1;
    check_written(strings);
    free(copy);
    return 0;
}
