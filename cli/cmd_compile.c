/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "batch.h"
#include "cache.h"
#include "cli.h"
#include "engine.h"
#include "files.h"
#include "output.h"
#include "table.h"

enum { OPTION_RECOMPILE = 256, OPTION_COMPONENT, OPTION_READABLE, JOBS_MAX = 256 };

static const struct cli_option options[] = {
    {'j', 'j', "jobs", "N", "files at a time; else as many as CPUs, at most 4"},
    {OPTION_RECOMPILE, 0, "recompile", NULL, "replace what is in the cache ($WASMCACHE_RECACHE)"},
    {OPTION_COMPONENT, 0, "component", NULL, "take all files for components, text too"},
    {OPTION_READABLE, 0, "readable", NULL, "other users may load it: modes 0755 and 0444"},
    {0, 0, NULL, NULL, NULL}};

/* What became of a file. */
struct result {
    wasmcache_report report;
    char *error;      /* NULL: none */
    char *save_error; /* the same */
};

/* Shared by the threads. Constant but for each file's own result, and `counts`, which has the
 * batch's lock. */
struct job {
    const struct cli *cli;
    const struct cli_engine_type *type;
    wasmcache *cache;
    wasmcache_attachment *attachment;
    wasmcache_attachment_info info;
    const struct cli_files *files;
    struct result *results;
    unsigned flags;
    bool component;
    struct cli_progress_counts counts;
    size_t not_saved;
};

/* ---- a file --------------------------------------------------------------------------------- */

static void print_json(const struct job *job, size_t index)
{
    const char *file = job->files->list[index].path;
    const struct result *result = &job->results[index];
    const wasmcache_report *report = &result->report;
    bool saved = report->outcome == WASMCACHE_HIT ||
                 (report->outcome != WASMCACHE_FAILED && !report->save_error);
    char *path = saved ? cli_layer_entry_path(job->cli, job->cache, report->layer,
                                              job->info.engine_namespace, &report->key)
                       : NULL;
    bool is_file = !job->files->list[index].why;
    json_t *object = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:o,s:o}", /* */
        "file", cli_json_text(file), "key", cli_json_key(&report->key), "engine",
        cli_json_text(is_file ? job->info.engine : NULL), "namespace",
        cli_json_text(is_file ? job->info.engine_namespace : NULL), "path", cli_json_text(path),
        "outcome", wasmcache_outcome_name(report->outcome), "reason",
        wasmcache_reason_name(report->reason), "wasm_bytes", (json_int_t)report->wasm_bytes,
        "artifact_bytes", (json_int_t)report->artifact_bytes, "key_ms", cli_json_ms(report->key_ns),
        "compile_ms", cli_json_ms(report->compile_ns), "load_ms", cli_json_ms(report->load_ns),
        "save_ms", cli_json_ms(report->save_ns), "total_ms", cli_json_ms(report->total_ns));

    if (object && result->error)
        json_object_set_new(object, "error", cli_json_text(result->error));
    if (object && result->save_error) {
        json_object_set_new(object, "save_error",
                            cli_json_text(wasmcache_error_name(report->save_error)));
        json_object_set_new(object, "save_message", cli_json_text(result->save_error));
    }
    cli_json_line(object);
    free(path);
}

static int on_phase(const wasmcache_progress *progress, void *payload)
{
    struct cli_batch *batch = payload;

    if (progress->phase == WASMCACHE_PHASE_COMPILE)
        return cli_batch_leave(batch);
    if (progress->phase == WASMCACHE_PHASE_SAVE)
        return cli_batch_hold(batch);
    return cli_batch_signal() != 0;
}

static void fail(struct result *result, const char *file, const char *why)
{
    result->error = strdup(why);
    cli_error("cannot compile %s: %s", file, why);
}

