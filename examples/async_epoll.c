/* SPDX-License-Identifier: Apache-2.0 */
/*
 * async_epoll DIR FILE.wasm...: a server's loop that loads ten modules and goes on meanwhile.
 *
 * The library's own threads do the work; the loop watches one descriptor more, and dispatches when
 * it is readable. A timer of 1 ms stands for everything else that such a loop has to do: what is
 * printed at the end is how long it ever had to wait. With fewer than ten files, they are taken
 * again with a custom section behind them, which makes other modules of them.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <wasmcache_async.h>
#include <wasmcache_wasmtime.h>

enum { MODULES = 10 };

static unsigned waiting, hits, failures;

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
    /* A server keeps it; wasmcache_module_native() gives the wasmtime_module_t to instantiate. */
    wasmcache_module_release(result->module);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        perror("async_epoll: epoll_ctl");
}

static void start(wasmcache_executor *executor, wasmcache_attachment *wc, struct module *m)
{
    const wasmcache_source source = wasmcache_source_bytes(m->wasm, m->size);
    waiting++;
    if (wasmcache_request_get(NULL, executor, wc, WASMCACHE_MODULE, &source, NULL, loaded, m)) {
        fprintf(stderr, "async_epoll: %s\n", wasmcache_last_error()->message);
        free(m->wasm);
        waiting--;
        failures++;
    }
}

/* The loop: until all modules are there, and the timer came at least once. */
static void run(wasmcache_executor *executor, wasmcache_attachment *wc, struct module *modules)
{
    const struct itimerspec every_ms = {{0, 1000000}, {0, 1000000}};
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const int finished = wasmcache_executor_fd(executor);
    double last = now_ms(), longest = 0;
    unsigned ticks = 0;

    timerfd_settime(timer, 0, &every_ms, NULL);
    watch(epoll, timer);
    watch(epoll, finished);
    for (int i = 0; i < MODULES; i++)
        if (modules[i].wasm)
            start(executor, wc, &modules[i]);
    while (waiting || !ticks) {
        struct epoll_event event;
        uint64_t expirations;
        if (epoll_wait(epoll, &event, 1, -1) != 1)
            continue;
        if (event.data.fd == finished) {
            wasmcache_executor_dispatch(executor);
        } else if (read(timer, &expirations, sizeof(expirations)) == sizeof(expirations)) {
            const double now = now_ms();
            longest = now - last > longest ? now - last : longest;
            last = now;
            ticks++;
        }
    }
    close(timer);
    close(epoll);
    printf("%d modules: %u hit, %u failed; %u ticks of 1 ms, longest pause %.1f ms\n", MODULES,
           hits, failures, ticks, longest);
}

int main(int argc, char **argv)
{
    struct module modules[MODULES];
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_executor *executor;
    wasmcache *cache;

    if (argc < 3) {
        fprintf(stderr, "usage: async_epoll DIR FILE.wasm...\n");
        return 2;
    }
    options.dir = argv[1];
    wasmcache_open(&cache, &options);
    if (wasmcache_executor_new(&executor, NULL)) {
        fprintf(stderr, "async_epoll: %s\n", wasmcache_last_error()->message);
        return 1;
    }
    for (int i = 0; i < MODULES; i++)
        if (!read_module(&modules[i], argv[2 + i % (argc - 2)], i / (argc - 2))) {
            perror(modules[i].name);
            failures++;
        }
    wasm_engine_t *engine = wasm_engine_new();
    wasmcache_attachment *wc = wasmcache_wasmtime_attach(cache, engine, NULL);

    run(executor, wc, modules);

    wasmcache_executor_free(executor); /* first: nothing runs any more */
    wasmcache_detach(wc);
    wasm_engine_delete(engine);
    wasmcache_close(cache);
    return failures != 0;
}
