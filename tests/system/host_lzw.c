/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_lzw: reads records of tests/weezl from standard input and decodes each stream. The rule is
 * that of src/legacy_lzw.h: what weezl's decoder accepts gives the same bytes, what it refuses is
 * refused.
 *
 * no-engine
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "legacy_lzw.h"

#define LARGEST ((uint32_t)256 << 20) /* no record has a stream or an output like that */
#define CANARY 64u

struct kind {
    char letter;
    const char *name;
    unsigned long streams, accepted;
};

static struct kind kinds[] = {
    {'e', "encoded by weezl", 0, 0},
    {'d', "damaged", 0, 0},
    {'c', "made of codes", 0, 0},
};

static uint32_t get32(const uint8_t *in)
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static uint8_t *read_bytes(uint32_t size)
{
    uint8_t *bytes = malloc(size ? size : 1);
    if (size > LARGEST || !bytes || fread(bytes, 1, size, stdin) != size) {
        fprintf(stderr, "host_lzw: the records end within one, or one is too large\n");
        exit(2);
    }
    return bytes;
}

/* NULL or what is wrong. */
static const char *wrong(const uint8_t *stream, size_t size, int accepted, const uint8_t *wanted,
                         size_t length)
{
    const char *what = NULL;
    size_t found = SIZE_MAX - 1;
    uint8_t *out;
    if (!accepted) {
        if (wc_lzw_length(&found, stream, size, LARGEST) == 0)
            return "weezl refuses it, we accept it";
        return found == SIZE_MAX - 1 ? NULL : "a length without success";
    }
    if (wc_lzw_length(&found, stream, size, LARGEST) < 0)
        return "weezl accepts it, we refuse it";
    if (found != length)
        return "another length";
    if (wc_lzw_length(&found, stream, size, length) < 0)
        return "refused at its very length";
    if (length && wc_lzw_length(&found, stream, size, length - 1) == 0)
        return "accepted with one byte too few";
    out = malloc(length + CANARY);
    if (!out)
        return "no memory";
    memset(out, 0xA5, length + CANARY);
    if (wc_lzw_decode(out, length, stream, size) < 0)
        what = "not decoded to the length that was found";
    else if (memcmp(out, wanted, length) != 0)
        what = "other bytes";
    for (size_t i = 0; i < CANARY; i++)
        if (out[length + i] != 0xA5)
            what = "written behind the output";
    free(out);
    return what;
}

static void show(unsigned long record, char kind, const char *what, const uint8_t *stream,
                 uint32_t size)
{
    fprintf(stderr, "host_lzw: record %lu (%c), %" PRIu32 " bytes: %s\n  ", record, kind, size,
            what);
    for (uint32_t i = 0; i < size && i < 200; i++)
        fprintf(stderr, "%02x", stream[i]);
    fprintf(stderr, "\n");
}

int main(void)
{
    unsigned long records = 0, failed = 0;
    uint64_t bytes = 0;
    uint8_t head[10];
    size_t got;

    while ((got = fread(head, 1, sizeof(head), stdin)) == sizeof(head)) {
        const uint32_t size = get32(head + 2), length = get32(head + 6);
        uint8_t *stream = read_bytes(size);
        uint8_t *wanted = read_bytes(length);
        const char *what = wrong(stream, size, head[1], wanted, length);
        if (what) {
            failed++;
            show(records, (char)head[0], what, stream, size);
        }
        for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
            if (kinds[i].letter == (char)head[0]) {
                kinds[i].streams++;
                kinds[i].accepted += head[1];
            }
        }
        records++;
        bytes += length;
        free(stream);
        free(wanted);
    }
    if (got != 0 || records == 0 || ferror(stdin)) {
        fprintf(stderr, "host_lzw: the records end within one, or there is none\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        printf("%lu streams %s (%lu accepted), ", kinds[i].streams, kinds[i].name,
               kinds[i].accepted);
    printf("%" PRIu64 " MB of output: %lu differ from weezl\n", bytes / 1000000, failed);
    return failed != 0;
}
