/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "engine_host.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
/* The engine registers unwind information with libgcc, of which only half is seen. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "mutex:libgcc_s.so";
}
#endif

void broken(const char *what, const char *about)
{
    fail_msg("%s: %s (%s)", what, about ? about : "", strerror(errno));
    abort();
}

uint8_t *real_module(const char *name, size_t *size)
{
    char path[1024];
    const char *dir = getenv("MODULES");
    snprintf(path, sizeof(path), "%s/%s.wasm", dir ? dir : "", name);
    return dir && scratch_exists(path) ? scratch_read(path, size) : NULL;
}

/* The programs of the tests lie beside us. */
static void program_path(char *out, size_t size, const char *name)
{
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    char *end;
    if (n <= 0)
        broken("readlink", "/proc/self/exe");
    out[n] = '\0';
    end = strrchr(out, '/') + 1;
    snprintf(end, size - (size_t)(end - out), "%s." ENGINE_NAME, name);
}

int run_program(char *out, size_t size, const char *name, ...)
{
    char path[1024], *argv[16];
    va_list arguments;
    int pipes[2], argc = 1;
    size_t length = 0;
    pid_t pid;

    program_path(path, sizeof(path), name);
    argv[0] = path;
    va_start(arguments, name);
    while ((argv[argc] = va_arg(arguments, char *)) != NULL)
        if (++argc == 16)
            broken("run_program", "too many arguments");
    va_end(arguments);
    if (pipe2(pipes, O_CLOEXEC) < 0)
        broken("pipe2", NULL);
    fflush(stdout);
    pid = fork();
    if (pid < 0)
        broken("fork", NULL);
    if (pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        execv(path, argv);
        _exit(127);
    }
    close(pipes[1]);
    for (;;) {
        char drop[256];
        int full = length + 1 >= size;
        ssize_t n =
            read(pipes[0], full ? drop : out + length, full ? sizeof(drop) : size - 1 - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        length += full ? 0 : (size_t)n;
    }
    out[length] = '\0';
    close(pipes[0]);
    return scratch_wait(pid);
}

/* ---- the host ---- */

/* Which functions were called how often. Names are string literals of the glue. */
static struct {
    _Atomic(const char *) name;
    atomic_uint count;
} called[64];

void host_count(const char *name)
{
    for (size_t i = 0; i < sizeof(called) / sizeof(called[0]); i++) {
        const char *here = atomic_load(&called[i].name);
        if (!here && atomic_compare_exchange_strong(&called[i].name, &here, name))
            here = name;
        if (strcmp(here, name) == 0) {
            atomic_fetch_add(&called[i].count, 1);
            return;
        }
    }
    broken("host_count", "too many names");
}

unsigned host_called(const char *name)
{
    for (size_t i = 0; i < sizeof(called) / sizeof(called[0]); i++) {
        const char *here = atomic_load(&called[i].name);
        if (here && strcmp(here, name) == 0)
            return atomic_load(&called[i].count);
    }
    return 0;
}

void host_forget(struct seen *seen)
{
    for (size_t i = 0; i < sizeof(called) / sizeof(called[0]); i++)
        atomic_store(&called[i].count, 0);
    for (size_t i = 0; seen && i < sizeof(seen->count) / sizeof(seen->count[0]); i++)
        atomic_store(&seen->count[i], 0);
}

unsigned host_loads(void)
{
    return host_called(ENGINE_LOAD_FILE) + host_called(ENGINE_LOAD) +
           host_called("wasmtime_component_deserialize_file") +
           host_called("wasmtime_component_deserialize");
}

unsigned host_compiles(unsigned saved)
{
    return host_called(ENGINE_COMPILE) - (ENGINE_RECHECKS ? saved : 0);
}

int host_loaded_best(void)
{
    return host_loads() == 1 && host_called(engine_maps() ? ENGINE_LOAD_FILE : ENGINE_LOAD) == 1;
}

static void on_event(const wasmcache_event *event, void *payload)
{
    struct seen *seen = payload;
    if ((size_t)event->type < sizeof(seen->count) / sizeof(seen->count[0]))
        atomic_fetch_add(&seen->count[event->type], 1);
}

void host_open_with(struct host *h, const wasmcache_options *options, wasm_engine_t *engine,
                    const char *settings)
{
    wasmcache_options o = *options;
    memset(h, 0, sizeof(*h));
    h->engine = engine;
    if (!h->engine)
        broken("no engine", NULL);
    o.on_event = on_event;
    o.payload = &h->seen;
    if (wasmcache_open(&h->cache, &o) < 0)
        broken("wasmcache_open", wasmcache_last_error()->message);
    h->wc = engine_attach(h->cache, h->engine, settings);
    if (!h->wc)
        broken("attach", wasmcache_last_error()->message);
    (void)host_namespace(h); /* the first use, which probes: what is counted below is without it */
    host_forget(&h->seen);
}

void host_open(struct host *h, const char *dir, unsigned flags)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = dir;
    options.flags = flags;
    host_open_with(h, &options, engine_new(), "");
}

void host_open_other(struct host *h, const char *dir)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    const char *settings;
    wasm_engine_t *engine = engine_new_other(&settings);
    options.dir = dir;
    host_open_with(h, &options, engine, settings);
}

void host_close(struct host *h)
{
    wasmcache_detach(h->wc);
    wasmcache_close(h->cache);
    wasm_engine_delete(h->engine);
}

const char *host_namespace(const struct host *h)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_attachment_status(h->wc, &info);
    return info.engine_namespace;
}

wasmcache_key key_of(const void *bytes, size_t size)
{
    wasmcache_key key;
    if (wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, bytes, size) < 0)
        broken("wasmcache_key_from_bytes", NULL);
    return key;
}

char *entry_path(struct scratch *s, const struct host *h, const void *wasm, size_t size)
{
    wasmcache_key key = key_of(wasm, size);
    char out[512];
    if (wasmcache_entry_path(out, sizeof(out), h->cache, host_namespace(h), &key) < 0)
        broken("wasmcache_entry_path", wasmcache_last_error()->message);
    return scratch_in(s, "%s", strstr(out, s->dir) + strlen(s->dir) + 1);
}

int get_bytes(engine_module **out, struct host *h, const void *wasm, size_t size,
              wasmcache_report *report)
{
    const wasmcache_report empty = WASMCACHE_REPORT_INIT;
    wasmcache_source source = wasmcache_source_bytes(wasm, size);
    void *native = NULL, *error = NULL;
    int rc;
    if (report)
        *report = empty;
    rc = wasmcache_get_native(&native, &error, h->wc, WASMCACHE_MODULE, &source, NULL, report);
    if (error)
        engine_table()->error_free(error);
    if (rc == 0)
        *out = native;
    return rc;
}
