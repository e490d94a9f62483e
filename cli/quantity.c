/* SPDX-License-Identifier: Apache-2.0 */
#include "quantity.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t size;
};

static const struct unit bytes[] = {
    {"", 1},
    {"B", 1},
    {"k", 1000},
    {"kB", 1000},
    {"K", 1000},
    {"KB", 1000},
    {"M", 1000000},
    {"MB", 1000000},
    {"G", 1000000000},
    {"GB", 1000000000},
    {"T", 1000000000000},
    {"TB", 1000000000000},
    {"Ki", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"Mi", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"Gi", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
    {"Ti", UINT64_C(1) << 40},
    {"TiB", UINT64_C(1) << 40},
    {NULL, 0},
};

static const struct unit seconds[] = {
    {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"w", 604800}, {NULL, 0},
};

static const struct unit counts[] = {{"", 1}, {NULL, 0}};

static int parse(uint64_t *out, const char *text, const struct unit *unit)
{
    char *end;
    unsigned long long number;
    if (!strcmp(text, "unlimited")) {
        *out = UINT64_MAX;
        return 0;
    }
    if (!isdigit((unsigned char)*text))
        return -1;
    errno = 0;
    number = strtoull(text, &end, 10);
    end += *end == ' ' && end[1]; /* "5 GiB" */
    while (unit->name && strcmp(unit->name, end) != 0)
        unit++;
    if (errno || !number || !unit->name || number > UINT64_MAX / unit->size)
        return -1;
    *out = number * unit->size;
    return 0;
}

int cli_quantity_bytes(uint64_t *out, const char *text)
{
    return parse(out, text, bytes);
}

int cli_quantity_seconds(uint64_t *out, const char *text)
{
    return parse(out, text, seconds);
}

int cli_quantity_count(uint64_t *out, const char *text)
{
    return parse(out, text, counts);
}
