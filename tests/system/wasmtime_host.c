/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "wasmtime_host.h"

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

/* Something that is no matter of the test went wrong. */
static void broken(const char *what, const char *about)
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
    snprintf(end, size - (size_t)(end - out), "%s", name);
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
    return host_called("wasmtime_module_deserialize_file") +
           host_called("wasmtime_module_deserialize") +
           host_called("wasmtime_component_deserialize_file") +
           host_called("wasmtime_component_deserialize");
}

static void on_event(const wasmcache_event *event, void *payload)
{
    struct seen *seen = payload;
    if ((size_t)event->type < sizeof(seen->count) / sizeof(seen->count[0]))
        atomic_fetch_add(&seen->count[event->type], 1);
}

wasm_config_t *host_config(void)
{
    wasm_config_t *config = wasm_config_new();
    wasmtime_config_parallel_compilation_set(config, false);
    return config;
}

void host_open_with(struct host *h, const wasmcache_options *options, wasm_config_t *config)
{
    wasmcache_options o = *options;
    memset(h, 0, sizeof(*h));
    h->engine = wasm_engine_new_with_config(config ? config : host_config());
    if (!h->engine)
        broken("wasm_engine_new_with_config", NULL);
    o.on_event = on_event;
    o.payload = &h->seen;
    if (wasmcache_open(&h->cache, &o) < 0)
        broken("wasmcache_open", wasmcache_last_error()->message);
    h->wc = wasmcache_wasmtime_attach(h->cache, h->engine, "");
    if (!h->wc)
        broken("wasmcache_wasmtime_attach", wasmcache_last_error()->message);
    (void)host_namespace(h); /* the first use, which probes: what is counted below is without it */
    host_forget(&h->seen);
}

void host_open(struct host *h, const char *dir, wasm_config_t *config, unsigned flags)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = dir;
    options.flags = flags;
    host_open_with(h, &options, config);
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

int get_bytes(wasmtime_module_t **out, struct host *h, const void *wasm, size_t size,
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
        wasmtime_error_delete(error);
    if (rc == 0)
        *out = native;
    return rc;
}

char *error_text(char *out, size_t size, wasmtime_error_t *error)
{
    wasm_name_t text = {0, NULL};
    char *backtrace;
    if (error)
        wasmtime_error_message(error, &text);
    snprintf(out, size, "%.*s", (int)text.size, text.size ? text.data : "");
    backtrace = strstr(out, "\nStack backtrace:");
    if (backtrace)
        *backtrace = '\0';
    wasm_byte_vec_delete(&text);
    if (error)
        wasmtime_error_delete(error);
    return out;
}

static void must_not_fail(const char *what, wasmtime_error_t *error, wasm_trap_t *trap)
{
    char text[512];
    if (trap)
        broken(what, "trap");
    if (error)
        broken(what, error_text(text, sizeof(text), error));
}

int32_t call_export(wasm_engine_t *engine, wasmtime_module_t *module, const char *name,
                    const int32_t *arguments, size_t count)
{
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_linker_t *linker = wasmtime_linker_new(engine);
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasmtime_val_t values[4], result;
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;

    if (count > 4)
        broken("call_export", "too many arguments");
    /* For engines that count fuel or epochs; others refuse, which is nobody's problem. */
    error = wasmtime_context_set_fuel(context, 1000000);
    if (error)
        wasmtime_error_delete(error);
    wasmtime_context_set_epoch_deadline(context, 1);
    error = wasmtime_linker_define_unknown_imports_as_default_values(linker, context, module);
    must_not_fail("define_unknown_imports", error, NULL);
    error = wasmtime_linker_instantiate(linker, context, module, &instance, &trap);
    must_not_fail("instantiate", error, trap);
    if (!wasmtime_instance_export_get(context, &instance, name, strlen(name), &item) ||
        item.kind != WASMTIME_EXTERN_FUNC)
        broken("there is no such function", name);
    for (size_t i = 0; i < count; i++) {
        values[i].kind = WASMTIME_I32;
        values[i].of.i32 = arguments[i];
    }
    error = wasmtime_func_call(context, &item.of.func, values, count, &result, 1, &trap);
    must_not_fail(name, error, trap);
    if (result.kind != WASMTIME_I32)
        broken("result is no i32", name);
    wasmtime_linker_delete(linker);
    wasmtime_store_delete(store);
    return result.of.i32;
}
