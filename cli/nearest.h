/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

/* Which of some names a misspelt one is meant to be. */

#include <stddef.h>

/* NULL: none is near. Capitals and the kind of dash do not count. */
const char *cli_nearest(const char *text, const char *const *names, size_t count);
/* " (is \"name\" meant?)", or "" if none is near, into `out`, which is returned. */
char *cli_nearest_meant(char *out, size_t size, const char *text, const char *const *names,
                        size_t count);

#endif
