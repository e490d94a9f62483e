/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "cli.h"
#include "engine.h"
#include "files.h"
#include "output.h"
#include "table.h"

enum { OPTION_RECOMPILE = 256, OPTION_COMPONENT, JOBS_MAX = 256 };

static const struct cli_option options[] = {
    {'j', 'j', "jobs", "N", "files at a time (1: one alone uses all CPUs)"},
    {OPTION_RECOMPILE, 0, "recompile", NULL, "replace what is in the cache ($WASMCACHE_RECACHE)"},
    {OPTION_COMPONENT, 0, "component", NULL, "take all files for components, text too"},
    {0, 0, NULL, NULL, NULL}};

/* What became of a file. */
struct result {
    wasmcache_report report;
    char *error; /* NULL: none */
};

/* Shared by the threads. Constant but for `next`, `finished` and each thread's own results. */
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
    pthread_mutex_t lock;
    size_t next;
    size_t finished;
};

/* Of the entry, in the cache's own directory or in the layer that had it. */
static char *path_of(const struct job *job, const wasmcache_report *report)
{
    wasmcache_options as = WASMCACHE_OPTIONS_INIT;
    wasmcache *layer = NULL;
    char *dirs[CLI_LAYERS_MAX], *path = NULL;
    int i, count;

    if (!report->layer)
        return cli_entry_path(job->cache, job->info.engine_namespace, &report->key);
    count = cli_config_layers(dirs, job->cli->config);
    if (count >= report->layer) {
        as.dir = dirs[report->layer - 1];
        as.flags = WASMCACHE_READ_ONLY;
        if (!wasmcache_open(&layer, &as))
            path = cli_entry_path(layer, job->info.engine_namespace, &report->key);
        wasmcache_close(layer);
    }
    for (i = 0; i < count; i++)
        free(dirs[i]);
    return path;
}

static void print_json(const struct job *job, const char *file, const wasmcache_report *report,
                       const char *error, const char *save_error)
{
    bool saved = report->outcome == WASMCACHE_HIT ||
                 (report->outcome == WASMCACHE_COMPILED && !report->save_error);
    char *path = saved ? path_of(job, report) : NULL;
    json_t *object = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:o,s:o}", /* */
        "file", cli_json_text(file), "key", cli_json_key(&report->key), "engine",
        cli_json_text(job->info.engine), "namespace", cli_json_text(job->info.engine_namespace),
        "path", cli_json_text(path), "outcome", wasmcache_outcome_name(report->outcome), "reason",
        wasmcache_reason_name(report->reason), "wasm_bytes", (json_int_t)report->wasm_bytes,
        "artifact_bytes", (json_int_t)report->artifact_bytes, "key_ms", cli_json_ms(report->key_ns),
        "compile_ms", cli_json_ms(report->compile_ns), "load_ms", cli_json_ms(report->load_ns),
        "save_ms", cli_json_ms(report->save_ns), "total_ms", cli_json_ms(report->total_ns));

    if (object && error)
        json_object_set_new(object, "error", cli_json_text(error));
    if (object && save_error) {
        json_object_set_new(object, "save_error",
                            cli_json_text(wasmcache_error_name(report->save_error)));
        json_object_set_new(object, "save_message", cli_json_text(save_error));
    }
    cli_json_line(object);
    free(path);
}

/* A folder with nothing to compile: told like a file that does not compile. */
static void fail_folder(const char *path, const char *why, void *payload)
{
    const struct job *job = payload;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    report.outcome = WASMCACHE_FAILED;
    report.reason = WASMCACHE_REASON_SOURCE;
    cli_error("cannot compile %s: %s", path, why);
    if (job->cli->json)
        print_json(job, path, &report, why, NULL);
}

