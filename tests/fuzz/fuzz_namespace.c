/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a name, as a caller or a directory gives it. Whatever is accepted as an engine id,
 * a namespace, an entry's or a private name must be one harmless component of a path.
 *
 * covers: src/namespace.c src/key.c
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "key.h"
#include "namespace.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

static void check_component(const char *name, size_t most)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                  "._+-";
    size_t length = strlen(name);
    must(length >= 1 && length <= most && strspn(name, allowed) == length);
    must(strstr(name, "..") == NULL);
}

static void check_id(const char *name)
{
    char made[WC_NAMESPACE_SIZE];
    check_component(name, WC_ENGINE_ID_MAX);
    must(strchr(letters, name[0]) != NULL);
    wc_namespace_make(made, name, UINT32_MAX);
    must(wc_namespace_valid(made) && strncmp(made, name, strlen(name)) == 0);
    wc_namespace_make(made, name, 0);
    must(wc_namespace_valid(made));
}

static void check_namespace(const char *name)
{
    const char *version = strrchr(name, '-');
    char id[WC_NAMESPACE_SIZE], again[WC_NAMESPACE_SIZE];
    check_component(name, WC_NAMESPACE_SIZE - 1);
    must(strchr(letters, name[0]) != NULL);
    must(version != NULL && version[1] == 'v');
    memcpy(id, name, (size_t)(version - name));
    id[version - name] = '\0';
    must(wc_engine_id_valid(id));
    wc_namespace_make(again, id, (uint32_t)strtoul(version + 2, NULL, 10));
    must(strcmp(again, name) == 0);
}

static void check_entry(const char *name, const wasmcache_key *key)
{
    char again[WC_ENTRY_NAME_SIZE];
    check_component(name, WC_ENTRY_NAME_SIZE - 1);
    must(wc_key_valid(key));
    wc_entry_name(again, key);
    must(strcmp(again, name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char hex[WASMCACHE_KEY_HEX_SIZE], of[WC_ENTRY_NAME_SIZE];
    wasmcache_key key, other;
    /* Exactly as long as it is, so that a read past its NUL is seen. */
    char *name = malloc(size + 1);
    must(name != NULL);
    if (size)
        memcpy(name, data, size);
    name[size] = '\0';

    if (wc_engine_id_valid(name))
        check_id(name);
    if (wc_namespace_valid(name))
        check_namespace(name);
    if (wc_entry_name_parse(&key, name) == 0) {
        check_entry(name, &key);
        must(!wc_private_name_parse(of, name));
    }
    if (wc_private_name_parse(of, name)) {
        check_component(name, WC_PRIVATE_NAME_SIZE - 1);
        must(strlen(name) + 1 <= WC_PRIVATE_NAME_SIZE && name[0] == '.');
        must(!wc_engine_id_valid(name) && !wc_namespace_valid(name));
        must(!of[0] || wc_entry_name_parse(&other, of) == 0);
        must((of[0] != 0) == (strncmp(name, WC_OLD_PREFIX, strlen(WC_OLD_PREFIX)) == 0));
    } else {
        must(of[0] == '\0');
    }
    if (wasmcache_key_from_hex(&key, name) == 0) {
        must(strlen(wasmcache_key_to_hex(hex, &key)) == strlen(name));
        must(wasmcache_key_from_hex(&other, hex) == 0 && wasmcache_key_equal(&key, &other));
    }
    free(name);
    return 0;
}
