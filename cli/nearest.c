/* SPDX-License-Identifier: Apache-2.0 */
#include "nearest.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST = 40 };

static int plain(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* How many letters have to be changed, put in or left out to make one of the other (Levenshtein).
 * Both are at most LONGEST long. */
static size_t distance(const char *a, const char *b)
{
    size_t row[LONGEST + 1], length = strlen(b);
    size_t i, j;

    for (j = 0; j <= length; j++)
        row[j] = j;
    for (i = 0; a[i]; i++) {
        size_t corner = row[0];

        row[0] = i + 1;
        for (j = 1; j <= length; j++) {
            size_t above = row[j];

            row[j] = least(above + 1, row[j - 1] + 1, corner + (plain(a[i]) != plain(b[j - 1])));
            corner = above;
        }
    }
    return row[length];
}

const char *cli_nearest(const char *text, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    size_t best, i, length = strlen(text);

    if (length > LONGEST)
        return NULL;
    /* One wrong letter in three is a slip, more is another word. */
    best = length / 3 + 1;
    for (i = 0; i < count; i++) {
        size_t d = strlen(names[i]) > LONGEST ? best : distance(text, names[i]);

        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}

char *cli_nearest_meant(char *out, size_t size, const char *text, const char *const *names,
                        size_t count)
{
    const char *nearest = cli_nearest(text, names, count);

    if (nearest)
        snprintf(out, size, " (is \"%s\" meant?)", nearest);
    else
        out[0] = '\0';
    return out;
}
