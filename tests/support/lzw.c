/* SPDX-License-Identifier: Apache-2.0 */
#include "support/lzw.h"

#include <stdlib.h>
#include <string.h>

enum { CLEAR = 256, END = 257, FIRST = 258, CODES = 4096 };

struct encoder {
    uint8_t *out;
    size_t size;
    uint32_t bits;           /* not written yet, in the low `held` bits */
    unsigned held, width;    /* width: of the next code */
    unsigned next;           /* the code that the next new string gets */
    uint16_t (*longer)[256]; /* the code of a string and one byte more; 0: none */
};

static void put(struct encoder *e, unsigned code)
{
    e->bits = e->bits << e->width | code;
    e->held += e->width;
    while (e->held >= 8) {
        e->held -= 8;
        e->out[e->size++] = (uint8_t)(e->bits >> e->held);
    }
}

static void clear(struct encoder *e)
{
    memset(e->longer, 0, CODES * sizeof(*e->longer));
    e->width = 9;
    e->next = FIRST;
}

uint8_t *lzw_encode(size_t *out_size, const void *bytes, size_t size)
{
    const uint8_t *in = bytes;
    struct encoder e = {0};
    unsigned string = CODES; /* none */

    /* Each code is of at least one byte and has at most 12 bits; a clear every 3,800 codes. */
    e.out = malloc(2 * size + 64);
    e.longer = malloc(CODES * sizeof(*e.longer));
    if (!e.out || !e.longer)
        abort();
    clear(&e);
    put(&e, CLEAR);
    for (size_t i = 0; i < size; i++) {
        if (string == CODES) {
            string = in[i];
        } else if (e.longer[string][in[i]]) {
            string = e.longer[string][in[i]];
        } else {
            put(&e, string);
            e.longer[string][in[i]] = (uint16_t)e.next++;
            /* The decoder knows a string only with the code behind it. */
            if (e.next > 1u << e.width && e.width < 12)
                e.width++;
            string = in[i];
            if (e.next > CODES) { /* the last one is never written */
                put(&e, CLEAR);
                clear(&e);
            }
        }
    }
    if (string != CODES) {
        put(&e, string);
        if (e.next == 1u << e.width && e.width < 12) /* the decoder has all strings now */
            e.width++;
    }
    put(&e, END);
    if (e.held) {
        e.width = 8 - e.held;
        put(&e, 0);
    }
    free(e.longer);
    *out_size = e.size;
    return e.out;
}
