/* SPDX-License-Identifier: Apache-2.0 */
#include "legacy_lzw.h"

#include <string.h>

enum { CLEAR = 256, END = 257, FIRST = 258, CODES = 4096, LEAST_BITS = 9, MOST_BITS = 12 };

/* Where we are in the codes. A code's string is that of an earlier one and one byte more; how long
 * it is takes 32 bits, since each is at most one longer than the one before. */
struct reader {
    const uint8_t *bytes;
    size_t size;
    size_t at;      /* the next byte */
    uint32_t buffer; /* of it the low `held` bits are not used yet */
    unsigned held;
    unsigned bits; /* of the next code */
    unsigned next; /* the code that is added next; CODES: the table is full */
    int previous;  /* the code before, -1: none since the last clear */
};

/* Length of each code's string; and for the second pass where in the output it first stood. */
struct table {
    uint32_t length[CODES];
    size_t start[CODES];
};

static void clear(struct reader *r)
{
    r->bits = LEAST_BITS;
    r->next = FIRST;
    r->previous = -1;
}

/* The next code, -1 at the end of the input. */
static int read_code(struct reader *r)
{
    int code;
    while (r->held < r->bits) {
        if (r->at == r->size)
            return -1;
        r->buffer = r->buffer << 8 | r->bytes[r->at++];
        r->held += 8;
    }
    r->held -= r->bits;
    code = (int)(r->buffer >> r->held & ((1u << r->bits) - 1));
    return code;
}

/*
 * The next code that stands for a string; CLEAR was dealt with. END; -1: the stream is broken.
 * *added: the code that came into the table with it, which is the string of the one before and the
 * first byte of this one; -1: none.
 */
static int next_string(struct reader *r, int *added)
{
    int code;
    *added = -1;
    for (;;) {
        code = read_code(r);
        if (code != CLEAR)
            break;
        clear(r);
    }
    if (code < 0 || code == END)
        return code;
    if (r->previous < 0) { /* the first one stands for itself */
        if (code > 255)
            return -1;
    } else if (r->next < CODES) {
        if ((unsigned)code > r->next) /* equal: it is the very one that is being added */
            return -1;
        *added = (int)r->next++;
        if (r->next == 1u << r->bits && r->bits < MOST_BITS)
            r->bits++;
    }
    r->previous = code;
    return code;
}

static void start(struct reader *r, const uint8_t *bytes, size_t size)
{
    memset(r, 0, sizeof(*r));
    r->bytes = bytes;
    r->size = size;
    clear(r);
}

int wc_lzw_length(size_t *length, const uint8_t *bytes, size_t size, size_t most)
{
    uint32_t lengths[CODES];
    struct reader r;
    size_t total = 0;
    uint32_t before = 0;
    int code, added;

    for (int i = 0; i < 256; i++)
        lengths[i] = 1;
    start(&r, bytes, size);
    while ((code = next_string(&r, &added)) >= 0 && code != END) {
        if (added >= 0)
            lengths[added] = before + 1;
        before = lengths[code];
        if (before > most - total)
            return -1;
        total += before;
    }
    if (code != END)
        return -1;
    *length = total;
    return 0;
}

void wc_lzw_decode(uint8_t *out, size_t length, const uint8_t *bytes, size_t size)
{
    struct table table;
    struct reader r;
    size_t at = 0, before = 0;
    int code, added;

    start(&r, bytes, size);
    while (at < length && (code = next_string(&r, &added)) >= 0 && code != END) {
        /* A new code's string is the one before and what comes now: it stands there already, or is
         * just about to. */
        if (added >= 0) {
            table.start[added] = before;
            table.length[added] = (uint32_t)(at - before) + 1;
        }
        before = at;
        if (code < 256) {
            out[at++] = (uint8_t)code;
        } else {
            const uint32_t n = table.length[code];
            const size_t from = table.start[code];
            for (uint32_t i = 0; i < n; i++) /* forward: the two may overlap by their last byte */
                out[at + i] = out[from + i];
            at += n;
        }
    }
}
