/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include "engine.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "cache.h"
#include "output.h"

const struct cli_engine_type *const cli_engine_types[] = {
#ifdef CLI_HAS_WASMTIME
    &cli_engine_wasmtime,
#endif
#ifdef CLI_HAS_WASMER
    &cli_engine_wasmer,
#endif
    NULL};

enum { PATH_ROOM = 4096 };

static void *load(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static const char *load_error(void)
{
    const char *error = dlerror();

    return error ? error : "unknown error";
}

/* Which engine a library is, by a function that only that engine has. */
static const struct cli_engine_type *recognize(void *library)
{
    const struct cli_engine_type *const *type = cli_engine_types;

    while (*type && !dlsym(library, (*type)->marker))
        type++;
    return *type;
}

static int start(struct cli_engine *out, const struct cli_engine_type *type, void *library,
                 const char *path)
{
    int status = type->load(library, path);
    void *marker = dlsym(library, type->marker);
    Dl_info info;

    if (status)
        return status;
    cli_note("engine: %s of %s", type->title, path);
    out->type = type;
    out->path = marker && dladdr(marker, &info) && info.dli_fname ? info.dli_fname : path;
    out->native = type->create();
    if (!out->native) {
        cli_error("cannot make an engine with %s", path);
        return CLI_FAILED;
    }
    return CLI_OK;
}

static int open_path(struct cli_engine *out, const char *path, const char *from)
{
    const struct cli_engine_type *type;
    void *library;

    if (getauxval(AT_SECURE)) {
        cli_error("cannot load the engine that %s names: the tool runs with more rights than its "
                  "caller, who may not choose what code it runs",
                  from);
        return CLI_FAILED;
    }
    library = load(path);
    if (!library) {
        cli_error("cannot load the engine that %s names: %s", from, load_error());
        return CLI_FAILED;
    }
    type = recognize(library);
    if (!type) {
        cli_error("cannot use %s: it is no engine that this tool was built with (" CLI_ENGINE_NAMES
                  ")",
                  path);
        return CLI_FAILED;
    }
    return start(out, type, library, path);
}

static int open_type(struct cli_engine *out, const struct cli_engine_type *type)
{
    const char *root = cli_environment(type->root);
    char path[PATH_ROOM];
    char first[PATH_ROOM + 256] = "";
    void *library;

    /* Who names a place wants that one and no other. */
    if (root) {
        if (snprintf(path, sizeof(path), "%s/lib/%s", root, type->library) >= PATH_ROOM) {
            cli_error("cannot load %s: $%s is too long", type->title, type->root);
            return CLI_FAILED;
        }
        library = load(path);
        if (library)
            return start(out, type, library, path);
        cli_error("cannot load %s: %s; $%s is to be a folder with lib/%s in it", type->title,
                  load_error(), type->root, type->library);
        return CLI_FAILED;
    }
    if (type->default_path && *type->default_path) {
        library = load(type->default_path);
        if (library)
            return start(out, type, library, type->default_path);
        snprintf(first, sizeof(first), "%s; ", load_error());
    }
    library = load(type->library);
    if (library)
        return start(out, type, library, type->library);
    cli_error("cannot load %s: %s%s; name the library with --engine PATH, or its folder with $%s",
              type->title, first, load_error(), type->root);
    return CLI_FAILED;
}

int cli_engine_open(struct cli_engine *out, const struct cli *cli)
{
    const char *name = cli->config->values[CLI_ENGINE].text;
    const struct cli_engine_type *const *type;
    char from[PATH_ROOM];

    memset(out, 0, sizeof(*out));
    if (strchr(name, '/'))
        return open_path(out, name, cli_config_origin(from, sizeof(from), cli->config, CLI_ENGINE));
    for (type = cli_engine_types; *type; type++)
        if (!strcmp(name, (*type)->name))
            return open_type(out, *type);
    return CLI_USAGE; /* cli_config_load() lets no other name through */
}

int cli_engine_open_type(struct cli_engine *out, const struct cli_engine_type *type)
{
    memset(out, 0, sizeof(*out));
    return open_type(out, type);
}

int cli_engine_attach(wasmcache_attachment **out, const struct cli_engine *engine, wasmcache *cache,
                      const struct cli *cli)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    const struct cli_setting_value *values = cli->config->values;
    char from[PATH_ROOM];

    options.settings = values[CLI_ENGINE_SETTINGS].text;
    options.engine_id = values[CLI_ENGINE_ID].text;
    *out = engine->type->attach(cache, engine->native, &options);
    if (!*out) {
        bool misuse = wasmcache_last_error()->error == WASMCACHE_EMISUSE;

        /* Nothing else of what is given here can be wrong. */
        if (misuse && options.engine_id)
            cli_error("%s: \"%s\" is no engine id, which is up to 128 letters, digits and "
                      ". _ + -, begins with a letter or a digit, and has no \"..\"",
                      cli_config_origin(from, sizeof(from), cli->config, CLI_ENGINE_ID),
                      options.engine_id);
        else
            cli_error("cannot attach %s to the cache: %s", engine->type->title, cli_last_message());
        return misuse ? CLI_USAGE : CLI_FAILED;
    }
    if (cache && !wasmcache_attachment_status(*out, &info) && info.error)
        cli_warn("%s runs uncached: %s", engine->type->title, info.message);
    return CLI_OK;
}

void cli_engine_close(struct cli_engine *engine)
{
    if (engine->native)
        engine->type->destroy(engine->native);
    engine->native = NULL;
}

wasmcache_kind cli_engine_kind(const char *path)
{
    static const unsigned char component[8] = {0x00, 'a', 's', 'm', 0x0d, 0x00, 0x01, 0x00};
    unsigned char preamble[8];
    /* Not to wait for a writer if it is a FIFO. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t got;

    if (fd < 0)
        return WASMCACHE_MODULE;
    got = pread(fd, preamble, sizeof(preamble), 0);
    close(fd);
    return got == 8 && !memcmp(preamble, component, 8) ? WASMCACHE_COMPONENT : WASMCACHE_MODULE;
}
