/* SPDX-License-Identifier: Apache-2.0 */
#include "namespace.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "key.h"
#include "os/os.h"

static int letter_or_digit(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* The grammar of ids, which namespaces share, up to `most` bytes. */
static int name_valid(const char *name, size_t most)
{
    size_t length = name ? strnlen(name, most + 1) : 0;
    if (!length || length > most || !letter_or_digit(name[0]) || strstr(name, ".."))
        return 0;
    for (size_t i = 1; i < length; i++)
        if (!letter_or_digit(name[i]) && !strchr("._+-", name[i]))
            return 0;
    return 1;
}

int wc_engine_id_valid(const char *id)
{
    return name_valid(id, WC_ENGINE_ID_MAX);
}

int wc_namespace_valid(const char *name)
{
    const char *version;
    uint64_t number = 0;
    size_t id;

    if (!name_valid(name, WC_NAMESPACE_SIZE - 1))
        return 0;
    version = strrchr(name, 'v');
    if (!version || version < name + 2 || version[-1] != '-')
        return 0;
    id = (size_t)(version - 1 - name);
    if (id > WC_ENGINE_ID_MAX || !version[1] || (version[1] == '0' && version[2]))
        return 0;
    for (const char *digit = version + 1; *digit; digit++) {
        if (*digit < '0' || *digit > '9')
            return 0;
        number = number * 10 + (uint64_t)(*digit - '0');
        if (number > UINT32_MAX)
            return 0;
    }
    return 1;
}

/* 16 upper-case hex digits and then `end`. */
static int is_hex16(const char *text, char end)
{
    return strspn(text, "0123456789ABCDEF") == 16 && text[16] == end;
}

int wc_namespace_is_shared(const char *name)
{
    const char *version = strrchr(name, '-');
    return version - name < 18 || version[-17] != '-' || !is_hex16(version - 16, '-');
}

void wc_namespace_make(char out[WC_NAMESPACE_SIZE], const char *id, uint32_t version)
{
    snprintf(out, WC_NAMESPACE_SIZE, "%s-v%" PRIu32, id, version);
}

void wc_entry_name(char out[WC_ENTRY_NAME_SIZE], const wasmcache_key *key)
{
    size_t length;
    wasmcache_key_to_hex(out, key);
    length = strlen(out);
    memcpy(out + length, ".bin", 5);
}

int wc_entry_name_parse(wasmcache_key *out, const char *name)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    size_t length = strnlen(name, WC_ENTRY_NAME_SIZE);
    if (length < 5 || length >= WC_ENTRY_NAME_SIZE || strcmp(name + length - 4, ".bin") != 0)
        return -1;
    memcpy(hex, name, length - 4);
    hex[length - 4] = '\0';
    if (length - 4 != strspn(hex, "0123456789ABCDEF") || (length != 68 && length != 20))
        return -1;
    return wasmcache_key_from_hex(out, hex);
}

int wc_private_name(char out[WC_PRIVATE_NAME_SIZE], const char *of)
{
    uint8_t random[8];
    char hex[17];
    int rc = wc_os_random(random, sizeof(random));
    if (rc < 0)
        return rc;
    wc_hex(hex, random, sizeof(random));
    if (of)
        snprintf(out, WC_PRIVATE_NAME_SIZE, WC_OLD_PREFIX "%s-%s", of, hex);
    else
        snprintf(out, WC_PRIVATE_NAME_SIZE, WC_TEMP_PREFIX "%s", hex);
    return 0;
}

int wc_private_name_parse(char of[WC_ENTRY_NAME_SIZE], const char *name)
{
    const char *dash;
    wasmcache_key key;
    size_t length;

    of[0] = '\0';
    if (strncmp(name, WC_TEMP_PREFIX, strlen(WC_TEMP_PREFIX)) == 0)
        return is_hex16(name + strlen(WC_TEMP_PREFIX), '\0');
    if (strncmp(name, WC_OLD_PREFIX, strlen(WC_OLD_PREFIX)) != 0)
        return 0;
    name += strlen(WC_OLD_PREFIX);
    dash = strrchr(name, '-');
    if (!dash || !is_hex16(dash + 1, '\0'))
        return 0;
    length = (size_t)(dash - name);
    if (length >= WC_ENTRY_NAME_SIZE)
        return 0;
    memcpy(of, name, length);
    of[length] = '\0';
    if (wc_entry_name_parse(&key, of) == 0)
        return 1;
    of[0] = '\0';
    return 0;
}
