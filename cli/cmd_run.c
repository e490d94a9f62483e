/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "cli.h"
#include "engine.h"
#include "output.h"

enum { OPTION_DIR = 256, OPTION_ENV, OPTION_INVOKE, OPTION_RECOMPILE };

static const struct cli_option options[] = {
    {OPTION_DIR, 0, "dir", "HOST[::GUEST]", "let it use this folder, by another name"},
    {OPTION_ENV, 0, "env", "NAME[=VALUE]", "let it see this variable"},
    {OPTION_INVOKE, 0, "invoke", "NAME", "call an exported function, print its results"},
    {OPTION_RECOMPILE, 0, "recompile", NULL, "replace what is in the cache ($WASMCACHE_RECACHE)"},
    {0, 0, NULL, NULL, NULL}};

/* What the options and the operands say. The arrays have room for argc elements. */
struct request {
    struct cli_program program;
    struct cli_preopen *dirs;
    const char **names;
    const char **values;
    const char *invoke;
    bool recompile;
};

static int add_dir(struct request *request, char *argument)
{
    struct cli_preopen *dir = &request->dirs[request->program.dir_count];
    char *colons = strstr(argument, "::");

    if (colons)
        *colons = '\0';
    if (!*argument || (colons && !colons[2]))
        return cli_usage(&cli_command_run, "--dir needs HOST or HOST::GUEST");
    dir->host = argument;
    dir->guest = colons ? colons + 2 : argument;
    dir->fd = -1;
    request->program.dir_count++;
    return CLI_OK;
}

static int add_env(struct request *request, char *argument)
{
    char *equals = strchr(argument, '=');
    const char *value = equals ? equals + 1 : NULL;

    if (equals)
        *equals = '\0';
    if (!*argument)
        return cli_usage(&cli_command_run, "--env needs NAME or NAME=VALUE");
    if (!value)
        value = secure_getenv(argument);
    /* A variable that the tool itself has not is one that the program has not. */
    if (value) {
        request->names[request->program.env_count] = argument;
        request->values[request->program.env_count] = value;
        request->program.env_count++;
    }
    return CLI_OK;
}

