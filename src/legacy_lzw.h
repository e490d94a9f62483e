/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_LEGACY_LZW_H
#define WC_LEGACY_LZW_H

/*
 * LZW as Wasmer's cache once compressed its entries with: the crate weezl's codes, most significant
 * bit first, over bytes. As GIF has them, but for the bit order: codes of 9 to 12 bits, 256 clears,
 * 257 ends, a code gets longer when the table is full for its length and not one earlier (TIFF).
 *
 * Twice over the input: first only the length of the output is found, with the codes checked, then
 * the output is written into memory of just that size.
 *
 *     rc = wc_lzw_length(&length, bytes, size, most);
 *     out = malloc(length);
 *     wc_lzw_decode(out, length, bytes, size);
 */

#include <stddef.h>
#include <stdint.h>

/* 0; -1: the bytes are not such a stream, it does not end, or its output has more than `most`. What
 * follows the end is not looked at. */
int wc_lzw_length(size_t *length, const uint8_t *bytes, size_t size, size_t most);

/* Writes the `length` bytes that wc_lzw_length() found for the same input. */
void wc_lzw_decode(uint8_t *out, size_t length, const uint8_t *bytes, size_t size);

#endif
