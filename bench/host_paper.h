/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_HOST_PAPER_H
#define BENCH_HOST_PAPER_H

/* What there is of the engine on paper beyond bench_engine. */

#include <stdint.h>

enum { PAPER_WASM = 16, PAPER_SIZE_MAX = 15 * 1024 };

/* The wasm of a module, which is a number. */
void paper_wasm(uint8_t out[PAPER_WASM], uint64_t id);
/* Of its artifact: 1 to 15 KiB. */
uint64_t paper_size(uint64_t id);
/* As compile makes it; freed by the table. */
void *paper_module(uint64_t id);
uint64_t paper_id(const void *module);

#endif
