/* SPDX-License-Identifier: Apache-2.0 */
/*
 * async_uv DIR FILE.wasm...: a host on libuv that loads ten modules and goes on meanwhile.
 *
 * The work is done by libuv's own pool (uv_queue_work), and libuv is told with uv_async_send when
 * there is something to dispatch: no thread and no descriptor of the library's is used. A timer of
 * 1 ms stands for everything else that the loop has to do: what is printed at the end is how long
 * it ever had to wait. With fewer than ten files, they are taken again with a custom section behind
 * them, which makes other modules of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include <wasmcache_async.h>
#include <wasmcache_wasmtime.h>

enum { MODULES = 10 };

/* ---- libuv as executor: what a host takes over ---- */

struct work {
    uv_work_t request;
    void (*work)(void *argument);
    void *argument;
};

static void do_work(uv_work_t *request)
{
    struct work *w = (struct work *)request;
    w->work(w->argument);
}

static void free_work(uv_work_t *request, int status)
{
    (void)status; /* never cancelled: each has to be run */
    free(request);
}

/* On the loop's thread, as libuv wants it: all requests are started there. */
static int submit(void (*work)(void *argument), void *argument, void *payload)
{
    uv_async_t *async = payload;
    struct work *w = malloc(sizeof(*w));
    if (!w)
        return -1;
    w->work = work;
    w->argument = argument;
    if (uv_queue_work(async->loop, &w->request, do_work, free_work) == 0)
        return 0;
    free(w);
    return -1;
}

static void wake(void *payload)
{
    uv_async_send(payload);
}

static void dispatch(uv_async_t *async)
{
    wasmcache_executor_dispatch(async->data);
}

/* ---- what it is for ---- */

static unsigned waiting, hits, failures, ticks;
static double last_tick, longest_pause; /* ms */

struct module {
    const char *name;
    uint8_t *wasm; /* the library's until the callback */
    size_t size;
};

/* The file and, if `variation` is not 0, a custom section of that name. */
static int read_module(struct module *m, const char *path, int variation)
{
    const uint8_t section[4] = {0, 2, 1, (uint8_t)('0' + variation)};
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    m->name = path;
    m->wasm = size >= 0 ? malloc((size_t)size + sizeof(section)) : NULL;
    m->size = (size_t)size;
    if (m->wasm) {
        rewind(file);
        if (fread(m->wasm, 1, m->size, file) != m->size)
            m->size = 0;
        if (variation) {
            memcpy(m->wasm + m->size, section, sizeof(section));
            m->size += sizeof(section);
        }
    }
    if (file)
        fclose(file);
    return m->wasm != NULL;
}

/* Called by wasmcache_executor_dispatch(), on the loop's thread. */
static void loaded(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    struct module *m = payload;
    (void)request;
    waiting--;
    free(m->wasm);
    if (result->error) {
        failures++;
        printf("%s: %s\n", m->name, result->detail->message);
        return;
    }
    hits += result->report->outcome == WASMCACHE_HIT;
    printf("%-8s %9.3f ms  %s\n", wasmcache_outcome_name(result->report->outcome),
           (double)result->report->total_ns / 1e6, m->name);
    /* A host keeps it; wasmcache_module_native() gives the wasmtime_module_t to instantiate. */
    wasmcache_module_release(result->module);
}

/* Every millisecond, if the loop is free. Ends it when all modules are there. */
static void tick(uv_timer_t *timer)
{
    const double now = (double)uv_hrtime() / 1e6;
    longest_pause = now - last_tick > longest_pause ? now - last_tick : longest_pause;
    last_tick = now;
    ticks++;
    if (!waiting) {
        uv_timer_stop(timer);
        uv_close((uv_handle_t *)timer, NULL);
        uv_stop(timer->loop);
    }
}

static void start(wasmcache_executor *executor, wasmcache_attachment *wc, struct module *m)
{
    const wasmcache_source source = wasmcache_source_bytes(m->wasm, m->size);
    waiting++;
    if (wasmcache_request_get(NULL, executor, wc, WASMCACHE_MODULE, &source, NULL, loaded, m)) {
        fprintf(stderr, "async_uv: %s\n", wasmcache_last_error()->message);
        free(m->wasm);
        waiting--;
        failures++;
    }
}

int main(int argc, char **argv)
{
    struct module modules[MODULES];
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_executor_options pool = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor;
    wasmcache *cache;
    uv_loop_t *loop = uv_default_loop();
    uv_async_t async;
    uv_timer_t timer;

    if (argc < 3) {
        fprintf(stderr, "usage: async_uv DIR FILE.wasm...\n");
        return 2;
    }
    options.dir = argv[1];
    wasmcache_open(&cache, &options);
    pool.submit = submit;
    pool.wake = wake;
    pool.payload = &async;
    if (wasmcache_executor_new(&executor, &pool)) {
        fprintf(stderr, "async_uv: %s\n", wasmcache_last_error()->message);
        return 1;
    }
    for (int i = 0; i < MODULES; i++)
        if (!read_module(&modules[i], argv[2 + i % (argc - 2)], i / (argc - 2))) {
            perror(modules[i].name);
            failures++;
        }
    wasm_engine_t *engine = wasm_engine_new();
    wasmcache_attachment *wc = wasmcache_wasmtime_attach(cache, engine, NULL);

    uv_async_init(loop, &async, dispatch);
    async.data = executor;
    uv_timer_init(loop, &timer);
    uv_update_time(loop);
    uv_timer_start(&timer, tick, 1, 1);
    last_tick = (double)uv_hrtime() / 1e6;
    for (int i = 0; i < MODULES; i++)
        if (modules[i].wasm)
            start(executor, wc, &modules[i]);
    uv_run(loop, UV_RUN_DEFAULT);
    printf("%d modules: %u hit, %u failed; %u ticks of 1 ms, longest pause %.1f ms\n", MODULES,
           hits, failures, ticks, longest_pause);

    wasmcache_executor_free(executor); /* nothing runs, and nobody wakes, any more */
    uv_close((uv_handle_t *)&async, NULL);
    uv_run(loop, UV_RUN_DEFAULT); /* what is left of the handles */
    uv_loop_close(loop);
    wasmcache_detach(wc);
    wasm_engine_delete(engine);
    wasmcache_close(cache);
    return failures != 0;
}
