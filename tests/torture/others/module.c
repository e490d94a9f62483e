/* SPDX-License-Identifier: Apache-2.0 */
/* A module with some arithmetic, no two functions of which are alike: what compilers make of it is
 * as hard to compress as what they make of programs. */
#include "others.h"

#include <stdlib.h>

enum { FUNCTIONS = 40, STEPS = 24, BODY = 1 + 2 + STEPS * 7 + 7 + 8 + 1 };

struct out {
    uint8_t *bytes;
    size_t size;
};

static void put(struct out *o, uint8_t byte)
{
    o->bytes[o->size++] = byte;
}

/* Numbers in five bytes, always: the sizes of sections are then known before. */
static void put_number(struct out *o, uint32_t number)
{
    for (int i = 0; i < 5; i++)
        put(o, (uint8_t)((number >> 7 * i & 0x7f) | (i < 4 ? 0x80 : 0)));
}

static void put_constant(struct out *o, int32_t number)
{
    const uint32_t bits = (uint32_t)number;
    for (int i = 0; i < 4; i++)
        put(o, (uint8_t)((bits >> 7 * i & 0x7f) | 0x80));
    put(o, (uint8_t)((bits >> 28 & 0x0f) | (number < 0 ? 0x70 : 0)));
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 3;
}

static const uint8_t operations[] = {0x6a, 0x6b, 0x6c, 0x71, 0x72, 0x73}; /* + - * & | ^ */

static uint32_t apply(unsigned operation, uint32_t a, uint32_t b)
{
    switch (operation) {
    case 0:
        return a + b;
    case 1:
        return a - b;
    case 2:
        return a * b;
    case 3:
        return a & (b | 0xffff);
    case 4:
        return a | (b & 0xffff);
    default:
        return a ^ b;
    }
}

/* get 0, then STEPS times a constant and an operation, and twice that by way of floats, whose code
 * depends on the engine's settings. Returns its value for 3. */
static uint32_t put_body(struct out *o, uint32_t *seed)
{
    static const uint8_t twice[] = {0xb2, 0x43, 0x00, 0x00, 0x00, 0x40, 0x94, 0xa8};
    uint32_t value = 3;
    put_number(o, BODY);
    put(o, 0x00);
    put(o, 0x20);
    put(o, 0x00);
    for (unsigned i = 0; i < STEPS; i++) {
        const unsigned operation = next(seed) % sizeof(operations);
        uint32_t constant = next(seed) * 2654435761u;
        if (operation == 3)
            constant |= 0xffff;
        if (operation == 4)
            constant &= 0xffff;
        value = apply(operation, value, constant);
        put(o, 0x41);
        put_constant(o, (int32_t)constant);
        put(o, operations[operation]);
    }
    put(o, 0x41);
    put_constant(o, 0x7fff);
    put(o, 0x71);
    for (size_t i = 0; i < sizeof(twice); i++)
        put(o, twice[i]);
    put(o, 0x0b);
    return (value & 0x7fff) * 2;
}

uint8_t *others_module(uint32_t seed, size_t *size, int32_t *answer)
{
    static const uint8_t head[] = {0x00, 'a',  's',  'm',  0x01, 0x00, 0x00, 0x00, 0x01,
                                   0x06, 0x01, 0x60, 0x01, 0x7f, 0x01, 0x7f, 0x03};
    static const uint8_t export[] = {0x07, 0x08, 0x01, 0x04, 'w', 'o', 'r', 'k', 0x00, 0x00, 0x0a};
    struct out o = {malloc(256 + FUNCTIONS * (16 + BODY)), 0};
    if (!o.bytes)
        abort();
    for (size_t i = 0; i < sizeof(head); i++)
        put(&o, head[i]);
    put_number(&o, 5 + FUNCTIONS);
    put_number(&o, FUNCTIONS);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        put(&o, 0x00);
    for (size_t i = 0; i < sizeof(export); i++)
        put(&o, export[i]);
    put_number(&o, 5 + FUNCTIONS * (5 + BODY));
    put_number(&o, FUNCTIONS);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        const uint32_t value = put_body(&o, &seed);
        if (i == 0)
            *answer = (int32_t)value;
    }
    *size = o.size;
    return o.bytes;
}
