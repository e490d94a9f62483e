/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include "cache.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "output.h"

static _Thread_local char save_error[512];
static _Thread_local int cache_error;

const char *cli_save_error(void)
{
    return save_error;
}

void cli_save_error_clear(void)
{
    save_error[0] = '\0';
}

int cli_cache_error(void)
{
    return cache_error;
}

const char *cli_environment(const char *name)
{
    const char *value = secure_getenv(name);

    return value && *value ? value : NULL;
}

bool cli_environment_flag(const char *name)
{
    const char *value = cli_environment(name);

    return value && strcmp(value, "0") != 0;
}

/* The library's sentence, to go on after a colon; names in capitals stay as they are. */
static void copy_message(char *out, size_t size, const char *message, int error)
{
    snprintf(out, size, "%s", *message ? message : wasmcache_error_name(error));
    if (isupper((unsigned char)out[0]) && islower((unsigned char)out[1]))
        out[0] = (char)tolower((unsigned char)out[0]);
}

const char *cli_last_message(void)
{
    static _Thread_local char text[1024];
    const wasmcache_error_detail *detail = wasmcache_last_error();

    copy_message(text, sizeof(text), detail->message, detail->error);
    return text;
}

/* ---- open ------------------------------------------------------------------------------------ */

static void on_event(const wasmcache_event *event, void *payload)
{
    char size[CLI_TEXT_SIZE], time[CLI_TEXT_SIZE];

    (void)payload;
    if (event->type == WASMCACHE_EVENT_SAVE_FAILED)
        copy_message(save_error, sizeof(save_error), event->message, event->error);
    cli_note("%s%s%s%s%.12s%s%s%s%s%s%s%s%s", wasmcache_event_name(event->type),
             event->reason ? " " : "", event->reason ? wasmcache_reason_name(event->reason) : "",
             *event->key ? " " : "", event->key, event->bytes ? ", " : "",
             event->bytes ? cli_text_bytes(size, event->bytes) : "", event->ns ? ", " : "",
             event->ns ? cli_text_duration(time, event->ns) : "", *event->path ? ", " : "",
             event->path, *event->message ? ": " : "", event->message);
}

/* Says what is wrong with the cache, if anything. */
static int judge(wasmcache *cache, const char *dir, enum cli_cache_use use)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;

    if (use == CLI_CACHE_SHOW || use == CLI_CACHE_LOOK)
        return CLI_OK;
    if (!dir) {
        snprintf(info.message, sizeof(info.message),
                 "there is no home directory; name one with --cache-dir or $WASMCACHE_DIR");
    } else {
        wasmcache_status(cache, &info);
        if (info.state == WASMCACHE_STATE_ON)
            return CLI_OK;
    }
    if (info.state == WASMCACHE_STATE_READ_ONLY) {
        cli_note("the cache is read-only: %s", info.message);
        return CLI_OK;
    }
    if (use == CLI_CACHE_MODULES) {
        cli_warn("the cache is off, all is compiled: %s", info.message);
        return CLI_OK;
    }
    cli_error("the cache is off: %s", info.message);
    cache_error = dir ? info.error : WASMCACHE_EOFF;
    return CLI_FAILED;
}

const char *cli_cache_dir(const struct cli *cli)
{
    return cli->config->values[CLI_DIR].text;
}

static unsigned in_unsigned(uint64_t number)
{
    return number < UINT_MAX ? (unsigned)number : UINT_MAX;
}

void cli_get_options(wasmcache_get_options *out, const struct cli *cli)
{
    const struct cli_setting_value *wait = &cli->config->values[CLI_WAIT];

    if (!wait->number)
        out->flags |= WASMCACHE_GET_NO_WAIT;
    else if (wait->origin != CLI_FROM_DEFAULT)
        out->wait_ms = wait->number < UINT_MAX / 1000 ? (unsigned)wait->number * 1000 : UINT_MAX;
}

/* What nobody said stays as the library has it. */
static void set_limits(wasmcache_options *options, const struct cli_setting_value *values)
{
    if (values[CLI_MAX_BYTES].origin)
        options->max_bytes = values[CLI_MAX_BYTES].number;
    if (values[CLI_MAX_ENTRIES].origin)
        options->max_entries = values[CLI_MAX_ENTRIES].number;
    if (values[CLI_MAX_AGE].origin)
        options->max_age_seconds = values[CLI_MAX_AGE].number;
    if (values[CLI_MAX_DISK_PERCENT].origin)
        options->max_disk_percent = (unsigned)values[CLI_MAX_DISK_PERCENT].number;
    if (values[CLI_EVICT_AFTER].origin)
        options->evict_after_seconds = in_unsigned(values[CLI_EVICT_AFTER].number);
}

