/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is an LZW stream. A second decoder, which has nothing of the first, must agree on
 * whether it is one, on the length and on each byte; nothing may be written behind the output.
 *
 * no-tsan: there is one thread, and the second decoder's loops take minutes there
 * covers: src/legacy_lzw.c
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "legacy_lzw.h"

/* Room for some of the longest strings; with more the slow one of the two takes most of the time.
 */
#define MOST ((size_t)128 * 1024)
#define CANARY 64u

/* As in a textbook: bit by bit, a table of pairs, strings found backwards. */
struct naive {
    const uint8_t *data;
    size_t bits, at;
    int prefix[4096]; /* -1: none */
    uint8_t last[4096];
    int codes; /* in the table */
};

FUZZ_ORACLE static int naive_bits(struct naive *n, int wanted)
{
    int value = 0;
    if (n->bits - n->at < (size_t)wanted)
        return -1;
    while (wanted-- > 0) {
        value = 2 * value + (n->data[n->at / 8] >> (7 - n->at % 8) & 1);
        n->at++;
    }
    return value;
}

FUZZ_ORACLE static size_t naive_string(const struct naive *n, int code, uint8_t out[4096])
{
    size_t length = 0;
    for (int c = code; c >= 0; c = n->prefix[c])
        length++;
    for (size_t i = length; code >= 0; code = n->prefix[code])
        out[--i] = n->last[code];
    return length;
}

FUZZ_ORACLE static int naive_width(const struct naive *n, int first)
{
    int codes = first ? 258 : n->codes; /* what comes in with the next string is not there yet */
    return codes < 512 ? 9 : codes < 1024 ? 10 : codes < 2048 ? 11 : 12;
}

/* The output's length; -1: refused, or more than MOST. */
FUZZ_ORACLE static long naive_decode(uint8_t *out, const uint8_t *data, size_t size)
{
    static struct naive n;
    static uint8_t string[4096];
    size_t done = 0, length;
    int before = -1;

    memset(&n, 0, sizeof(n));
    n.data = data;
    n.bits = 8 * size;
    n.codes = 258;
    for (int i = 0; i < 256; i++) {
        n.prefix[i] = -1;
        n.last[i] = (uint8_t)i;
    }
    for (;;) {
        int code = naive_bits(&n, naive_width(&n, before < 0));
        if (code == 257)
            return (long)done;
        if (code == 256) {
            n.codes = 258;
            before = -1;
            continue;
        }
        if (code < 0)
            return -1;
        if (before < 0) {
            if (code > 255)
                return -1;
        } else if (n.codes < 4096) {
            if (code > n.codes)
                return -1;
            (void)naive_string(&n, code == n.codes ? before : code, string);
            n.prefix[n.codes] = before;
            n.last[n.codes++] = string[0];
        }
        length = naive_string(&n, code, string);
        if (length > MOST - done)
            return -1;
        memcpy(out + done, string, length);
        done += length;
        before = code;
    }
}

FUZZ_ORACLE static int untouched(const uint8_t *canary)
{
    for (size_t i = 0; i < CANARY; i++)
        if (canary[i] != 0xA5)
            return 0;
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t wanted[MOST];
    long expected = naive_decode(wanted, data, size);
    size_t length = SIZE_MAX, other = 0;
    uint8_t *out;
    int rc = wc_lzw_length(&length, data, size, MOST);

    must((rc == 0) == (expected >= 0));
    if (rc < 0) {
        must(rc == -1 && length == SIZE_MAX);
        return 0;
    }
    must(length == (size_t)expected);
    must(wc_lzw_length(&other, data, size, length) == 0 && other == length);
    must(length == 0 || wc_lzw_length(&other, data, size, length - 1) < 0);

    out = malloc(length + CANARY);
    must(out != NULL);
    memset(out, 0xA5, length + CANARY);
    must(wc_lzw_decode(out, length, data, size) == 0);
    must(memcmp(out, wanted, length) == 0);
    /* Into less or more than it has, as if the input were another one by now. */
    must(wc_lzw_decode(out, length + 1, data, size) < 0);
    if (length)
        must(wc_lzw_decode(out, length - 1, data, size) < 0);
    must(untouched(out + length));
    free(out);
    return 0;
}
