/* SPDX-License-Identifier: Apache-2.0 */
#include "differences.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cache.h"
#include "output.h"
#include "table.h"

static const char cpu_name[] = "cpu";

/* In the order in which they explain each other: an engine of another version makes another probe,
 * and that is not what is wrong. */
static const struct text {
    const char *name;
    size_t offset;
    const char *advice; /* %s: theirs */
} texts[] = {
    {"engine", offsetof(wasmcache_identity, adapter),
     "it was saved for another engine; to look for that one give --engine %s"},
    {"compiler", offsetof(wasmcache_identity, compiler),
     "it was saved for an engine with the compiler %s; name its library with --engine PATH"},
    {"version", offsetof(wasmcache_identity, engine_version),
     "it was saved for version %s of the engine; compile the file for the one that is there now"},
    {"target", offsetof(wasmcache_identity, target),
     "it was saved for the target \"%s\"; use an engine of that, or compile the file for this one"},
    {"settings", offsetof(wasmcache_identity, settings),
     "the program that saved it has other settings; to look for those give --settings \"%s\""},
    {cpu_name, offsetof(wasmcache_identity, cpu),
     "it was saved on another kind of processor (%s); compile the file on one like this"},
    {"build", offsetof(wasmcache_identity, build),
     "it was saved for another build of this engine; name that one's library with --engine PATH, "
     "or compile the file for this one"},
    {"probe", offsetof(wasmcache_identity, probe),
     "the program that saved it has configured its engine in another way, which the tool cannot: "
     "ask that program"},
};

enum { TEXTS = sizeof(texts) / sizeof(texts[0]) };

static const char artifact_name[] = "artifact version", id_name[] = "engine id",
                  kind_name[] = "kind", fingerprint_name[] = "fingerprint";

static void add(struct cli_differences *out, const char *name, const char *ours, const char *theirs)
{
    if (!strcmp(ours, theirs) || out->count == CLI_DIFFERENCES_MAX)
        return;
    out->list[out->count].name = name;
    out->list[out->count].ours = ours;
    out->list[out->count].theirs = theirs;
    out->count++;
}

static void add_cpu(struct cli_differences *out, const char *ours, const char *theirs)
{
    cli_cpu_describe(out->cpus[0], ours, theirs);
    cli_cpu_describe(out->cpus[1], theirs, ours);
    if (strcmp(out->cpus[0], out->cpus[1]) != 0)
        add(out, cpu_name, out->cpus[0], out->cpus[1]);
    else
        add(out, cpu_name, ours, theirs);
}

/* The namespace less its version. */
static void copy_id(char out[192], const char *engine_namespace)
{
    char *version;

    snprintf(out, 192, "%s", engine_namespace);
    version = strrchr(out, '-');
    if (version)
        *version = '\0';
}

void cli_differences_find(struct cli_differences *out, const struct cli_wanted *wanted,
                          const wasmcache_entry *entry, const wasmcache_identity *theirs)
{
    const wasmcache_identity *ours = wanted->identity;
    bool known = cli_entry_known(entry);
    size_t i;

    memset(out, 0, sizeof(*out));
    /* Under an id that was given all kinds of engines save, and one wrote down what it is. */
    out->known = theirs && (!known || !memcmp(theirs->fingerprint, entry->fingerprint, 32));
    for (i = 0; out->known && i < TEXTS; i++) {
        const char *our = (const char *)ours + texts[i].offset;
        const char *their = (const char *)theirs + texts[i].offset;

        if (texts[i].name == cpu_name)
            add_cpu(out, our, their);
        else
            add(out, texts[i].name, our, their);
    }
    if (out->known) {
        snprintf(out->numbers[0], sizeof(out->numbers[0]), "%" PRIu32, ours->artifact_version);
        snprintf(out->numbers[1], sizeof(out->numbers[1]), "%" PRIu32, theirs->artifact_version);
        add(out, artifact_name, out->numbers[0], out->numbers[1]);
    }
    if (known) {
        add(out, kind_name, cli_text_kind(wanted->kind), cli_text_kind(entry->kind));
        cli_text_fingerprint(out->hashes[0], ours->fingerprint);
        cli_text_fingerprint(out->hashes[1], entry->fingerprint);
        if (!out->count) /* else it says nothing more */
            add(out, fingerprint_name, out->hashes[0], out->hashes[1]);
        if (!memcmp(ours->fingerprint, entry->fingerprint, sizeof(ours->fingerprint))) {
            copy_id(out->ids[0], wanted->engine_namespace);
            copy_id(out->ids[1], entry->engine_namespace);
            add(out, id_name, out->ids[0], out->ids[1]);
        }
    }
}