static bool compile(struct cli_batch *batch, size_t index)
{
    struct job *job = batch->payload;
    const char *file = job->files->list[index].path;
    struct result *result = &job->results[index];
    wasmcache_kind kind = job->component ? WASMCACHE_COMPONENT : cli_engine_kind(file);
    wasmcache_source source = wasmcache_source_path(file);
    wasmcache_get_options get = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    int rc;

    get.flags = job->flags;
    cli_get_options(&get, job->cli);
    get.tick = on_phase;
    get.tick_payload = batch;
    cli_save_error_clear();
    rc = wasmcache_get(&module, job->attachment, kind, &source, &get, &result->report);
    if (rc == WASMCACHE_EABORTED)
        return false;
    if (rc && kind == WASMCACHE_COMPONENT && !job->type->components) {
        char text[128];

        snprintf(text, sizeof(text), "it is a component, and %s has modules only",
                 job->type->title);
        fail(result, file, text);
    } else if (rc) {
        fail(result, file, cli_last_message());
    } else if (result->report.outcome == WASMCACHE_COMPILED && result->report.save_error &&
               result->report.reason != WASMCACHE_REASON_CACHE_OFF &&
               result->report.reason != WASMCACHE_REASON_UNATTACHED) {
        /* Those two were told once for all files. */
        const char *why =
            *cli_save_error() ? cli_save_error() : wasmcache_error_name(result->report.save_error);

        result->save_error = strdup(why);
        cli_warn("compiled %s, but it is not saved: %s", file, why);
    }
    wasmcache_module_release(module);
    return true;
}

static bool work(struct cli_batch *batch, size_t index)
{
    struct job *job = batch->payload;
    const struct cli_file *file = &job->files->list[index];

    if (!file->why)
        return compile(batch, index);
    job->results[index].report.reason = WASMCACHE_REASON_SOURCE;
    fail(&job->results[index], file->path, file->why);
    return true;
}

static void begun(struct cli_batch *batch, size_t index)
{
    struct job *job = batch->payload;

    cli_progress_update(&job->counts, job->files->list[index].path);
}

static void finished(struct cli_batch *batch, size_t index)
{
    struct job *job = batch->payload;
    struct cli_progress_counts *counts = &job->counts;
    const struct result *result = &job->results[index];
    uint64_t bytes = job->files->list[index].bytes;

    counts->done++;
    counts->bytes_done += bytes;
    if (result->report.outcome == WASMCACHE_FAILED) {
        counts->failed++;
    } else if (result->report.outcome == WASMCACHE_COMPILED) {
        counts->compiled++;
        counts->bytes_compiled += bytes;
    } else {
        counts->hits++;
    }
    job->not_saved += result->save_error != NULL;
    cli_progress_update(counts, NULL);
}

static void in_order(struct cli_batch *batch, size_t index)
{
    struct job *job = batch->payload;

    if (job->cli->json)
        print_json(job, index);
}

/* ---- all ------------------------------------------------------------------------------------ */

static void print_table(const struct job *job, const struct cli_batch *batch)
{
    static const struct cli_column columns[] = {
        {"FILE", false, true}, {"OUTCOME", false, false}, {"REASON", false, false},
        {"TIME", true, false}, {"WASM", true, false},     {"ARTIFACT", true, false}};
    struct cli_table *table = cli_table_new(columns, 6);
    size_t i;

    for (i = 0; i < job->files->count; i++) {
        const wasmcache_report *report = &job->results[i].report;
        char time[CLI_TEXT_SIZE], wasm[CLI_TEXT_SIZE], artifact[CLI_TEXT_SIZE];
        const char *cells[6];

        if (!cli_batch_was_done(batch, i))
            continue;
        cells[0] = job->files->list[i].path;
        cells[1] = wasmcache_outcome_name(report->outcome);
        cells[2] = report->reason ? wasmcache_reason_name(report->reason) : "-";
        cells[3] = cli_text_duration(time, report->total_ns);
        cells[4] = cli_text_bytes(wasm, report->wasm_bytes);
        cells[5] = cli_text_bytes(artifact, report->artifact_bytes);
        cli_table_row(table, cells);
    }
    cli_table_print(table);
}

