/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_LEGACY_LZW_H
#define WC_LEGACY_LZW_H

/*
 * LZW as Wasmer's cache once compressed its entries with: the streams of the crate weezl's
 * Encoder::new(BitOrder::Msb, 8). Most significant bit first; otherwise as GIF has them.
 *
 *     stream = { code }, the code END, anything; codes of 9 bits at first
 *     code   = 0..255                a byte
 *              256 CLEAR             empties the table, codes have 9 bits again
 *              257 END
 *              258..4095             what the table has there
 *
 * Each code that stands for a string, but for the first and the first after a CLEAR, adds an entry:
 * the string before it and its own first byte. It may be that very entry. When the table has 512,
 * 1,024, 2,048 entries, codes get one bit longer; with 4,096 it is full and stays as it is.
 *
 * That is exactly what weezl's decoder accepts: it need not begin with a CLEAR (the encoder always
 * does), what follows END is not looked at, and a stream without END is an error.
 *
 * Twice over the input: first only the length of the output is found, with the codes checked, then
 * the output is written into memory of just that size. Each takes 16 KiB of stack and no memory.
 *
 *     rc = wc_lzw_length(&length, bytes, size, most);
 *     out = malloc(length);
 *     rc = wc_lzw_decode(out, length, bytes, size);
 */

#include <stddef.h>
#include <stdint.h>

/*
 * 0; -1: the bytes are not such a stream, or its output has more than `most`. *length may be 0. The
 * time is that of reading `size` bytes, whatever they are, but a byte of it can stand for 2,559.
 */
int wc_lzw_length(size_t *length, const uint8_t *bytes, size_t size, size_t most);

/* Writes the `length` bytes that wc_lzw_length() found. -1: by now the input is another one (it is
 * a mapped file, say); what was written is of no use, but nothing lies outside of `out`. */
int wc_lzw_decode(uint8_t *out, size_t length, const uint8_t *bytes, size_t size);

#endif
