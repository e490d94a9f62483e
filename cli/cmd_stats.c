/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cache.h"
#include "cli.h"
#include "output.h"

enum { RESET = 'r', PROMETHEUS = 256, REASONS = 16, TIMES = 24 };

static const struct cli_option options[] = {
    {RESET, 0, "reset", NULL, "count from 0 from now on, after showing"},
    {PROMETHEUS, 0, "prometheus", NULL, "as text for Prometheus"},
    {0, 0, NULL, NULL, NULL}};

/* What is a plain number, under the name that all three forms give it. */
struct number {
    const char *name;
    const char *help;
    size_t at;
    bool is_ns;
};

#define NUMBER(field, help)                                                                        \
    {                                                                                              \
#field, help, offsetof(wasmcache_stats, field), false                                      \
    }
#define DURATION(field, name, help)                                                                \
    {                                                                                              \
        name, help, offsetof(wasmcache_stats, field), true                                         \
    }

static const struct number numbers[] = {
    NUMBER(hits, "Gets that loaded an entry"),
    NUMBER(memory_hits, "Gets that found the module in memory"),
    NUMBER(layer_hits, "Hits in a read-only layer"),
    NUMBER(layer_failures, "Entries of a layer that could not be used"),
    NUMBER(joined, "Gets that got the module of another thread"),
    NUMBER(compiles, "Gets that compiled"),
    DURATION(compile_ns, "compile_seconds", "Time that compiles took"),
    DURATION(spared_ns, "spared_seconds", "Time that compiling what hits loaded took once"),
    NUMBER(saves, "New entries"),
    NUMBER(kept, "Saves that found a sound entry"),
    NUMBER(save_failures, "Saves that failed"),
    NUMBER(removed, "Damaged entries that were removed"),
    NUMBER(remove_failures, "Damaged entries that could not be removed"),
    NUMBER(fallbacks, "Hits that the engine could not map"),
    NUMBER(waits, "Gets that waited for another's compile"),
    DURATION(wait_ns, "wait_seconds", "Time that they waited"),
    NUMBER(evictions, "Entries that made room"),
    NUMBER(evicted_bytes, "Bytes of them"),
    NUMBER(loaded_bytes, "Bytes of artifacts that were loaded"),
    NUMBER(saved_bytes, "Bytes of artifacts that were saved"),
};
enum { NUMBERS = sizeof(numbers) / sizeof(*numbers) };

static uint64_t value_of(const wasmcache_stats *stats, const struct number *number)
{
    uint64_t value;
    memcpy(&value, (const char *)stats + number->at, sizeof(value));
    return value;
}

static uint64_t all_misses(const wasmcache_stats *stats)
{
    uint64_t sum = 0;
    for (int i = 0; i < REASONS; i++)
        sum += stats->misses[i];
    return sum;
}

/* The time under which half of them were, in microseconds (or what the buckets count in). */
static uint64_t median(const uint64_t times[TIMES])
{
    uint64_t sum = 0, half;
    int i;
    for (i = 0; i < TIMES; i++)
        sum += times[i];
    if (!sum)
        return 0;
    half = (sum + 1) / 2;
    for (i = 0; i < TIMES - 1 && half > times[i]; i++)
        half -= times[i];
    return UINT64_C(1) << i;
}

/* ---- for people ---- */

static void print_count(const char *name, uint64_t count, const char *more)
{
    cli_print("%-20s %" PRIu64 "%s\n", name, count, more);
}

static void print_hits(const wasmcache_stats *stats)
{
    const uint64_t hits = stats->hits + stats->memory_hits;
    const uint64_t gets = hits + all_misses(stats);
    char more[96] = "";
    if (gets)
        snprintf(more, sizeof(more), " of %" PRIu64 " (%.1f %%)", gets,
                 100 * (double)hits / (double)gets);
    print_count("hits", hits, more);
    if (stats->memory_hits)
        print_count("  in memory", stats->memory_hits, "");
    if (stats->layer_hits)
        print_count("  in layers", stats->layer_hits, "");
    print_count("misses", all_misses(stats), "");
    for (int i = 0; i < REASONS; i++)
        if (stats->misses[i]) {
            snprintf(more, sizeof(more), "  %s", wasmcache_reason_name((wasmcache_reason)i));
            print_count(more, stats->misses[i], "");
        }
}