static void print_summary(const struct job *job, const struct timespec *began)
{
    const struct cli_progress_counts *counts = &job->counts;
    char bytes[CLI_TEXT_SIZE], time[CLI_TEXT_SIZE];
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    cli_print("%zu compiled", counts->compiled);
    if (job->not_saved)
        cli_print(" (%zu not saved)", job->not_saved);
    if (counts->hits)
        cli_print(", %zu were there already", counts->hits);
    if (counts->failed)
        cli_print(", %zu failed", counts->failed);
    if (counts->done < counts->total)
        cli_print(", %zu not done", counts->total - counts->done);
    cli_print(
        ", %s, %s\n", cli_text_bytes(bytes, counts->bytes_done),
        cli_text_duration(time, (uint64_t)((now.tv_sec - began->tv_sec) * INT64_C(1000000000) +
                                           now.tv_nsec - began->tv_nsec)));
}

static bool is_open_to_all(const char *path, mode_t wanted, mode_t *mode)
{
    struct stat st;

    *mode = 0;
    if (stat(path, &st))
        return true; /* there is nothing of it */
    *mode = st.st_mode & 07777;
    return (st.st_mode & wanted) == wanted;
}

/* What was there before keeps its mode, and one folder that is closed is enough to hide all. */
static void check_readable(const struct job *job)
{
    const char *dir = cli_cache_dir(job->cli);
    const char *closed = NULL;
    char *entry = NULL, *folder = NULL;
    mode_t mode = 0;
    size_t i;

    if (!dir || !is_open_to_all(dir, 0055, &mode))
        closed = dir;
    for (i = 0; !closed && i < job->files->count; i++) {
        free(entry);
        free(folder);
        entry = cli_entry_path(job->cache, job->info.engine_namespace, &job->results[i].report.key);
        folder = entry ? strdup(entry) : NULL;
        if (!folder)
            continue;
        *strrchr(folder, '/') = '\0';
        if (!is_open_to_all(folder, 0055, &mode))
            closed = folder;
        else if (!is_open_to_all(entry, 0044, &mode))
            closed = entry;
    }
    if (closed)
        cli_warn("%s was there already with mode %04o, and stays closed to other users; compile "
                 "into a new directory",
                 closed, (unsigned)mode);
    free(entry);
    free(folder);
}

/* What other threads are in the middle of is theirs until the process ends. */
static _Noreturn void stop(const struct job *job, int number)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;

    cli_error("stopped by a signal: %zu of %zu files are done", job->counts.done,
              job->counts.total);
    (void)wasmcache_stats_read(job->cache, WASMCACHE_STATS_DIRECTORY, &stats); /* counts what was */
    (void)cli_output_close(CLI_FAILED);
    cli_batch_die(number);
}

static int compile_all(struct job *job, size_t jobs)
{
    struct cli_batch batch = {.count = job->files->count,
                              .jobs = jobs,
                              .work = work,
                              .begun = begun,
                              .finished = finished,
                              .in_order = in_order,
                              .payload = job};
    struct timespec began;
    int status;

    clock_gettime(CLOCK_MONOTONIC, &began);
    cli_progress_start("compiling");
    status = cli_batch_run(&batch);
    cli_progress_stop();
    if (status == CLI_OK) {
        if (!job->cli->json && !job->cli->quiet) {
            print_table(job, &batch);
            print_summary(job, &began);
        }
        if (job->cli->config->values[CLI_SHARE].number == WASMCACHE_SHARE_READABLE && job->cache)
            check_readable(job);
        if (cli_batch_signal())
            stop(job, cli_batch_signal());
    }
    cli_batch_release(&batch);
    return job->counts.failed ? CLI_FAILED : status;
}

static int make_results(struct job *job)
{
    size_t i;

    job->results = calloc(job->files->count, sizeof(*job->results));
    if (!job->results) {
        cli_error("no memory");
        return CLI_FAILED;
    }
    job->counts.total = job->files->count;
    for (i = 0; i < job->files->count; i++) {
        job->results[i].report = (wasmcache_report)WASMCACHE_REPORT_INIT;
        job->counts.bytes += job->files->list[i].bytes;
    }
    return CLI_OK;
}

