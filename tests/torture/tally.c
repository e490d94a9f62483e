/* SPDX-License-Identifier: Apache-2.0 */
#include "torture/tally.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tally_init(struct tally *t)
{
    memset(t, 0, sizeof(*t));
    t->subject = "";
}

static size_t index_of(char kind)
{
    const char *at = strchr(TALLY_KINDS, kind);
    if (!at || !kind)
        abort();
    return (size_t)(at - TALLY_KINDS);
}

static void tell(struct tally *t, char kind, const char *what)
{
    if (t->told_count >= TALLY_TOLD)
        return;
    snprintf(t->told[t->told_count++], sizeof(t->told[0]), "%c: %s%s%s", kind, t->about,
             t->about[0] ? ": " : "", what);
    fprintf(stderr, "  %s\n", t->told[t->told_count - 1]);
}

int tally_check(struct tally *t, char kind, int holds, const char *format, ...)
{
    const size_t i = index_of(kind);
    char what[400];
    va_list arguments;
    t->counts[i].of++;
    if (holds)
        return 1;
    t->counts[i].bad++;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    tell(t, kind, what);
    return 0;
}

void tally_add(struct tally *t, char kind, unsigned long bad, unsigned long of, const char *what)
{
    const size_t i = index_of(kind);
    t->counts[i].bad += bad;
    t->counts[i].of += of;
    if (bad)
        tell(t, kind, what);
}

#define PRINT_INTO(member)                                                                         \
    do {                                                                                           \
        va_list arguments;                                                                         \
        va_start(arguments, format);                                                               \
        vsnprintf(t->member, sizeof(t->member), format, arguments);                                \
        va_end(arguments);                                                                         \
    } while (0)

void tally_about(struct tally *t, const char *format, ...)
{
    PRINT_INTO(about);
}

void tally_note(struct tally *t, const char *format, ...)
{
    PRINT_INTO(note);
}

void tally_skip(struct tally *t, const char *format, ...)
{
    PRINT_INTO(skipped);
}

unsigned long tally_bad(const struct tally *t)
{
    unsigned long bad = 0;
    for (size_t i = 0; i < TALLY_KIND_COUNT; i++)
        bad += t->counts[i].bad;
    return bad;
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c > 0x7e)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

void tally_print(const struct tally *t, const char *row)
{
    printf("{\"row\":");
    print_text(row);
    printf(",\"subject\":");
    print_text(t->subject);
    printf(",\"runs\":%lu", t->runs);
    for (size_t i = 0; i < TALLY_KIND_COUNT; i++)
        if (t->counts[i].of)
            printf(",\"%c\":[%lu,%lu]", TALLY_KINDS[i], t->counts[i].bad, t->counts[i].of);
    printf(",\"skipped\":");
    print_text(t->skipped);
    printf(",\"note\":");
    print_text(t->note);
    printf(",\"bad\":[");
    for (unsigned i = 0; i < t->told_count; i++) {
        printf("%s", i ? "," : "");
        print_text(t->told[i]);
    }
    printf("]}\n");
    fflush(stdout);
}