static void print_times(const wasmcache_stats *stats)
{
    char a[CLI_TEXT_SIZE], more[128] = "";
    if (stats->compiles)
        snprintf(more, sizeof(more), ", %s", cli_text_duration(a, stats->compile_ns));
    print_count("compiles", stats->compiles, more);
    if (stats->spared_ns)
        cli_print("%-20s %s\n", "compile time saved", cli_text_duration(a, stats->spared_ns));
    if (stats->hits)
        cli_print("%-20s under %s\n", "half of the hits",
                  cli_text_duration(a, median(stats->hit_times) * 1000));
    if (stats->waits) {
        snprintf(more, sizeof(more), ", %s", cli_text_duration(a, stats->wait_ns));
        print_count("waits", stats->waits, more);
    }
    if (stats->joined)
        print_count("joined", stats->joined, "");
}

static void print_directory(const wasmcache_stats *stats)
{
    char a[CLI_TEXT_SIZE], b[CLI_TEXT_SIZE], more[192] = "";
    if (stats->saved_bytes)
        snprintf(more, sizeof(more), ", %s", cli_text_bytes(a, stats->saved_bytes));
    print_count("saves", stats->saves, more);
    if (stats->kept)
        print_count("  were there", stats->kept, "");
    if (stats->save_failures)
        print_count("  failed", stats->save_failures, "");
    if (stats->removed)
        print_count("damaged, removed", stats->removed, "");
    if (stats->remove_failures)
        print_count("damaged, left", stats->remove_failures, "");
    if (stats->fallbacks)
        print_count("not mapped", stats->fallbacks, "");
    if (stats->evictions) {
        snprintf(more, sizeof(more), ", %s", cli_text_bytes(a, stats->evicted_bytes));
        print_count("evicted", stats->evictions, more);
    }
    if (stats->known) {
        snprintf(more, sizeof(more), ", %s; counted %s", cli_text_bytes(a, stats->bytes),
                 cli_text_time(b, stats->cleaned));
        print_count("entries", stats->entries, more);
    }
    if (stats->since)
        cli_print("%-20s %s\n", "since", cli_text_time(a, stats->since));
}

/* ---- for programs ---- */

static json_t *json_times(const uint64_t times[TIMES])
{
    json_t *list = json_array();
    for (int i = 0; list && i < TIMES; i++)
        json_array_append_new(list, json_integer((json_int_t)times[i]));
    return list;
}

static void print_json(const wasmcache_stats *stats)
{
    json_t *object = json_object(), *misses = json_object();
    for (int i = 0; i < NUMBERS; i++) {
        const uint64_t value = value_of(stats, &numbers[i]);
        char name[64];
        snprintf(name, sizeof(name), "%.*s_ms", (int)strcspn(numbers[i].name, "_"),
                 numbers[i].name);
        json_object_set_new(object, numbers[i].is_ns ? name : numbers[i].name,
                            numbers[i].is_ns ? cli_json_ms(value)
                                             : json_integer((json_int_t)value));
    }
    for (int i = 1; i < REASONS; i++) {
        const char *name = wasmcache_reason_name((wasmcache_reason)i);
        if (strcmp(name, "unknown") != 0)
            json_object_set_new(misses, name, json_integer((json_int_t)stats->misses[i]));
    }
    json_object_set_new(object, "misses", misses);
    json_object_set_new(object, "hit_microseconds_below_2_to_the", json_times(stats->hit_times));
    json_object_set_new(object, "compile_milliseconds_below_2_to_the",
                        json_times(stats->compile_times));
    json_object_set_new(object, "since",
                        stats->since ? json_integer((json_int_t)stats->since) : json_null());
    json_object_set_new(object, "entries",
                        stats->known ? json_integer((json_int_t)stats->entries) : json_null());
    json_object_set_new(object, "bytes",
                        stats->known ? json_integer((json_int_t)stats->bytes) : json_null());
    cli_json_line(object);
}

