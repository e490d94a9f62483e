/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Would a get of a file hit? It is tried: a load, which never compiles, from a cache that was
 * opened to be read only, so that nothing is removed, remembered or counted. What it comes to is
 * the verdict. Then the entries of the same bytes in other namespaces are looked at, with what is
 * written down of those.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "cli.h"
#include "differences.h"
#include "engine.h"
#include "files.h"
#include "output.h"

enum { OPTION_COMPONENT = 256, TEXT = 1024 };

static const struct cli_option options[] = {
    {OPTION_COMPONENT, 0, "component", NULL, "take all files for components, text too"},
    {0, 0, NULL, NULL, NULL}};

/* What all files are looked for with. */
struct lookup {
    const struct cli *cli;
    struct cli_engine engine;
    wasmcache *cache;
    wasmcache_attachment *attachment;
    wasmcache_attachment_info info;
    wasmcache_identity identity; /* unless info.error */
    struct cli_entries entries;
    bool component;
    bool any;       /* something was printed */
    bool off;       /* there is no cache that can be used */
    char why[TEXT]; /* why not */
};

/* What became of a file. Nothing was looked at where the reason is CACHE_OFF, UNATTACHED or SOURCE.
 */
struct verdict {
    const char *file;
    wasmcache_kind kind;
    wasmcache_reason reason; /* NONE: a hit */
    wasmcache_key key;       /* length 0: none */
    int layer;               /* of a hit, from 1; 0: the cache's own directory */
    uint64_t bad_layers;     /* layers that have an entry which cannot be used */
    wasmcache_entry own;     /* in the cache's own directory */
    char *path;              /* of the entry that hits, else of where it would be; to be freed */
    char why[TEXT];
    char advice[TEXT];
};

/* An entry of the same bytes that is not the one. */
struct near {
    const wasmcache_entry *entry;
    wasmcache_identity identity;
    struct cli_differences differences;
    char unknown[TEXT]; /* why it is not known what it was saved for, "" if it is */
};

/* ---- the verdict ---- */

static bool looked(const struct verdict *v)
{
    return v->reason != WASMCACHE_REASON_CACHE_OFF && v->reason != WASMCACHE_REASON_UNATTACHED &&
           v->reason != WASMCACHE_REASON_SOURCE;
}

static uint64_t layer_failures(const struct lookup *lookup)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;

    return wasmcache_stats_read(lookup->cache, WASMCACHE_STATS_PROCESS, &stats)
               ? 0
               : stats.layer_failures;
}

/* What a get would do, but for compiling. */
static void try_load(const struct lookup *lookup, struct verdict *v)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    uint64_t before = layer_failures(lookup);

    if (wasmcache_load(&module, lookup->attachment, v->kind, &v->key, &report))
        snprintf(v->why, sizeof(v->why), "%s", cli_last_message());
    wasmcache_module_release(module);
    v->reason = report.reason;
    v->layer = report.layer;
    v->path = cli_layer_entry_path(lookup->cli, lookup->cache, v->layer,
                                   lookup->info.engine_namespace, &v->key);
    v->bad_layers = layer_failures(lookup) - before;
    if (v->reason == WASMCACHE_REASON_SOURCE && v->kind == WASMCACHE_COMPONENT)
        snprintf(v->why, sizeof(v->why), "it is a component, and %s has modules only",
                 lookup->engine.type->title);
    if (looked(v) && wasmcache_entry_check(&v->own, lookup->cache, lookup->info.engine_namespace,
                                           &v->key, v->layer ? WASMCACHE_CHECK_DIGEST : 0))
        v->own.state = WASMCACHE_REASON_UNREADABLE;
}

static void judge(const struct lookup *lookup, struct verdict *v)
{
    v->kind = lookup->component ? WASMCACHE_COMPONENT : cli_engine_kind(v->file);
    v->own.state = WASMCACHE_REASON_NOT_FOUND;
    if (wasmcache_key_from_path(&v->key, WASMCACHE_KEY_SHA256, v->file)) {
        v->reason = WASMCACHE_REASON_SOURCE;
        snprintf(v->why, sizeof(v->why), "%s", cli_last_message());
    } else if (lookup->off) {
        v->reason = WASMCACHE_REASON_CACHE_OFF;
        snprintf(v->why, sizeof(v->why), "%s", lookup->why);
    } else if (lookup->info.error) {
        v->reason = WASMCACHE_REASON_UNATTACHED;
        snprintf(v->why, sizeof(v->why), "%s", lookup->info.message);
    } else {
        try_load(lookup, v);
    }
}

/* ---- what is near ---- */