static void free_results(struct job *job)
{
    size_t i;

    for (i = 0; job->results && i < job->files->count; i++) {
        free(job->results[i].error);
        free(job->results[i].save_error);
    }
    free(job->results);
}

static int compile_files(struct cli *cli, struct job *job, size_t jobs)
{
    struct cli_engine engine;
    int status = cli_engine_open(&engine, cli);

    if (status)
        return status;
    job->type = engine.type;
    status = cli_cache_open(cli, &job->cache, CLI_CACHE_MODULES);
    if (status)
        goto close_engine;
    status = cli_engine_attach(&job->attachment, &engine, job->cache, cli);
    if (status)
        goto close_cache;
    wasmcache_attachment_status(job->attachment, &job->info);
    status = make_results(job);
    if (status)
        goto close_cache;
    status = compile_all(job, jobs);
close_cache:
    free_results(job);
    wasmcache_detach(job->attachment);
    wasmcache_close(job->cache);
close_engine:
    cli_engine_close(&engine);
    return status;
}

/* The time of an image's build, https://reproducible-builds.org/specs/source-date-epoch/ */
static int read_source_date(struct cli *cli)
{
    const char *value = cli_environment("SOURCE_DATE_EPOCH");
    char *end;

    if (!value)
        return CLI_OK;
    errno = 0;
    cli->source_date = strtoull(value, &end, 10);
    if (errno || *end || *value < '0' || *value > '9' || cli->source_date >> 33)
        return cli_usage(&cli_command_compile,
                         "$SOURCE_DATE_EPOCH is to be a number of seconds since 1970, not \"%s\"",
                         value);
    cli->reproducible = true;
    return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_compile, argc, argv);
    struct cli_files files = {0};
    struct job job = {.info = WASMCACHE_ATTACHMENT_INFO_INIT};
    long jobs = (long)cli_batch_default_jobs();
    int status = CLI_OK, id;
    char *end;

    if (cli_environment_flag("WASMCACHE_RECACHE"))
        job.flags |= WASMCACHE_GET_RECOMPILE;
    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        switch (id) {
        case 'j':
            errno = 0;
            jobs = strtol(scan.value, &end, 10);
            if (errno || end == scan.value || *end || jobs < 1 || jobs > JOBS_MAX) {
                status =
                    cli_usage(&cli_command_compile, "-j needs a number from 1 to %d", JOBS_MAX);
                goto done;
            }
            break;
        case OPTION_RECOMPILE:
            job.flags |= WASMCACHE_GET_RECOMPILE;
            break;
        case OPTION_COMPONENT:
            job.component = true;
            break;
        case OPTION_READABLE:
            (void)cli_config_option(cli->config, CLI_SHARE, "readable", "--readable");
            break;
        case CLI_SCAN_OPERAND:
            cli_files_operand(&files, scan.value);
            break;
        default:
            status = scan.status;
            goto done;
        }
    }
    if (!files.operands) {
        status = cli_usage(&cli_command_compile, "which files? Name one or more files or folders");
        goto done;
    }
    status = read_source_date(cli);
    if (status)
        goto done;
    job.cli = cli;
    job.files = &files;
    cli_files_expand(&files);
    status = compile_files(cli, &job, (size_t)jobs);
done:
    cli_files_free(&files);
    return status;
}

const struct cli_command cli_command_compile = {
    .name = "compile",
    .operands = "PATH...",
    .summary = "compile modules into the cache",
    .help = "Each file is loaded from the cache, or else compiled and saved there. Of a\n"
            "folder all files below it whose names end in .wasm are taken. A file that does\n"
            "not compile does not stop the others; the exit status is then 1.\n"
            "Where $SOURCE_DATE_EPOCH is set the cache is one for an image: the same files\n"
            "give the same bytes, times and modes, and nothing else is left there.",
    .examples = "wasmcache compile app.wasm\n"
                "wasmcache compile -j 4 plugins/\n"
                "SOURCE_DATE_EPOCH=0 wasmcache compile --readable plugins/\n"
                "wasmcache --json compile plugins/ | jq -r 'select(.outcome==\"failed\").file'",
    .options = options,
    .run = run,
};