static const struct cli_difference *find(const struct cli_differences *differences,
                                         const char *name)
{
    size_t i;

    for (i = 0; i < differences->count; i++)
        if (!strcmp(differences->list[i].name, name))
            return &differences->list[i];
    return NULL;
}

/* `advice` may have one %s. */
static void insert(char *out, size_t size, const char *advice, const char *value)
{
    const char *at = strstr(advice, "%s");

    if (at)
        snprintf(out, size, "%.*s%s%s", (int)(at - advice), advice, value, at + 2);
    else
        snprintf(out, size, "%s", advice);
}

/* One that the library makes ends with the front of the fingerprint. */
static bool is_own_id(const char *id, const char *fingerprint)
{
    size_t length = strlen(id);

    return length > 17 && id[length - 17] == '-' && !memcmp(id + length - 16, fingerprint, 16);
}

void cli_differences_advice(const struct cli_differences *differences, char *out, size_t size)
{
    const struct cli_difference *found;
    size_t i;

    for (i = 0; i < TEXTS; i++) {
        found = find(differences, texts[i].name);
        if (found && !*found->theirs && !strcmp(found->name, "settings"))
            snprintf(out, size,
                     "the program that saved it has no settings; to look for those give "
                     "no --settings");
        else if (found)
            insert(out, size, texts[i].advice, found->theirs);
        if (found)
            return;
    }
    found = find(differences, id_name);
    if (found && is_own_id(found->theirs, differences->hashes[1]))
        snprintf(out, size,
                 "it is of the very engine and settings, but not under an id that was "
                 "given; to look there give no --engine-id");
    else if (found)
        snprintf(out, size,
                 "it is of the very engine and settings, but under an id that was "
                 "given; to look there give --engine-id %s",
                 found->theirs);
    else
        snprintf(out, size,
                 "nothing says what it was saved for; compile the file for the engine "
                 "and the settings that are wanted");
}

/* Two values for people: as they are, or from where they begin to differ. */
static void cut(char *out, size_t size, const char *text, size_t from)
{
    enum { WIDTH = 40, BEFORE = 6 };
    size_t start = strlen(text) > WIDTH && from > BEFORE ? from - BEFORE : 0;

    snprintf(out, size, "%s%.*s%s", start ? ".." : "", WIDTH, text + start,
             strlen(text + start) > WIDTH ? ".." : "");
}

void cli_differences_print(const struct cli_differences *differences)
{
    static const struct cli_column columns[] = {
        {"DIFFERS", false, false}, {"OURS", false, false}, {"THEIRS", false, false}};
    struct cli_table *table = cli_table_new(columns, 3);
    size_t i;

    for (i = 0; i < differences->count; i++) {
        const struct cli_difference *difference = &differences->list[i];
        char ours[64], theirs[64];
        const char *cells[3];
        size_t same = 0;

        while (difference->ours[same] && difference->ours[same] == difference->theirs[same])
            same++;
        if (difference->name == cpu_name) /* the vendor comes first */
            same = 0;
        cut(ours, sizeof(ours), difference->ours, same);
        cut(theirs, sizeof(theirs), difference->theirs, same);
        cells[0] = difference->name;
        cells[1] = *ours ? ours : "-";
        cells[2] = *theirs ? theirs : "-";
        cli_table_row(table, cells);
    }
    cli_table_print(table);
}