int cli_cache_open_with(struct cli *cli, wasmcache **out, unsigned flags,
                        wasmcache_event_fn listener)
{
    const struct cli_setting_value *values = cli->config->values;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_layer layers[CLI_LAYERS_MAX];
    const wasmcache_layer *list[CLI_LAYERS_MAX];
    char *dirs[CLI_LAYERS_MAX];
    int rc, i, count = cli_config_layers(dirs, cli->config);

    *out = NULL;
    options.dir = values[CLI_DIR].text;
    options.flags = flags | (values[CLI_DURABLE].number ? WASMCACHE_DURABLE : 0u) |
                    (values[CLI_LEGACY].number ? WASMCACHE_LEGACY : 0u) |
                    (cli->reproducible ? WASMCACHE_REPRODUCIBLE : 0u);
    options.reproducible_time = cli->source_date;
    options.share = (wasmcache_share)values[CLI_SHARE].number;
    /* Who only looks reads all of it, whatever the hints say. */
    options.verify = flags & WASMCACHE_READ_ONLY ? WASMCACHE_VERIFY_ALWAYS
                                                 : (wasmcache_verify)values[CLI_VERIFY].number;
    options.on_event = listener;
    set_limits(&options, values);
    for (i = 0; i < count; i++) {
        layers[i] = (wasmcache_layer)WASMCACHE_LAYER_INIT;
        layers[i].dir = dirs[i];
        list[i] = &layers[i];
    }
    /* Without a directory of its own the cache is off, layers or not. */
    options.layers = list;
    options.layer_count = options.dir && count > 0 ? (size_t)count : 0;
    rc = count < 0 ? WASMCACHE_ENOMEM : wasmcache_open(out, &options);
    while (count > 0)
        free(dirs[--count]);
    return rc;
}

int cli_cache_open(struct cli *cli, wasmcache **out, enum cli_cache_use use)
{
    const char *dir = cli_cache_dir(cli);
    int rc, status;

    *out = NULL;
    if ((use == CLI_CACHE_MODULES || use == CLI_CACHE_LOOK) &&
        cli_environment_flag("WASMCACHE_DISABLE"))
        return CLI_OK;
    /* Events would only repeat what is to be shown. */
    rc = cli_cache_open_with(cli, out, use == CLI_CACHE_LOOK ? WASMCACHE_READ_ONLY : 0,
                             use == CLI_CACHE_SHOW ? NULL : on_event);
    if (rc) {
        cache_error = rc;
        cli_error("cannot open the cache %s: %s", dir ? dir : "",
                  rc == WASMCACHE_ENOMEM ? "no memory" : cli_last_message());
        status = CLI_FAILED;
    } else {
        status = judge(*out, dir, use);
    }
    if (status) {
        wasmcache_close(*out);
        *out = NULL;
    }
    return status;
}

/* ---- entries --------------------------------------------------------------------------------- */

static int compare(const void *left, const void *right)
{
    const wasmcache_entry *a = left, *b = right;
    int order = strcmp(a->engine_namespace, b->engine_namespace);

    if (!order && a->created != b->created)
        order = a->created < b->created ? -1 : 1;
    if (!order)
        order = memcmp(a->key.bytes, b->key.bytes, sizeof(a->key.bytes));
    return order;
}

/* A guard against a folder whose reading fails for ever. */
enum { UNREADABLE_MAX = 1000 };

int cli_entries_collect(struct cli_entries *out, wasmcache *cache, const char *engine_namespace)
{
    wasmcache_iterator *iterator = NULL;
    size_t room = 0;
    int rc;

    memset(out, 0, sizeof(*out));
    rc = wasmcache_iterate(&iterator, cache, engine_namespace, 0);
    if (rc == WASMCACHE_EMISS)
        return CLI_OK;
    if (rc) {
        cache_error = rc;
        cli_error("cannot list the cache: %s", cli_last_message());
        return CLI_FAILED;
    }
    for (;;) {
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;

        rc = wasmcache_iterator_next(iterator, &entry);
        if ((rc == WASMCACHE_EIO || rc == WASMCACHE_EUNTRUSTED) &&
            out->unreadable < UNREADABLE_MAX) {
            cli_error("cannot list all of the cache: %s", cli_last_message());
            out->unreadable++;
            continue;
        }
        if (rc)
            break;
        if (out->count == room) {
            wasmcache_entry *more;
            room = room ? room * 2 : 64;
            more = reallocarray(out->list, room, sizeof(*more));
            if (!more) {
                rc = WASMCACHE_ENOMEM;
                break;
            }
            out->list = more;
        }
        out->list[out->count++] = entry;
    }
    wasmcache_iterator_close(iterator);
    if (rc != WASMCACHE_EMISS) {
        cache_error = rc;
        cli_error("cannot list the cache: %s",
                  rc == WASMCACHE_ENOMEM ? "no memory" : cli_last_message());
        return CLI_FAILED;
    }
    if (out->count)
        qsort(out->list, out->count, sizeof(*out->list), compare);
    return CLI_OK;
}

void cli_entries_free(struct cli_entries *entries)
{
    free(entries->list);
    memset(entries, 0, sizeof(*entries));
}

enum { PREFIX_MIN = 8 };

static bool is_hex(const char *text)
{
    while (isxdigit((unsigned char)*text))
        text++;
    return !*text;
}

