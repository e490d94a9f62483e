/* SPDX-License-Identifier: Apache-2.0 */
#include "legacy_lzw.h"

#include <string.h>

enum { CLEAR = 256, END = 257, FIRST = 258, CODES = 4096, LEAST_BITS = 9, MOST_BITS = 12 };

/*
 * A code's string is the one read before it came into the table, and the first byte of the one read
 * then: it stands in the output already, from where the one before stands to one byte behind it.
 * So where each begins says all: code c has the bytes
 *
 *     start[c - FIRST] .. start[c + 1 - FIRST], both included.
 *
 * These are counted from the last clear. The table is full after 3,838 codes, and no string is more
 * than one byte longer than the longest before it, so that they are below 3,839 * 3,840 / 2.
 */
struct decoder {
    const uint8_t *bytes;
    size_t size;
    size_t at;       /* the next byte */
    uint32_t buffer; /* of it the low `held` bits are not used yet */
    unsigned held;
    unsigned bits;  /* of the next code */
    unsigned next;  /* what comes into the table with the next string; END: nothing, it is the
                       first since a clear; CODES: nothing, the table is full */
    size_t cleared; /* length of the output at the last clear */
    uint32_t start[CODES - FIRST + 1];
};

/* Of the stack of a host's thread, which may have no more than 64 KiB. */
_Static_assert(sizeof(struct decoder) <= 15u * 1024 + 512, "the table fits into 16 KiB of stack");

static void clear(struct decoder *d, size_t length)
{
    d->bits = LEAST_BITS;
    d->next = END;
    d->cleared = length;
}

/* The next code, -1 at the end of the input. */
static int read_code(struct decoder *d)
{
    while (d->held < d->bits) {
        if (d->at == d->size)
            return -1;
        d->buffer = d->buffer << 8 | d->bytes[d->at++];
        d->held += 8;
    }
    d->held -= d->bits;
    return (int)(d->buffer >> d->held & ((1u << d->bits) - 1));
}

/* With the next string, which will stand at `length` in the output, a code comes into the table,
 * and the one after it begins there. */
static void add(struct decoder *d, size_t length)
{
    if (d->next == CODES)
        return;
    d->next++;
    d->start[d->next - FIRST] = (uint32_t)(length - d->cleared);
    /* Not one code earlier, as TIFF has it; and the last 12 bits stay. */
    if (d->next == 1u << d->bits && d->bits < MOST_BITS)
        d->bits++;
}

/* The string of `code`, `n` bytes, which `out` has already but for the newest code's last byte. */
static void write_string(uint8_t *out, size_t done, const struct decoder *d, int code, size_t n)
{
    size_t from;
    if (code < FIRST) {
        out[done] = (uint8_t)code;
        return;
    }
    from = d->cleared + d->start[code - FIRST];
    memcpy(out + done, out + from, n - 1);
    out[done + n - 1] = out[from + n - 1]; /* the newest: the first byte of what was just written */
}

/* The whole stream. Without `out` its output is only counted. */
static int decode(size_t *length, uint8_t *out, const uint8_t *bytes, size_t size, size_t most)
{
    struct decoder d;
    size_t done = 0;
    int code;

    d.bytes = bytes;
    d.size = size;
    d.at = 0;
    d.buffer = 0;
    d.held = 0;
    clear(&d, 0);
    while ((code = read_code(&d)) != END) {
        size_t n = 1;
        if (code == CLEAR) {
            clear(&d, done);
            continue;
        }
        if (code < 0 || (unsigned)code > d.next)
            return -1;
        add(&d, done);
        if (code >= FIRST)
            n = d.start[code + 1 - FIRST] - d.start[code - FIRST] + 1;
        if (n > most - done)
            return -1;
        if (out)
            write_string(out, done, &d, code, n);
        done += n;
    }
    *length = done;
    return 0;
}

int wc_lzw_length(size_t *length, const uint8_t *bytes, size_t size, size_t most)
{
    return decode(length, NULL, bytes, size, most);
}

int wc_lzw_decode(uint8_t *out, size_t length, const uint8_t *bytes, size_t size)
{
    size_t done;
    return decode(&done, out, bytes, size, length) == 0 && done == length ? 0 : -1;
}
