/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_QUANTITY_H
#define CLI_QUANTITY_H

/* Sizes, times and counts as people write them. They return 0, or -1 if `text` is none; 0 of
 * anything is none either, for that is what stands for "not said". */

#include <stdint.h>

/* "1500", "500M" (10^6), "1Gi" or "1 GiB" (2^30), an optional B behind; "unlimited". */
int cli_quantity_bytes(uint64_t *out, const char *text);
/* "90s", "15m", "12h", "30d", "4w"; "unlimited". */
int cli_quantity_seconds(uint64_t *out, const char *text);
int cli_quantity_count(uint64_t *out, const char *text);

#endif
