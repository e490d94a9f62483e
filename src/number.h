/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_NUMBER_H
#define WC_NUMBER_H

/* Little-endian numbers of 1 to 8 bytes: in entries, fingerprints and hints. */

#include <stdint.h>

static inline void wc_put_number(uint8_t *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t wc_get_number(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | in[i];
    return value;
}

#endif