/* Is the entry of the same bytes, and not one that the verdict is about? */
static bool is_near(const struct lookup *lookup, const struct verdict *v,
                    const wasmcache_entry *entry)
{
    if (!wasmcache_key_equal(&entry->key, &v->key))
        return false;
    if (strcmp(entry->engine_namespace, lookup->info.engine_namespace) != 0)
        return true;
    return v->reason == WASMCACHE_REASON_MISMATCHED && cli_entry_known(entry);
}

static void look_at(const struct lookup *lookup, const struct verdict *v,
                    const wasmcache_entry *entry, struct near *near)
{
    const struct cli_wanted wanted = {v->kind, lookup->info.engine_namespace, &lookup->identity};
    int rc;

    near->entry = entry;
    near->identity = (wasmcache_identity)WASMCACHE_IDENTITY_INIT;
    near->unknown[0] = '\0';
    rc = wasmcache_identity_read(&near->identity, lookup->cache, entry->engine_namespace);
    if (rc)
        snprintf(near->unknown, sizeof(near->unknown), "%s", cli_last_message());
    cli_differences_find(&near->differences, &wanted, entry, rc ? NULL : &near->identity);
    if (!rc && !near->differences.known)
        snprintf(near->unknown, sizeof(near->unknown),
                 "what is written down of its namespace is of another engine or settings");
}

/* All that are near, to be freed; NULL if there are none, or no memory. */
static struct near *find_near(const struct lookup *lookup, const struct verdict *v, size_t *count)
{
    struct near *list;
    size_t i, found = 0;

    *count = 0;
    if (!looked(v) || !v->reason)
        return NULL;
    for (i = 0; i < lookup->entries.count; i++)
        found += is_near(lookup, v, &lookup->entries.list[i]);
    list = found ? calloc(found, sizeof(*list)) : NULL;
    if (found && !list)
        cli_error("no memory for the entries that are near");
    for (i = 0; list && i < lookup->entries.count; i++)
        if (is_near(lookup, v, &lookup->entries.list[i]))
            look_at(lookup, v, &lookup->entries.list[i], &list[(*count)++]);
    return list;
}

/* The one that differs in least; NULL if of none it is known. */
static const struct near *nearest(const struct near *list, size_t count)
{
    const struct near *best = NULL;
    size_t i;

    for (i = 0; i < count; i++)
        if (!*list[i].unknown && (!best || list[i].differences.count < best->differences.count))
            best = &list[i];
    return best;
}

/* ---- advice ---- */

static const char *advice_of(const struct verdict *v)
{
    switch (v->reason) {
    case WASMCACHE_REASON_NOT_FOUND:
        return "if it was saved once, the bytes of the file are others now, or the entry was "
               "removed or evicted since (wasmcache stats counts evictions); wasmcache compile "
               "saves it";
    case WASMCACHE_REASON_CORRUPT:
        return "a get removes it, compiles and saves anew; if there are more, look at the disk "
               "(wasmcache verify)";
    case WASMCACHE_REASON_MISMATCHED:
        return "the next save replaces it, unless the engine id was given: then it is another "
               "program's, and stays";
    case WASMCACHE_REASON_NEWER_FORMAT:
        return "it stays, and nothing is saved in its place: use the later version of the library, "
               "another directory, or remove it (wasmcache rm)";
    case WASMCACHE_REASON_UNTRUSTED:
        return "owner has to be this user or root, and nobody else may write; the next save "
               "replaces a file, but not a directory";
    case WASMCACHE_REASON_UNREADABLE:
        return "let this user read it; until then each get compiles";
    case WASMCACHE_REASON_ENGINE_REFUSED:
        return "the entry is sound; look at memory, descriptors and the mount (noexec); a get "
               "compiles and replaces it";
    case WASMCACHE_REASON_EXPIRED:
        return "a get compiles and replaces it; a larger max_age keeps it, and so does "
               "wasmcache pin";
    case WASMCACHE_REASON_CACHE_OFF:
        return "wasmcache dir says which directory is used, and what is wrong with it";
    default:
        return "";
    }
}

static void advise(struct verdict *v, const struct near *list, size_t count)
{
    const struct near *best = nearest(list, count);

    if (!v->reason)
        return;
    if (v->reason == WASMCACHE_REASON_NOT_FOUND && count) {
        snprintf(v->why, sizeof(v->why),
                 "no entry of these bytes for this engine and settings; there %s %zu for others",
                 count == 1 ? "is" : "are", count);
        if (best)
            cli_differences_advice(&best->differences, v->advice, sizeof(v->advice));
        else
            snprintf(v->advice, sizeof(v->advice),
                     "compile the file for the engine and the settings that are wanted");
        return;
    }
    if (v->reason == WASMCACHE_REASON_NOT_FOUND)
        snprintf(v->why, sizeof(v->why), "no entry was saved for these bytes");
    snprintf(v->advice, sizeof(v->advice), "%s",
             v->reason == WASMCACHE_REASON_CACHE_OFF && cli_environment_flag("WASMCACHE_DISABLE")
                 ? "unset it"
                 : advice_of(v));
}

