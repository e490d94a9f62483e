/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "spoil.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "entry.h"
#include "support/scratch.h"

const char *spoil_name(enum spoil how)
{
    static const char *const names[] = {
        "artifact", "padding",     "trailer",   "footer", "cut",      "long",    "empty",
        "key",      "fingerprint", "namespace", "kind",   "writable", "symlink", "dangling",
        "fifo",     "socket",      "",          "newer",  "directory"};
    return names[how];
}

wasmcache_reason spoil_reason(enum spoil how)
{
    switch (how) {
    case SPOIL_KEY:
    case SPOIL_FINGERPRINT:
    case SPOIL_NAMESPACE:
    case SPOIL_KIND:
        return WASMCACHE_REASON_MISMATCHED;
    case SPOIL_WRITABLE:
    case SPOIL_SYMLINK:
    case SPOIL_DANGLING:
    case SPOIL_FIFO:
    case SPOIL_SOCKET:
    case SPOIL_DIRECTORY:
        return WASMCACHE_REASON_UNTRUSTED;
    case SPOIL_NEWER:
        return WASMCACHE_REASON_NEWER_FORMAT;
    default:
        return WASMCACHE_REASON_CORRUPT;
    }
}

/* The same entry with another trailer, all checks right. */
static void change_trailer(uint8_t *bytes, size_t size, enum spoil how)
{
    struct wc_trailer trailer;
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_trailer_decode(&trailer, bytes, size, size, &err), 0);
    switch (how) {
    case SPOIL_KEY:
        trailer.key.bytes[5] ^= 1;
        break;
    case SPOIL_FINGERPRINT:
        trailer.fingerprint[31] ^= 1;
        break;
    case SPOIL_NAMESPACE:
        trailer.engine_namespace[0] ^= 1;
        break;
    default:
        trailer.kind = trailer.kind == WASMCACHE_MODULE ? WASMCACHE_COMPONENT : WASMCACHE_MODULE;
        break;
    }
    wc_trailer_encode(bytes + size - WC_TRAILER_SIZE, &trailer);
}

static void make_newer(uint8_t *bytes, size_t size)
{
    uint8_t *footer = bytes + size - WC_FOOTER_SIZE;
    uint32_t check;
    footer[4] = WC_FORMAT_INCOMPATIBLE + 1;
    check = (uint32_t)XXH3_64bits(footer, 8);
    for (int i = 0; i < 4; i++)
        footer[8 + i] = (uint8_t)(check >> (8 * i));
}

static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char link[64];
    char *folder = strdup(path), *slash = strrchr(folder, '/');
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *slash = '\0';
    snprintf(link, sizeof(link), "/tmp/wasmcache-socket-%d", (int)getpid());
    /* The names of sockets are short: by way of a link to the folder. */
    unlink(link);
    assert_int_equal(symlink(folder, link), 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", link);
    assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(rename(address.sun_path, path), 0);
    unlink(link);
    close(s);
    free(folder);
}

void spoil(const char *path, enum spoil how)
{
    char beside[4096];
    size_t size;
    uint8_t *bytes = scratch_read(path, &size);
    mode_t mode = scratch_mode(path);
    snprintf(beside, sizeof(beside), "%s.target", path);
    switch (how) {
    case SPOIL_ARTIFACT:
        bytes[(size - WC_TRAILER_SIZE) / 3] ^= 4;
        break;
    case SPOIL_PADDING:
        bytes[size - WC_TRAILER_SIZE - 1] ^= 1;
        break;
    case SPOIL_TRAILER:
        bytes[size - WC_TRAILER_SIZE + 130] ^= 1;
        break;
    case SPOIL_FOOTER:
        bytes[size - 11] ^= 1;
        break;
    case SPOIL_CUT:
        size--;
        break;
    case SPOIL_LONG:
        size++; /* the zero byte behind */
        break;
    case SPOIL_EMPTY:
        size = 0;
        break;
    case SPOIL_KEY:
    case SPOIL_FINGERPRINT:
    case SPOIL_NAMESPACE:
    case SPOIL_KIND:
        change_trailer(bytes, size, how);
        break;
    case SPOIL_NEWER:
        make_newer(bytes, size);
        break;
    case SPOIL_WRITABLE:
        mode = 0666;
        break;
    case SPOIL_SYMLINK:
        scratch_write(beside, bytes, size, mode);
        unlink(path);
        assert_int_equal(symlink(beside, path), 0);
        break;
    case SPOIL_DANGLING:
        unlink(path);
        assert_int_equal(symlink("/nowhere/at/all", path), 0);
        break;
    case SPOIL_FIFO:
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        break;
    case SPOIL_SOCKET:
        unlink(path);
        make_socket(path);
        break;
    case SPOIL_DIRECTORY:
        unlink(path);
        assert_int_equal(mkdir(path, 0700), 0);
        break;
    case SPOIL_COUNT:
        fail();
    }
    if (how <= SPOIL_WRITABLE || how == SPOIL_NEWER)
        scratch_write(path, bytes, size, mode);
    free(bytes);
}