static void compile(const struct job *job, size_t index)
{
    const char *file = job->files->list[index];
    struct result *result = &job->results[index];
    wasmcache_kind kind = job->component ? WASMCACHE_COMPONENT : cli_engine_kind(file);
    wasmcache_source source = wasmcache_source_path(file);
    wasmcache_get_options get = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    const char *save_error = NULL;

    get.flags = job->flags;
    cli_get_options(&get, job->cli);
    cli_save_error_clear();
    if (wasmcache_get(&module, job->attachment, kind, &source, &get, &result->report)) {
        char text[1024];

        if (kind == WASMCACHE_COMPONENT && !job->type->components)
            snprintf(text, sizeof(text), "it is a component, and %s has modules only",
                     job->type->title);
        else
            snprintf(text, sizeof(text), "%s", cli_last_message());
        result->error = strdup(text);
        cli_error("cannot compile %s: %s", file, text);
    } else if (result->report.outcome == WASMCACHE_COMPILED && result->report.save_error &&
               result->report.reason != WASMCACHE_REASON_CACHE_OFF &&
               result->report.reason != WASMCACHE_REASON_UNATTACHED) {
        /* Those two were told once for all files. */
        save_error =
            *cli_save_error() ? cli_save_error() : wasmcache_error_name(result->report.save_error);
        cli_warn("compiled %s, but it is not saved: %s", file, save_error);
    }
    wasmcache_module_release(module);
    if (job->cli->json)
        print_json(job, file, &result->report, result->error, save_error);
}

static void *work(void *argument)
{
    struct job *job = argument;

    for (;;) {
        size_t index;

        pthread_mutex_lock(&job->lock);
        index = job->next;
        if (index < job->files->count) {
            job->next++;
            cli_progress_set(job->finished, job->files->count, job->files->list[index]);
        }
        pthread_mutex_unlock(&job->lock);
        if (index >= job->files->count)
            return NULL;
        compile(job, index);
        pthread_mutex_lock(&job->lock);
        job->finished++;
        cli_progress_set(job->finished, job->files->count, NULL);
        pthread_mutex_unlock(&job->lock);
    }
}

/* This thread is one of them, so that all is done even where no other can be made. */
static void work_all(struct job *job, size_t jobs)
{
    pthread_t threads[JOBS_MAX];
    size_t started = 0;

    if (jobs > job->files->count)
        jobs = job->files->count;
    while (started + 1 < jobs && !pthread_create(&threads[started], NULL, work, job))
        started++;
    work(job);
    while (started)
        pthread_join(threads[--started], NULL);
}

static void print_table(const struct job *job)
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

        cells[0] = job->files->list[i];
        cells[1] = wasmcache_outcome_name(report->outcome);
        cells[2] = report->reason ? wasmcache_reason_name(report->reason) : "-";
        cells[3] = cli_text_duration(time, report->total_ns);
        cells[4] = cli_text_bytes(wasm, report->wasm_bytes);
        cells[5] = cli_text_bytes(artifact, report->artifact_bytes);
        cli_table_row(table, cells);
    }
    cli_table_print(table);
}

static int compile_files(struct cli *cli, struct job *job, size_t jobs)
{
    struct cli_engine engine;
    size_t i;
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
    job->results = calloc(job->files->count, sizeof(*job->results));
    if (!job->results) {
        cli_error("no memory");
        status = CLI_FAILED;
        goto close_cache;
    }
    wasmcache_attachment_status(job->attachment, &job->info);
    for (i = 0; i < job->files->count; i++)
        job->results[i].report = (wasmcache_report)WASMCACHE_REPORT_INIT;

    cli_progress_start("compiling");
    work_all(job, jobs);
    cli_progress_stop();

    if (!cli->json && !cli->quiet)
        print_table(job);
    for (i = 0; i < job->files->count; i++) {
        if (job->results[i].report.outcome == WASMCACHE_FAILED)
            status = CLI_FAILED;
        free(job->results[i].error);
    }
close_cache:
    free(job->results);
    wasmcache_detach(job->attachment);
    wasmcache_close(job->cache);
close_engine:
    cli_engine_close(&engine);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_compile, argc, argv);
    struct cli_files files = {0};
    struct job job = {.info = WASMCACHE_ATTACHMENT_INFO_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};
    long jobs = 1;
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
    job.cli = cli;
    status = cli_files_expand(&files, fail_folder, &job);
    job.files = &files;
    if (files.count) {
        int compiled = compile_files(cli, &job, (size_t)jobs);
        if (compiled)
            status = compiled;
    }
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
            "not compile does not stop the others; the exit status is then 1.",
    .examples = "wasmcache compile app.wasm\n"
                "wasmcache compile -j 4 plugins/\n"
                "wasmcache --json compile plugins/ | jq -r 'select(.outcome==\"failed\").file'",
    .options = options,
    .run = run,
};