/* ---- output ---- */

/* A line; control characters are made harmless, for names come from anywhere. */
__attribute__((format(printf, 2, 3))) static void line(const char *name, const char *format, ...)
{
    char text[8192];
    va_list arguments;
    char *c;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    cli_print(*name ? "%-12s %s\n" : "%s%s\n", name, text);
}

static const char *judged_by(const struct verdict *v)
{
    switch (v->reason) {
    case WASMCACHE_REASON_NONE:
        return "read whole, and loaded by the engine";
    case WASMCACHE_REASON_NOT_FOUND:
        return "there is no such file";
    case WASMCACHE_REASON_CACHE_OFF:
    case WASMCACHE_REASON_UNATTACHED:
    case WASMCACHE_REASON_SOURCE:
        return "nothing was looked at";
    default:
        return "the file was looked at, and left as it is";
    }
}

static void print_head(const struct lookup *lookup, const struct verdict *v)
{
    char text[CLI_TEXT_SIZE];

    if (v->reason)
        line("", "miss: %s: %s", v->file, wasmcache_reason_name(v->reason));
    else
        line("", "hit: %s", v->file);
    if (v->reason)
        line("why", "%s", v->why);
    if (v->key.length)
        line("key", "%s", cli_text_key(text, &v->key, false));
    if (*lookup->info.engine_namespace) {
        line("engine", "%s %s, %s", lookup->engine.type->title, lookup->identity.engine_version,
             lookup->identity.compiler);
        if (*lookup->identity.settings)
            line("settings", "%s", lookup->identity.settings);
        line("namespace", "%s", lookup->info.engine_namespace);
    }
    if (v->path)
        line("path", "%s", v->path);
    line("judged by", "%s", judged_by(v));
    if (v->layer)
        line("layer", "it is in layer %d; in the cache's own directory: %s", v->layer,
             v->own.state == WASMCACHE_REASON_NOT_FOUND ? "none" : cli_text_state(v->own.state));
    if (v->bad_layers)
        line("layers", "%llu of the layers have an entry that cannot be used",
             (unsigned long long)v->bad_layers);
}

static void print_near(const struct lookup *lookup, const struct near *near)
{
    char *path = cli_entry_path(lookup->cache, near->entry->engine_namespace, &near->entry->key);

    cli_print("\n");
    line("near", "%s", path ? path : near->entry->engine_namespace);
    line("state", "%s", cli_text_state(near->entry->state));
    if (*near->unknown)
        line("saved for", "not known: %s", near->unknown);
    cli_differences_print(&near->differences);
    free(path);
}

static json_t *json_near(const struct lookup *lookup, const struct near *near)
{
    json_t *object = cli_json_entry(lookup->cache, near->entry);
    json_t *differs = json_array();
    size_t i;

    for (i = 0; i < near->differences.count; i++) {
        const struct cli_difference *d = &near->differences.list[i];

        json_array_append_new(differs, json_pack("{s:s,s:o,s:o}", "what", d->name, "ours",
                                                 cli_json_text(d->ours), "theirs",
                                                 cli_json_text(d->theirs)));
    }
    if (object) {
        json_object_set_new(object, "differs", differs);
        json_object_set_new(object, "unknown", cli_json_text(near->unknown));
    } else {
        json_decref(differs);
    }
    return object;
}

static void print_json(const struct lookup *lookup, const struct verdict *v,
                       const struct near *list, size_t count)
{
    json_t *entries = json_array();
    size_t i;

    for (i = 0; i < count; i++)
        json_array_append_new(entries, json_near(lookup, &list[i]));
    cli_json_line(json_pack(
        "{s:o,s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:o,s:o}", "file", cli_json_text(v->file),
        "verdict", v->reason ? "miss" : "hit", "reason", wasmcache_reason_name(v->reason), "why",
        cli_json_text(v->why), "key", cli_json_key(&v->key), "engine",
        cli_json_text(lookup->info.engine), "settings", cli_json_text(lookup->identity.settings),
        "namespace", cli_json_text(lookup->info.engine_namespace), "path", cli_json_text(v->path),
        "layer", (json_int_t)v->layer, "bad_layers", (json_int_t)v->bad_layers, "near", entries,
        "advice", cli_json_text(v->advice)));
}

static void print(struct lookup *lookup, const struct verdict *v, const struct near *list,
                  size_t count)
{
    size_t i;

    if (lookup->cli->json) {
        print_json(lookup, v, list, count);
        return;
    }
    if (lookup->cli->quiet)
        return;
    if (lookup->any)
        cli_print("\n");
    lookup->any = true;
    print_head(lookup, v);
    for (i = 0; i < count; i++)
        print_near(lookup, &list[i]);
    if (*v->advice)
        line("advice", "%s", v->advice);
}