static void print_metric(const char *name, const char *type, const char *help)
{
    cli_print("# HELP wasmcache_%s %s\n# TYPE wasmcache_%s %s\n", name, help, name, type);
}

/* Cumulative, as Prometheus has them. */
static void print_histogram(const char *name, const char *help, const uint64_t times[TIMES],
                            double unit, double sum)
{
    uint64_t count = 0;
    print_metric(name, "histogram", help);
    for (int i = 0; i < TIMES - 1; i++) {
        count += times[i];
        cli_print("wasmcache_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name,
                  unit * (double)(UINT64_C(1) << i), count);
    }
    count += times[TIMES - 1];
    cli_print("wasmcache_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, count);
    if (sum >= 0)
        cli_print("wasmcache_%s_sum %g\n", name, sum);
    cli_print("wasmcache_%s_count %" PRIu64 "\n", name, count);
}

static void print_prometheus(const wasmcache_stats *stats)
{
    for (int i = 0; i < NUMBERS; i++) {
        const uint64_t value = value_of(stats, &numbers[i]);
        char name[64];
        snprintf(name, sizeof(name), "%s_total", numbers[i].name);
        print_metric(name, "counter", numbers[i].help);
        if (numbers[i].is_ns)
            cli_print("wasmcache_%s %.9g\n", name, (double)value / 1e9);
        else
            cli_print("wasmcache_%s %" PRIu64 "\n", name, value);
    }
    print_metric("misses_total", "counter", "Gets that found nothing that can be used, by reason");
    for (int i = 1; i < REASONS; i++) {
        const char *name = wasmcache_reason_name((wasmcache_reason)i);
        if (strcmp(name, "unknown") != 0)
            cli_print("wasmcache_misses_total{reason=\"%s\"} %" PRIu64 "\n", name,
                      stats->misses[i]);
    }
    print_histogram("hit_duration_seconds", "What hits took", stats->hit_times, 1e-6, -1);
    print_histogram("compile_duration_seconds", "What compiles took", stats->compile_times, 1e-3,
                    (double)stats->compile_ns / 1e9);
    if (!stats->known)
        return;
    print_metric("entries", "gauge", "Entries in the directory");
    cli_print("wasmcache_entries %" PRIu64 "\n", stats->entries);
    print_metric("bytes", "gauge", "Bytes of all entries");
    cli_print("wasmcache_bytes %" PRIu64 "\n", stats->bytes);
}

static void show(const struct cli *cli, const wasmcache_stats *stats, bool prometheus)
{
    if (prometheus) {
        print_prometheus(stats);
    } else if (cli->json) {
        print_json(stats);
    } else {
        print_hits(stats);
        print_times(stats);
        print_directory(stats);
    }
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_stats, argc, argv);
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    bool reset = false, prometheus = false;
    wasmcache *cache;
    int id, status;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == RESET)
            reset = true;
        else if (id == PROMETHEUS)
            prometheus = true;
        else if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_stats, "it takes no argument");
        else
            return scan.status;
    }
    if (prometheus && cli->json)
        return cli_usage(&cli_command_stats, "--prometheus and --json are two forms");
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (status)
        return status;
    if (wasmcache_stats_read(cache, WASMCACHE_STATS_DIRECTORY, &stats)) {
        cli_error("cannot read the counters: %s", cli_last_message());
        status = CLI_FAILED;
    } else {
        show(cli, &stats, prometheus);
    }
    if (!status && reset && wasmcache_stats_reset(cache)) {
        cli_error("cannot reset the counters: %s", cli_last_message());
        status = CLI_FAILED;
    }
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_stats = {
    .name = "stats",
    .operands = "",
    .summary = "show what the cache did and holds",
    .help = "Shows the counters that all processes keep in the cache directory: hits, misses by\n"
            "reason, compiles, saves, evictions. A process adds its own when it saves, flushes\n"
            "or closes; one that is killed has not counted what it did last.",
    .examples = "wasmcache stats\n"
                "wasmcache stats --reset\n"
                "wasmcache stats --prometheus",
    .options = options,
    .run = run,
};
