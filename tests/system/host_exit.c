/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that ends in the middle of requests. It loads the library itself, so that it can unload it
 * as well; the engine it links.
 *
 *     host_exit LIBRARY DIR HOW MICROSECONDS    HOW: exit, _exit, return, dlclose, destructor,
 * thread
 *
 * MICROSECONDS after it started its requests it ends as HOW says: by exit() or _exit() or return
 * from main; "dlclose" unloads the library then and goes on for a while; with "destructor" the
 * process takes 50 ms in a destructor of its own, and with "thread" another thread exits. Its
 * status is then 0, and only then. "load" starts requests and lets them end; status 0 if all did.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "support/wasm_modules.h"
#include "wasmcache_async.h"
#include "wasmcache_wasmtime.h"

enum { MODULES = 6, LARGE = 8 << 20, ROOM = 8192 };

/* The functions of the library, by name: nothing here is linked to it. */
#define FUNCTIONS(F)                                                                               \
    F(wasmcache_open)                                                                              \
    F(wasmcache_attach)                                                                            \
    F(wasmcache_executor_new)                                                                      \
    F(wasmcache_executor_fd)                                                                       \
    F(wasmcache_executor_dispatch)                                                                 \
    F(wasmcache_executor_wait)                                                                     \
    F(wasmcache_executor_free)                                                                     \
    F(wasmcache_request_get)                                                                       \
    F(wasmcache_module_release)                                                                    \
    F(wasmcache_detach)                                                                            \
    F(wasmcache_close)
static struct {
#define MEMBER(name) __typeof__(&name) name;
    FUNCTIONS(MEMBER)
} api;

static int load_library(void *library)
{
    int found = 1;
#define LOOK_UP(name)                                                                              \
    {                                                                                              \
        void *address = dlsym(library, #name);                                                     \
        memcpy(&api.name, &address, sizeof(address));                                              \
        found &= address != NULL;                                                                  \
    }
    FUNCTIONS(LOOK_UP)
    return found;
}

static void pause_for(long microseconds)
{
    struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&t, NULL);
}

static int slow_end;

__attribute__((destructor)) static void take_50_ms(void)
{
    if (slow_end)
        pause_for(50000);
}

static unsigned answers;

static void answer(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    (void)request;
    (void)payload;
    answers += result->error == 0 || result->error == WASMCACHE_EENGINE;
    api.wasmcache_module_release(result->module);
}

static void *exit_here(void *unused)
{
    (void)unused;
    exit(0);
}

static int start(wasmcache_executor *executor, wasmcache_attachment *wc)
{
    static uint8_t wasm[MODULES][WASM_WORK_ROOM(ROOM / 32)];
    uint8_t *large = calloc(1, LARGE);
    if (!large)
        return 0;
    /* No module at all: the engine refuses it at once, when it was hashed. */
    for (int i = 0; i < 2; i++) {
        const wasmcache_source source = wasmcache_source_bytes(large + i, LARGE - 1);
        if (api.wasmcache_request_get(NULL, executor, wc, WASMCACHE_MODULE, &source, NULL, answer,
                                      NULL))
            return 0;
        large[LARGE / 2] = 1;
    }
    for (int i = 0; i < MODULES; i++) {
        const size_t size = wasm_work(wasm[i], i, 40);
        const wasmcache_source source = wasmcache_source_bytes(wasm[i], size);
        if (api.wasmcache_request_get(NULL, executor, wc, WASMCACHE_MODULE, &source, NULL, answer,
                                      NULL))
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_executor_options pool = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    void *library = argc == 5 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    wasm_engine_t *engine = wasm_engine_new();
    wasmcache *cache = NULL;
    wasmcache_attachment *wc = NULL;
    wasmcache_executor *executor = NULL;
    const char *how;
    pthread_t thread;

    if (!library || !load_library(library) || !engine) {
        fprintf(stderr, "host_exit: %s\n", library ? "symbols are missing" : dlerror());
        return 2;
    }
    how = argv[3];
    options.dir = argv[2];
    attach.compiler = "cranelift";
    attach.engine_version = WASMTIME_VERSION;
    attach.artifact_version = WASMTIME_VERSION_MAJOR;
    pool.threads = 3;
    if (api.wasmcache_open(&cache, &options) ||
        api.wasmcache_attach(&wc, cache, wasmcache_wasmtime_table(), engine, &attach) ||
        api.wasmcache_executor_new(&executor, &pool) || !start(executor, wc))
        return 3;
    if (strcmp(how, "load") == 0) {
        while (api.wasmcache_executor_wait(executor, 60000) == 1)
            api.wasmcache_executor_dispatch(executor);
        api.wasmcache_executor_free(executor);
        api.wasmcache_detach(wc);
        api.wasmcache_close(cache);
        wasm_engine_delete(engine);
        return answers == MODULES + 2 ? 0 : 4;
    }
    pause_for(strtol(argv[4], NULL, 10));
    if (strcmp(how, "exit") == 0)
        exit(0);
    if (strcmp(how, "_exit") == 0)
        _exit(0);
    if (strcmp(how, "destructor") == 0)
        slow_end = 1;
    if (strcmp(how, "thread") == 0) {
        if (pthread_create(&thread, NULL, exit_here, NULL))
            return 5;
        for (;;)
            api.wasmcache_executor_dispatch(executor);
    }
    if (strcmp(how, "dlclose") == 0) {
        dlclose(library);
        pause_for(5000);
    }
    return 0;
}