static int explain(struct lookup *lookup, const char *file)
{
    struct verdict v = {.file = file, .own = WASMCACHE_ENTRY_INIT};
    struct near *list;
    size_t count;
    int status;

    judge(lookup, &v);
    list = find_near(lookup, &v, &count);
    advise(&v, list, count);
    if (v.reason == WASMCACHE_REASON_SOURCE)
        cli_error("cannot explain %s: %s", file, v.why);
    print(lookup, &v, list, count);
    status = v.reason ? CLI_FAILED : CLI_OK;
    free(list);
    free(v.path);
    return status;
}

/* A folder with nothing in it to explain. */
static int fail_folder(struct lookup *lookup, const struct cli_file *folder)
{
    struct verdict v = {.file = folder->path, .reason = WASMCACHE_REASON_SOURCE};

    snprintf(v.why, sizeof(v.why), "%s", folder->why);
    cli_error("cannot explain %s: %s", folder->path, folder->why);
    print(lookup, &v, NULL, 0);
    return CLI_FAILED;
}

/* ---- the command ---- */

/* The directory as a get would find it: a cache that is only read says less about one that is
 * missing. */
static void see_whether_off(struct lookup *lookup, struct cli *cli)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache *as_used = NULL;

    if (cli_environment_flag("WASMCACHE_DISABLE")) {
        lookup->off = true;
        snprintf(lookup->why, sizeof(lookup->why), "$WASMCACHE_DISABLE is set");
        return;
    }
    if (cli_cache_open(cli, &as_used, CLI_CACHE_SHOW) == CLI_OK)
        wasmcache_status(as_used, &info);
    lookup->off = info.state == WASMCACHE_STATE_OFF;
    snprintf(lookup->why, sizeof(lookup->why), "%s", info.message);
    wasmcache_close(as_used);
}

static int explain_all(struct cli *cli, struct lookup *lookup, const struct cli_files *files)
{
    int status = cli_engine_open(&lookup->engine, cli);
    size_t i;

    if (status)
        return status;
    see_whether_off(lookup, cli);
    status = cli_cache_open(cli, &lookup->cache, CLI_CACHE_LOOK);
    if (!status)
        status = cli_engine_attach(&lookup->attachment, &lookup->engine, lookup->cache, cli);
    if (!status) {
        wasmcache_attachment_status(lookup->attachment, &lookup->info);
        if (!lookup->info.error)
            wasmcache_identity_of(&lookup->identity, lookup->attachment);
        /* A folder that cannot be listed was told of, and says nothing about this one. */
        if (!lookup->off)
            (void)cli_entries_collect(&lookup->entries, lookup->cache, NULL);
        for (i = 0; i < files->count; i++)
            if (files->list[i].why ? fail_folder(lookup, &files->list[i])
                                   : explain(lookup, files->list[i].path))
                status = CLI_FAILED;
        cli_entries_free(&lookup->entries);
    }
    wasmcache_detach(lookup->attachment);
    wasmcache_close(lookup->cache);
    cli_engine_close(&lookup->engine);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_explain, argc, argv);
    struct lookup lookup = {
        .cli = cli, .info = WASMCACHE_ATTACHMENT_INFO_INIT, .identity = WASMCACHE_IDENTITY_INIT};
    struct cli_files files = {0};
    int status = CLI_OK, id;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == OPTION_COMPONENT) {
            lookup.component = true;
        } else if (id == CLI_SCAN_OPERAND) {
            cli_files_operand(&files, scan.value);
        } else {
            status = scan.status;
            goto done;
        }
    }
    if (!files.operands) {
        status = cli_usage(&cli_command_explain, "which files? Name one or more files or folders");
        goto done;
    }
    cli_files_expand(&files);
    status = explain_all(cli, &lookup, &files);
done:
    cli_files_free(&files);
    return status;
}

const struct cli_command cli_command_explain = {
    .name = "explain",
    .operands = "PATH...",
    .summary = "say whether a module would be a hit, and why not",
    .help = "Looks for each file as a get of a program would, with this engine and settings,\n"
            "but compiles nothing and changes nothing in the cache. If it would be a miss it\n"
            "says why, and in what entries of the same bytes differ from what is wanted. The\n"
            "exit status is 0 if all would hit, 1 if not.",
    .examples = "wasmcache explain app.wasm\n"
                "wasmcache --engine wasmer --settings metering=5 explain app.wasm\n"
                "wasmcache --json explain plugins/ | jq -r 'select(.verdict==\"miss\").file'",
    .options = options,
    .run = run,
};
