/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LZW_H
#define TESTS_LZW_H

/* LZW as Wasmer's cache once compressed its entries with: the crate weezl's encoder, most
 * significant bit first, min code size 8. */

#include <stddef.h>
#include <stdint.h>

/* Compresses; malloc-ed. */
uint8_t *lzw_encode(size_t *out_size, const void *bytes, size_t size);

#endif
