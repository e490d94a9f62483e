/* SPDX-License-Identifier: Apache-2.0 */
#include "support/wasm_modules.h"

#include <string.h>

const uint8_t wasm_empty_module[8] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00};
const uint8_t wasm_empty_component[8] = {0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00};

/* clang-format off */
const uint8_t wasm_add[] = {
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
    0x01, 0x07, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x01, 0x7f,             /* type (i32 i32) -> i32 */
    0x03, 0x02, 0x01, 0x00,                                           /* one function */
    0x07, 0x07, 0x01, 0x03, 'a', 'd', 'd', 0x00, 0x00,                /* exported as "add" */
    0x0a, 0x09, 0x01, 0x07, 0x00, 0x20, 0x00, 0x20, 0x01, 0x6a, 0x0b, /* local.get 0, 1, i32.add */
};
const size_t wasm_add_size = sizeof(wasm_add);

const uint8_t wasm_simd[] = {
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
    0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b,                         /* type () -> v128 */
    0x03, 0x02, 0x01, 0x00,
    0x0a, 0x16, 0x01, 0x14, 0x00, 0xfd, 0x0c,                         /* v128.const */
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0x0b,
};
const size_t wasm_simd_size = sizeof(wasm_simd);

static const uint8_t answer_head[] = {
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
    0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7f,                         /* type () -> i32 */
    0x03, 0x02, 0x01, 0x00,
    0x07, 0x0a, 0x01, 0x06, 'a', 'n', 's', 'w', 'e', 'r', 0x00, 0x00,
    0x0a, 0x0a, 0x01, 0x08, 0x00, 0x41,                               /* i32.const */
};

static const uint8_t work_head[] = {
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00,
    0x01, 0x06, 0x01, 0x60, 0x01, 0x7f, 0x01, 0x7f,                   /* type (i32) -> i32 */
};
static const uint8_t work_export[] = {
    0x07, 0x08, 0x01, 0x04, 'w', 'o', 'r', 'k', 0x00, 0x00,
};
/* clang-format on */

/* Five bytes whatever the number, so that sizes do not depend on it. */
static uint8_t *put_number(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        *out++ = (uint8_t)(0x80 | (value >> (7 * i) & 0x7f));
    *out++ = (uint8_t)(value >> 28 & 0x0f);
    return out;
}

static uint8_t *put_constant(uint8_t *out, int32_t value)
{
    out = put_number(out, (uint32_t)value);
    if (value < 0)
        out[-1] |= 0x70; /* the sign, as signed numbers have it */
    return out;
}

static uint8_t *put_bytes(uint8_t *out, const void *bytes, size_t size)
{
    memcpy(out, bytes, size);
    return out + size;
}

size_t wasm_answer(uint8_t *out, int32_t value, size_t padding)
{
    uint8_t *p = put_bytes(out, answer_head, sizeof(answer_head));
    p = put_constant(p, value);
    *p++ = 0x0b;
    if (padding) {
        *p++ = 0x00; /* a custom section named "p" */
        p = put_number(p, (uint32_t)(padding + 2));
        *p++ = 0x01;
        *p++ = 'p';
        memset(p, value, padding);
        p += padding;
    }
    return (size_t)(p - out);
}

size_t wasm_work(uint8_t *out, int32_t value, unsigned functions)
{
    const uint32_t body = 18; /* of each: x * value + i */
    uint8_t *p = put_bytes(out, work_head, sizeof(work_head));
    *p++ = 0x03;
    p = put_number(p, 5 + functions);
    p = put_number(p, functions);
    memset(p, 0, functions);
    p += functions;
    p = put_bytes(p, work_export, sizeof(work_export));
    *p++ = 0x0a;
    p = put_number(p, 5 + functions * (5 + body));
    p = put_number(p, functions);
    for (unsigned i = 0; i < functions; i++) {
        p = put_number(p, body);
        *p++ = 0x00;
        *p++ = 0x20; /* local.get 0 */
        *p++ = 0x00;
        *p++ = 0x41; /* i32.const */
        p = put_constant(p, value);
        *p++ = 0x6c; /* i32.mul */
        *p++ = 0x41;
        p = put_constant(p, (int32_t)i);
        *p++ = 0x6a; /* i32.add */
        *p++ = 0x0b;
    }
    return (size_t)(p - out);
}