static int find_prefix(wasmcache_key *out, const char *prefix, const struct cli_entries *entries,
                       char *why, size_t size)
{
    const wasmcache_key *found = NULL;
    size_t i, length = strlen(prefix);

    for (i = 0; i < entries->count; i++) {
        char hex[WASMCACHE_KEY_HEX_SIZE];
        const wasmcache_key *key = &entries->list[i].key;

        if (strncasecmp(wasmcache_key_to_hex(hex, key), prefix, length) != 0 ||
            (found && wasmcache_key_equal(found, key)))
            continue;
        if (found) {
            snprintf(why, size, "more than one key begins with it; give more digits");
            return CLI_FAILED;
        }
        found = key;
    }
    if (!found) {
        snprintf(why, size, "there is no such file, and no key in the cache begins with it");
        return CLI_FAILED;
    }
    *out = *found;
    return CLI_OK;
}

int cli_key_find(wasmcache_key *out, const char *operand, const struct cli_entries *entries,
                 char *why, size_t size)
{
    struct stat st;

    if (!stat(operand, &st)) {
        if (!wasmcache_key_from_path(out, WASMCACHE_KEY_SHA256, operand))
            return CLI_OK;
        snprintf(why, size, "%s", cli_last_message());
        return CLI_FAILED;
    }
    if (errno != ENOENT && errno != ENAMETOOLONG) {
        snprintf(why, size, "%s", strerror(errno));
        return CLI_FAILED;
    }
    if (!wasmcache_key_from_hex(out, operand))
        return CLI_OK;
    if (is_hex(operand) && strlen(operand) >= PREFIX_MIN)
        return find_prefix(out, operand, entries, why, size);
    snprintf(why, size,
             "there is no such file, and it is no key (64 or 16 hex digits, or the "
             "first 8 or more)");
    return CLI_FAILED;
}

char *cli_entry_path(wasmcache *cache, const char *engine_namespace, const wasmcache_key *key)
{
    /* More than PATH_MAX, which the cache directory cannot exceed and be used. */
    char path[8192];

    if (!key->length || !*engine_namespace ||
        wasmcache_entry_path(path, sizeof(path), cache, engine_namespace, key))
        return NULL;
    return strdup(path);
}

char *cli_layer_entry_path(const struct cli *cli, wasmcache *cache, int layer,
                           const char *engine_namespace, const wasmcache_key *key)
{
    wasmcache_options as = WASMCACHE_OPTIONS_INIT;
    wasmcache *below = NULL;
    char *dirs[CLI_LAYERS_MAX], *path = NULL;
    int i, count;

    if (!layer)
        return cli_entry_path(cache, engine_namespace, key);
    count = cli_config_layers(dirs, cli->config);
    if (count >= layer) {
        as.dir = dirs[layer - 1];
        as.flags = WASMCACHE_READ_ONLY;
        if (!wasmcache_open(&below, &as))
            path = cli_entry_path(below, engine_namespace, key);
        wasmcache_close(below);
    }
    for (i = 0; i < count; i++)
        free(dirs[i]);
    return path;
}

static json_t *json_number(uint64_t value)
{
    return value ? json_integer((json_int_t)value) : json_null();
}

static json_t *json_time(uint64_t seconds)
{
    char text[CLI_TEXT_SIZE];
    time_t when = (time_t)seconds;
    struct tm utc;

    if (!seconds || !gmtime_r(&when, &utc) ||
        !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc))
        return json_null();
    return json_string(text);
}

bool cli_entry_known(const wasmcache_entry *entry)
{
    return entry->state == WASMCACHE_REASON_NONE ||
           (entry->state == WASMCACHE_REASON_MISMATCHED && entry->artifact_bytes);
}

json_t *cli_json_entry(wasmcache *cache, const wasmcache_entry *entry)
{
    bool known = cli_entry_known(entry);
    char *path = cli_entry_path(cache, entry->engine_namespace, &entry->key);
    char fingerprint[CLI_TEXT_SIZE];
    json_t *object;

    object = json_pack(
        "{s:o,s:o,s:o,s:o,s:s,s:I,s:o,s:o,s:o,s:o,s:o,s:b,s:o}", /* */
        "key", cli_json_key(&entry->key),                        /* */
        "namespace", cli_json_text(entry->engine_namespace), "path", cli_json_text(path), "kind",
        known ? json_string(cli_text_kind(entry->kind)) : json_null(), "state",
        cli_text_state(entry->state), "file_bytes", (json_int_t)entry->file_bytes, "artifact_bytes",
        json_number(entry->artifact_bytes), "wasm_bytes", json_number(entry->wasm_bytes),
        "compile_ms", entry->compile_ns ? cli_json_ms(entry->compile_ns) : json_null(), "created",
        json_time(entry->created), "last_used", json_time(entry->last_used), "pinned",
        entry->pinned, "fingerprint",
        known ? json_string(cli_text_fingerprint(fingerprint, entry->fingerprint)) : json_null());
    free(path);
    return object;
}