static int open_dirs(struct request *request)
{
    size_t i;

    for (i = 0; i < request->program.dir_count; i++) {
        struct cli_preopen *dir = &request->dirs[i];

        dir->fd = open(dir->host, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir->fd < 0) {
            cli_error("cannot give %s to the program: %s", dir->host, strerror(errno));
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

/* Refuses folders by which the program could reach the cache: what it wrote there would be run as
 * native code the next time. */
static int check_cache(const struct request *request, wasmcache *cache, const char *cache_dir)
{
    size_t i;

    for (i = 0; i < request->program.dir_count; i++) {
        const struct cli_preopen *dir = &request->dirs[i];
        int overlaps = wasmcache_overlaps(cache, dir->fd);

        if (overlaps > 0) {
            cli_error("cannot give %s to the program: the cache %s is in it or around it, and a "
                      "program that can write there could plant native code; give another "
                      "--dir or another --cache-dir",
                      dir->host, cache_dir);
            return CLI_FAILED;
        }
        if (overlaps < 0) {
            cli_error("cannot give %s to the program: it cannot be told whether it reaches the "
                      "cache %s: %s",
                      dir->host, cache_dir, cli_last_message());
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

/* The same for another place that decides what native code is run: a layer, or the folder of the
 * settings file. */
static int check_place(const struct request *request, const char *place, const char *what)
{
    wasmcache_options as = WASMCACHE_OPTIONS_INIT;
    wasmcache *cache = NULL;
    int status = CLI_OK;
    size_t i;

    as.dir = place;
    as.flags = WASMCACHE_READ_ONLY;
    if (wasmcache_open(&cache, &as)) {
        cli_error("cannot look at %s: %s", place, cli_last_message());
        return CLI_FAILED;
    }
    for (i = 0; !status && i < request->program.dir_count; i++) {
        const struct cli_preopen *dir = &request->dirs[i];

        if (wasmcache_overlaps(cache, dir->fd) != 0) {
            cli_error("cannot give %s to the program: %s %s is in it or around it, and a program "
                      "that can write there chooses what native code is run; give another --dir",
                      dir->host, what, place);
            status = CLI_FAILED;
        }
    }
    wasmcache_close(cache);
    return status;
}

static int check_places(const struct cli *cli, const struct request *request)
{
    char *layers[CLI_LAYERS_MAX];
    const char *file = cli->config->file;
    int status = CLI_OK, i, count = cli_config_layers(layers, cli->config);

    if (count < 0) {
        cli_error("no memory");
        return CLI_FAILED;
    }
    for (i = 0; i < count; i++) {
        if (!status)
            status = check_place(request, layers[i], "the layer");
        free(layers[i]);
    }
    if (!status && file && strcmp(file, "/dev/null") != 0) {
        const char *slash = strrchr(file, '/');
        char *folder =
            !slash ? strdup(".") : strndup(file, slash == file ? 1 : (size_t)(slash - file));

        if (folder) {
            status = check_place(request, folder, "the folder of the settings file,");
        } else {
            cli_error("no memory");
            status = CLI_FAILED;
        }
        free(folder);
    }
    return status;
}

/* The folders are checked with a cache of their own when the cache is switched off for this run:
 * the next run would use what the program left there. */
static int check_dirs(struct cli *cli, struct request *request, wasmcache *cache)
{
    wasmcache *own = NULL;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    const char *dir = cli_cache_dir(cli);
    int status;

    if (!request->program.dir_count)
        return CLI_OK;
    status = open_dirs(request);
    if (!status && !cache)
        status = cli_cache_open(cli, &own, CLI_CACHE_SHOW);
    if (status)
        return status;
    if (!cache)
        cache = own;
    wasmcache_status(cache, &info);
    status = check_cache(request, cache, *info.dir ? info.dir : dir ? dir : "");
    wasmcache_close(own);
    return status ? status : check_places(cli, request);
}

static void close_dirs(struct request *request)
{
    size_t i;

    for (i = 0; i < request->program.dir_count; i++)
        if (request->dirs[i].fd >= 0)
            close(request->dirs[i].fd);
}

static int run_module(const struct cli *cli, const struct cli_engine *engine,
                      wasmcache_attachment *attachment, const struct request *request)
{
    const struct cli_program *program = &request->program;
    wasmcache_source source = wasmcache_source_path(program->file);
    wasmcache_get_options get = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    char text[CLI_TEXT_SIZE];
    int rc, status;

    get.flags = request->recompile ? WASMCACHE_GET_RECOMPILE : 0;
    cli_get_options(&get, cli);
    cli_progress_start("compiling");
    cli_progress_set(0, 0, program->file);
    rc = wasmcache_get(&module, attachment, WASMCACHE_MODULE, &source, &get, &report);
    cli_progress_stop();
    if (rc) {
        cli_error("cannot compile %s: %s", program->file, cli_last_message());
        return CLI_FAILED;
    }
    if (report.outcome == WASMCACHE_HIT)
        cli_note("%s: hit, %s", program->file, cli_text_duration(text, report.total_ns));
    else
        cli_note("%s: compiled (%s), %s", program->file, wasmcache_reason_name(report.reason),
                 cli_text_duration(text, report.total_ns));
    if (request->invoke)
        status = engine->type->invoke(engine->native, wasmcache_module_native(module), program,
                                      request->invoke);
    else
        status = engine->type->run(engine->native, wasmcache_module_native(module), program);
    wasmcache_module_release(module);
    return status;
}

static int run_request(struct cli *cli, struct request *request)
{
    struct cli_engine engine = {0};
    wasmcache *cache = NULL;
    wasmcache_attachment *attachment = NULL;
    int status = CLI_OK;

    if (cli_engine_kind(request->program.file) == WASMCACHE_COMPONENT) {
        cli_error("cannot run %s: it is a component, and this tool runs modules; \"wasmcache "
                  "compile\" takes components too",
                  request->program.file);
        return CLI_FAILED;
    }
    status = cli_cache_open(cli, &cache, CLI_CACHE_MODULES);
    if (!status)
        status = check_dirs(cli, request, cache);
    if (!status)
        status = cli_engine_open(&engine, cli);
    if (!status)
        status = cli_engine_attach(&attachment, &engine, cache, cli);
    if (!status)
        status = run_module(cli, &engine, attachment, request);
    wasmcache_detach(attachment);
    cli_engine_close(&engine);
    wasmcache_close(cache);
    return status;
}

static int parse(struct cli *cli, struct request *request, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_run, argc, argv);
    const char *slash;
    int id, status = CLI_OK;

    scan.stop_at_operand = true;
    request->recompile = cli_environment_flag("WASMCACHE_RECACHE");
    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END && id != CLI_SCAN_OPERAND) {
        switch (id) {
        case OPTION_DIR:
            status = add_dir(request, scan.value);
            break;
        case OPTION_ENV:
            status = add_env(request, scan.value);
            break;
        case OPTION_INVOKE:
            request->invoke = scan.value;
            break;
        case OPTION_RECOMPILE:
            request->recompile = true;
            break;
        default:
            return scan.status ? scan.status : -1;
        }
        if (status)
            return status;
    }
    if (id == CLI_SCAN_END)
        return cli_usage(&cli_command_run, "which file? Name a WASI command");
    request->program.file = scan.value;
    slash = strrchr(scan.value, '/');
    request->program.argv[request->program.argc++] = slash ? slash + 1 : scan.value;
    while (scan.index < argc)
        request->program.argv[request->program.argc++] = argv[scan.index++];
    return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct request request = {0};
    size_t room = (size_t)argc + 1;
    int status = CLI_FAILED;

    request.dirs = calloc(room, sizeof(*request.dirs));
    request.names = calloc(room, sizeof(*request.names));
    request.values = calloc(room, sizeof(*request.values));
    request.program.argv = calloc(room, sizeof(*request.program.argv));
    if (!request.dirs || !request.names || !request.values || !request.program.argv) {
        cli_error("no memory");
    } else {
        request.program.dirs = request.dirs;
        request.program.env_names = request.names;
        request.program.env_values = request.values;
        status = parse(cli, &request, argc, argv);
        if (!status)
            status = run_request(cli, &request);
        else if (status < 0)
            status = CLI_OK; /* --help was answered */
        close_dirs(&request);
    }
    free(request.dirs);
    free(request.names);
    free(request.values);
    free(request.program.argv);
    return status;
}

const struct cli_command cli_command_run = {
    .name = "run",
    .operands = "FILE [ARG...]",
    .summary = "run a WASI command from the cache",
    .help = "The module is loaded from the cache, or else compiled and saved there, and run\n"
            "with the tool's standard input, output and error. It sees no file and no\n"
            "variable but those given here; options come before FILE, what follows it\n"
            "belongs to the program. A folder that reaches the cache is refused.\n\n"
            "The exit status is the program's; 1 if it traps, with its backtrace.",
    .examples = "wasmcache run solver.wasm --help\n"
                "wasmcache run --dir /srv/data::/data --env LANG app.wasm /data/in.txt\n"
                "wasmcache run --invoke add math.wasm 2 3",
    .options = options,
    .run = run,
};
