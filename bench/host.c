/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-ENGINE WORD...: measures inside a process; bench.py calls it, and prints and judges.
 *
 *     make DIR WASM                    compiles, and makes the folder of a rig (host.h)
 *     many DIR WASM COUNT              adds COUNT entries of the same module, each named otherwise
 *     warm DIR WASM ROUNDS WAY...      in each round each way once, in turn
 *     new DIR WASM WAY                 one module, from main on
 *     sealed DIR WASM PATH|DIGEST      the same from a sealed cache, by path or SHA-256
 *     miss DIR WASM WAY                one get in the folder DIR, which is empty
 *     publish DIR FILE ROUNDS          the bytes of FILE saved, and written with write(2), in turn
 *     rate DIR WASM WAY THREADS PROCESSES MS COUNT
 *                                      modules a second; COUNT over 1: of `many`
 *     turns DIR WASM WAY WAY THREADS MS PAIRS
 *                                      the same of two ways, by the same threads in turn
 *     hold DIR WASM WAY                one module, until the standard input ends
 *
 * Prints one JSON object; times are nanoseconds. Modules are deleted outside of what is timed, but
 * in `rate`.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <wasmcache_async.h>

#include "host.h"

enum { MAX_WAYS = 16, MAX_ROUNDS = 10000, MAX_THREADS = 256 };

static unsigned number(const char *text, unsigned max)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end || !*text || n < 1 || n > max)
        die("\"%s\" is no number from 1 to %u", text, max);
    return (unsigned)n;
}

static void print_list(const char *name, const uint64_t *ns, unsigned count)
{
    printf("\"%s\":[", name);
    for (unsigned i = 0; i < count; i++)
        printf("%s%" PRIu64, i ? "," : "", ns[i]);
    putchar(']');
}

static void *compile(const struct rig *rig, void *engine, struct bytes wasm)
{
    void *module = NULL, *error = NULL;
    char text[512];
    if (rig->table->compile(engine, WASMCACHE_MODULE, wasm.data, wasm.size, &module, &error) == 0)
        return module;
    rig->table->error_message(error, text, sizeof(text));
    die("compile: %s", text);
}

static wasmcache_artifact serialize(const struct rig *rig, void *module)
{
    wasmcache_artifact artifact = {NULL, 0, {NULL, NULL, NULL}};
    void *error = NULL;
    if (rig->table->serialize(rig->engine, WASMCACHE_MODULE, module, &artifact, &error))
        die("serialize failed");
    return artifact;
}

static void write_artifact(const struct rig *rig, const char *path, wasmcache_artifact *artifact)
{
    struct bytes bytes = {(uint8_t *)(uintptr_t)artifact->data, artifact->size};
    write_file(path, bytes);
    rig->table->artifact_free(artifact);
}

/* Another name for our entry of that key. */
static void link_entry(const struct rig *rig, const wasmcache_key *key, const char *path)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    char entry[2048];
    if (wasmcache_attachment_status(rig->once.wc, &info) ||
        wasmcache_entry_path(entry, sizeof(entry), rig->once.cache, info.engine_namespace, key))
        die("%s", wasmcache_last_error()->message);
    if (link(entry, path))
        die("link %s: %s", path, strerror(errno));
}

/* The configuration of the engine's own cache, with nothing in it but where it is: the defaults. */
static void make_own_cache(const struct rig *rig)
{
    char text[2048];
    struct bytes bytes = {(uint8_t *)text, 0};
    int n = snprintf(text, sizeof(text), "[cache]\ndirectory = \"%s\"\n", rig->own_dir);
    if (n < 0 || (size_t)n >= sizeof(text) || mkdir(rig->own_dir, 0700) < 0)
        die("%s: %s", rig->own_dir, strerror(errno));
    bytes.size = (size_t)n;
    write_file(rig->own_config, bytes);
}

static int do_make(char **words, int count)
{
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_artifact artifact;
    wasmcache_key key;
    struct rig rig;
    uint64_t started, compiled, size;
    void *module;
    (void)count;

    rig_paths(&rig, words[0], words[1]);
    if (bench_engine.engine_with_cache)
        make_own_cache(&rig);
    rig_open(&rig, words[0], words[1]);
    started = now_ns();
    module = compile(&rig, rig.engine, rig.wasm);
    compiled = now_ns() - started;
    artifact = serialize(&rig, module);
    size = artifact.size;
    write_artifact(&rig, rig.artifact, &artifact);
    options.compile_ns = compiled;
    options.wasm_bytes = rig.wasm.size;
    if (wasmcache_key_from_digest(&key, WASMCACHE_KEY_SHA256, rig.sha256, sizeof(rig.sha256)) ||
        wasmcache_save(rig.once.wc, WASMCACHE_MODULE, &key, module, &options, NULL))
        die("save: %s", wasmcache_last_error()->message);
    link_entry(&rig, &key, rig.entry);
    module_free(&rig, module);
    if (rig.with_cache)
        module_free(&rig, compile(&rig, rig.with_cache, rig.wasm));
    printf("{\"compile\":%" PRIu64 ",\"artifact\":%" PRIu64 ",\"maps\":%d}\n", compiled, size,
           rig.table->deserialize_file != NULL);
    rig_close(&rig);
    return 0;
}

/* ---- one entry among many of the same module ---- */

static void many_key(wasmcache_key *key, unsigned i)
{
    uint8_t digest[32] = {'m', 'a', 'n', 'y', (uint8_t)i, (uint8_t)(i >> 8)};
    if (wasmcache_key_from_digest(key, WASMCACHE_KEY_SHA256, digest, sizeof(digest)))
        die("%s", wasmcache_last_error()->message);
}

static void many_path(char *out, size_t size, const struct rig *rig, unsigned i)
{
    int n = snprintf(out, size, "%s.%u", rig->entry, i);
    if (n < 0 || (size_t)n >= size)
        die("%s: the path is too long", rig->entry);
}

static int do_many(char **words, int count)
{
    const unsigned many = number(words[2], 10000);
    struct rig rig;
    void *module;
    (void)count;

    rig_open(&rig, words[0], words[1]);
    module = way_load(way_find("map"), &rig);
    for (unsigned i = 0; i < many; i++) {
        wasmcache_key key;
        char path[1100];
        many_key(&key, i);
        many_path(path, sizeof(path), &rig, i);
        if (wasmcache_save(rig.once.wc, WASMCACHE_MODULE, &key, module, NULL, NULL))
            die("save: %s", wasmcache_last_error()->message);
        link_entry(&rig, &key, path);
    }
    module_free(&rig, module);
    rig_close(&rig);
    puts("{}");
    return 0;
}

/* ---- in a process that has done it before ---- */

static int do_warm(char **words, int count)
{
    static uint64_t ns[MAX_WAYS][MAX_ROUNDS];
    const struct way *list[MAX_WAYS];
    const unsigned rounds = number(words[2], MAX_ROUNDS);
    const unsigned ways = (unsigned)count - 3;
    struct rig rig;

    if (ways > MAX_WAYS)
        die("too many ways");
    for (unsigned w = 0; w < ways; w++)
        list[w] = way_find(words[3 + w]);
    rig_open(&rig, words[0], words[1]);
    /* What is found out once: pages, symbols, hints. */
    for (unsigned w = 0; w < ways; w++)
        for (unsigned i = 0; i < 2; i++)
            module_free(&rig, way_load(list[w], &rig));
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned w = 0; w < ways; w++) {
            /* Each way follows each other one equally often. */
            const unsigned which = i % 2 ? (ways - 1 - w + i / 2) % ways : (w + i / 2) % ways;
            const uint64_t started = now_ns();
            void *module = way_load(list[which], &rig);
            ns[which][i] = now_ns() - started;
            module_free(&rig, module);
        }
    }
    putchar('{');
    for (unsigned w = 0; w < ways; w++) {
        if (w)
            putchar(',');
        print_list(list[w]->name, ns[w], rounds);
    }
    puts("}");
    rig_close(&rig);
    return 0;
}

/* ---- a new process ---- */

static uint64_t main_ns;

/* Only what this way needs. Reading the wasm is what a caller did before who hands it over as
 * bytes. */
static int do_new(char **words, int count)
{
    const struct way *way = way_find(words[2]);
    const int ours = strncmp(way->name, "ours", 4) == 0, own = strcmp(way->name, "own") == 0;
    uint64_t given = now_ns(), engine, opened, loaded;
    struct rig rig;
    void *module;
    (void)count;

    rig_paths(&rig, words[0], words[1]);
    if (own || strcmp(way->name, "ours-bytes") == 0 || strcmp(way->name, "ours-digest") == 0) {
        wasmcache_key key;
        rig.wasm = read_file(words[1]);
        if (strcmp(way->name, "ours-digest") == 0) {
            wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, rig.wasm.data, rig.wasm.size);
            memcpy(rig.sha256, key.bytes, sizeof(rig.sha256));
        }
    }
    given = now_ns() - given;
    if (own)
        rig.with_cache = bench_engine.engine_with_cache(rig.own_config);
    else
        rig.engine = bench_engine.engine_new();
    engine = now_ns();
    if (ours)
        attached_open(strcmp(way->name, "ours-checked") == 0 ? &rig.always : &rig.once, &rig,
                      strcmp(way->name, "ours-checked") == 0 ? WASMCACHE_VERIFY_ALWAYS
                                                             : WASMCACHE_VERIFY_ONCE,
                      0, "bench");
    opened = now_ns();
    module = way_load(way, &rig);
    loaded = now_ns();
    printf("{\"main\":%" PRIu64 ",\"engine\":%" PRIu64 ",\"open\":%" PRIu64 ",\"load\":%" PRIu64
           "}\n",
           loaded - main_ns - given, engine - main_ns - given, opened - engine, loaded - opened);
    module_free(&rig, module);
    return 0;
}

/* A container's first start: nothing was hashed or checked here before, and nothing can be written.
 */
static int do_sealed(char **words, int count)
{
    const int by_path = strcmp(words[2], "path") == 0;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_source source;
    uint8_t digest[32];
    wasmcache_key key;
    struct rig rig;
    void *module = NULL, *error = NULL;
    int rc;
    (void)count;

    rig_paths(&rig, words[0], words[1]);
    if (by_path) {
        source = wasmcache_source_path(words[1]);
    } else {
        if (wasmcache_key_from_hex(&key, words[2]))
            die("%s", wasmcache_last_error()->message);
        memcpy(digest, key.bytes, sizeof(digest));
        source = wasmcache_source_sha256(digest, NULL, NULL);
    }
    rig.engine = bench_engine.engine_new();
    attached_open(&rig.once, &rig, WASMCACHE_VERIFY_ONCE, WASMCACHE_READ_ONLY | WASMCACHE_SEALED,
                  "bench");
    rc = wasmcache_get_native(&module, &error, rig.once.wc, WASMCACHE_MODULE, &source, NULL,
                              &report);
    printf("{\"main\":%" PRIu64 ",\"key\":%" PRIu64 ",\"load\":%" PRIu64 "}\n", now_ns() - main_ns,
           report.key_ns, report.load_ns);
    if (rc || report.outcome != WASMCACHE_HIT)
        die("not a hit: %s", wasmcache_reason_name(report.reason));
    module_free(&rig, module);
    return 0;
}

/* ---- a miss ---- */

static int miss_ours(struct rig *rig, const char *dir)
{
    const wasmcache_source source = wasmcache_source_bytes(rig->wasm.data, rig->wasm.size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    void *module = NULL, *error = NULL;
    uint64_t synced;
    int rc = wasmcache_get_native(&module, &error, rig->once.wc, WASMCACHE_MODULE, &source, NULL,
                                  &report);
    const uint64_t returned = now_ns();
    if (rc || report.outcome != WASMCACHE_COMPILED || report.save_error)
        die("not compiled and saved: %s", wasmcache_outcome_name(report.outcome));
    sync_below(dir);
    synced = now_ns() - returned;
    printf("{\"total\":%" PRIu64 ",\"compile\":%" PRIu64 ",\"save\":%" PRIu64 ",\"key\":%" PRIu64
           ",\"look\":%" PRIu64 ",\"on_disk\":%" PRIu64 "}\n",
           report.total_ns, report.compile_ns, report.save_ns, report.key_ns, report.load_ns,
           report.save_ns + synced);
    return 0;
}

/* The same, but it is saved on a thread after the get has returned. */
static int miss_later(struct rig *rig, const char *dir)
{
    const wasmcache_source source = wasmcache_source_bytes(rig->wasm.data, rig->wasm.size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_executor *executor;
    wasmcache_attachment *wc;
    wasmcache *cache;
    void *module = NULL, *error = NULL;
    uint64_t returned, saved;
    int rc;

    options.dir = rig->cache_dir;
    if (wasmcache_executor_new(&executor, NULL))
        die("%s", wasmcache_last_error()->message);
    options.save_executor = executor;
    if (wasmcache_open(&cache, &options))
        die("%s", wasmcache_last_error()->message);
    wc = bench_engine.attach(cache, rig->engine, "bench");
    rc = wasmcache_get_native(&module, &error, wc, WASMCACHE_MODULE, &source, NULL, &report);
    returned = now_ns();
    if (rc || report.outcome != WASMCACHE_COMPILED || !report.save_later)
        die("not compiled, to be saved later: %s", wasmcache_outcome_name(report.outcome));
    if (wasmcache_flush(cache))
        die("%s", wasmcache_last_error()->message);
    saved = now_ns() - returned;
    sync_below(dir);
    printf("{\"total\":%" PRIu64 ",\"compile\":%" PRIu64 ",\"saved\":%" PRIu64
           ",\"on_disk\":%" PRIu64 "}\n",
           report.total_ns, report.compile_ns, saved, now_ns() - returned);
    wasmcache_detach(wc);
    wasmcache_close(cache);
    wasmcache_executor_free(executor);
    return 0;
}

static int miss_own(struct rig *rig, const char *dir)
{
    uint64_t started, returned;
    make_own_cache(rig);
    rig->with_cache = bench_engine.engine_with_cache(rig->own_config);
    started = now_ns();
    (void)compile(rig, rig->with_cache, rig->wasm);
    returned = now_ns() - started;
    started = now_ns();
    sync_below(dir);
    printf("{\"total\":%" PRIu64 ",\"sync\":%" PRIu64 "}\n", returned, now_ns() - started);
    return 0;
}

/* What a host does that keeps the engine's artifact in a file itself. */
static int miss_bare(struct rig *rig, const char *dir)
{
    uint64_t started = now_ns(), compiled, saved;
    wasmcache_artifact artifact;
    void *module = compile(rig, rig->engine, rig->wasm);
    compiled = now_ns() - started;
    started = now_ns();
    artifact = serialize(rig, module);
    saved = now_ns() - started;
    write_artifact(rig, rig->artifact, &artifact);
    printf("{\"compile\":%" PRIu64 ",\"serialize\":%" PRIu64 ",\"save\":%" PRIu64, compiled, saved,
           now_ns() - started);
    sync_below(dir);
    printf(",\"on_disk\":%" PRIu64 "}\n", now_ns() - started);
    return 0;
}

static int do_miss(char **words, int count)
{
    const char *way = words[2];
    struct rig rig;
    (void)count;
    rig_open(&rig, words[0], words[1]);
    if (strcmp(way, "ours") == 0)
        return miss_ours(&rig, words[0]);
    if (strcmp(way, "later") == 0)
        return miss_later(&rig, words[0]);
    if (strcmp(way, "bare") == 0)
        return miss_bare(&rig, words[0]);
    if (strcmp(way, "own") == 0 && bench_engine.engine_with_cache)
        return miss_own(&rig, words[0]);
    die("there is no miss \"%s\"", way);
}

/* ---- publish alone: an engine whose artifact is there already ---- */

static struct bytes ready_made;

static int given_compile(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                         void **module, void **error)
{
    (void)engine, (void)kind, (void)wasm, (void)length, (void)module;
    *error = NULL;
    return -1;
}

static int given_serialize(void *engine, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                           void **error)
{
    (void)engine, (void)kind, (void)module, (void)error;
    out->data = ready_made.data;
    out->size = ready_made.size;
    return 0;
}

static int given_deserialize(void *engine, wasmcache_kind kind, const void *bytes, size_t length,
                             void **module, void **error)
{
    (void)engine, (void)kind, (void)bytes, (void)length, (void)module;
    *error = NULL;
    return -1;
}

static void given_artifact_free(wasmcache_artifact *artifact)
{
    (void)artifact;
}

static void given_module_free(wasmcache_kind kind, void *module)
{
    (void)kind, (void)module;
}

static void given_error_message(const void *error, char *out, size_t size)
{
    (void)error;
    snprintf(out, size, "none");
}

static void given_error_free(void *error)
{
    (void)error;
}

static const wasmcache_engine_table given = {.size = sizeof(wasmcache_engine_table),
                                             .name = "given",
                                             .kinds = 1u << WASMCACHE_MODULE,
                                             .compile = given_compile,
                                             .serialize = given_serialize,
                                             .artifact_free = given_artifact_free,
                                             .deserialize = given_deserialize,
                                             .module_free = given_module_free,
                                             .error_message = given_error_message,
                                             .error_free = given_error_free};

static uint64_t publish_one(wasmcache_attachment *wc, const wasmcache_key *key, const char *path)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    const uint64_t started = now_ns();
    int rc = wasmcache_save(wc, WASMCACHE_MODULE, key, &ready_made, NULL, &report);
    const uint64_t took = now_ns() - started;
    if (rc)
        die("save: %s", wasmcache_last_error()->message);
    if (unlink(path))
        die("%s: %s", path, strerror(errno));
    return took;
}

static uint64_t write_one(const char *path)
{
    const uint64_t started = now_ns();
    uint64_t took;
    write_file(path, ready_made);
    took = now_ns() - started;
    if (unlink(path))
        die("%s: %s", path, strerror(errno));
    return took;
}

static int do_publish(char **words, int count)
{
    static uint64_t published[MAX_ROUNDS], written[MAX_ROUNDS];
    const unsigned rounds = number(words[2], MAX_ROUNDS);
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_options cache_options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attachment *wc;
    wasmcache_key key;
    wasmcache *cache;
    char entry[2048], plain[2048];
    (void)count;

    ready_made = read_file(words[1]);
    many_key(&key, 0);
    cache_options.dir = words[0];
    options.compiler = "none";
    options.engine_version = "1";
    options.artifact_version = 1;
    options.settings = "bench";
    if (wasmcache_open(&cache, &cache_options) ||
        wasmcache_attach(&wc, cache, &given, &ready_made, &options) ||
        wasmcache_attachment_status(wc, &info) ||
        wasmcache_entry_path(entry, sizeof(entry), cache, info.engine_namespace, &key))
        die("%s", wasmcache_last_error()->message);
    snprintf(plain, sizeof(plain), "%s/%s/plain", words[0], info.engine_namespace);
    (void)publish_one(wc, &key, entry); /* makes the folder */
    for (unsigned i = 0; i < rounds; i++) {
        if (i % 2)
            written[i] = write_one(plain);
        published[i] = publish_one(wc, &key, entry);
        if (!(i % 2))
            written[i] = write_one(plain);
    }
    putchar('{');
    print_list("publish", published, rounds);
    putchar(',');
    print_list("write", written, rounds);
    puts("}");
    wasmcache_detach(wc);
    wasmcache_close(cache);
    return 0;
}

/* ---- modules a second ---- */

struct rate {
    struct rig rig;
    const struct way *way;
    unsigned many;
    uint64_t for_ns;
    pthread_barrier_t barrier;
    _Atomic uint64_t done, until;
};

static void rate_load_one_of_many(struct rate *rate, unsigned i)
{
    struct rig *rig = &rate->rig;
    void *module = NULL, *error = NULL;
    if (strncmp(rate->way->name, "ours", 4) == 0) {
        wasmcache_module *counted;
        wasmcache_key key;
        many_key(&key, i);
        if (wasmcache_load(&counted, rig->once.wc, WASMCACHE_MODULE, &key, NULL))
            die("load: %s", wasmcache_last_error()->message);
        wasmcache_module_release(counted);
    } else {
        char path[1100];
        many_path(path, sizeof(path), rig, i);
        if (rig->table->deserialize_file(rig->engine, WASMCACHE_MODULE, path, &module, &error))
            die("deserialize_file failed");
        module_free(rig, module);
    }
}

static void *rate_run(void *payload)
{
    struct rate *rate = payload;
    uint64_t done = 0, until;
    unsigned next;
    /* Not all at the same one. */
    next = (unsigned)(now_ns() / 1000) % rate->many;
    pthread_barrier_wait(&rate->barrier);
    until = atomic_load(&rate->until);
    while (now_ns() < until) {
        if (rate->many > 1)
            rate_load_one_of_many(rate, next);
        else
            module_free(&rate->rig, way_load(rate->way, &rate->rig));
        next = (next + 1) % rate->many;
        done++;
    }
    atomic_fetch_add(&rate->done, done);
    return NULL;
}

/* One process: says that it is ready, waits for the word, runs, says how many. */
static void rate_process(char **words, unsigned threads, int ready, int go, int result)
{
    static struct rate rate;
    pthread_t thread[MAX_THREADS];
    char byte = 'r';
    uint64_t done, started;

    rate.way = way_find(words[2]);
    rate.many = number(words[6], 10000);
    rate.for_ns = number(words[5], 600000) * UINT64_C(1000000);
    rig_open(&rate.rig, words[0], words[1]);
    for (unsigned i = 0; i < 2; i++)
        module_free(&rate.rig, way_load(rate.way, &rate.rig));
    for (unsigned i = 0; rate.many > 1 && i < rate.many; i++)
        rate_load_one_of_many(&rate, i);
    pthread_barrier_init(&rate.barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, rate_run, &rate))
            die("pthread_create failed");
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
        die("the parent is gone");
    started = now_ns();
    atomic_store(&rate.until, started + rate.for_ns);
    pthread_barrier_wait(&rate.barrier);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    /* A thread ends after the module that it is at: what counts is when the last one ended. */
    done = atomic_load(&rate.done) * UINT64_C(1000000000) * 1000 / (now_ns() - started);
    if (write(result, &done, sizeof(done)) != sizeof(done))
        die("the parent is gone");
}

/* The processes are forked before there is an engine. */
static int do_rate(char **words, int count)
{
    const unsigned threads = number(words[3], MAX_THREADS);
    const unsigned processes = number(words[4], MAX_THREADS);
    int ready[2], go[2], result[2], status, failed = 0;
    uint64_t sum = 0, one;
    char byte;
    (void)count;

    if (pipe(ready) || pipe(go) || pipe(result))
        die("pipe: %s", strerror(errno));
    for (unsigned i = 0; i < processes; i++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork: %s", strerror(errno));
        if (pid == 0) {
            close(ready[0]);
            close(go[1]);
            close(result[0]);
            rate_process(words, threads, ready[1], go[0], result[1]);
            _exit(0);
        }
    }
    close(ready[1]);
    close(result[1]);
    for (unsigned i = 0; i < processes; i++)
        if (read(ready[0], &byte, 1) != 1)
            die("a process failed");
    for (unsigned i = 0; i < processes; i++)
        if (write(go[1], "g", 1) != 1)
            die("a process failed");
    for (unsigned i = 0; i < processes; i++) {
        if (read(result[0], &one, sizeof(one)) != sizeof(one))
            die("a process failed");
        sum += one;
    }
    while (wait(&status) > 0)
        failed |= status;
    printf("{\"per_second\":%.1f}\n", (double)sum / 1000);
    return failed ? 1 : 0;
}

/* ---- two ways in turn, by the same threads ---- */

/*
 * What one process does faster than another, by where its memory happens to lie, is more than what
 * is to be found out. So the same threads do both, in short turns: all wait for the last to be done
 * before the next turn begins. The order is A B B A, so that what gets slower with time is in both.
 */
struct turns {
    struct rig rig;
    const struct way *ways[2];
    unsigned count;
    uint64_t for_ns;
    pthread_barrier_t start, end;
    _Atomic uint64_t done, until;
};

static unsigned way_of_turn(unsigned turn)
{
    return (turn % 4 == 1 || turn % 4 == 2) ? 1 : 0;
}

static void *take_turns(void *payload)
{
    struct turns *turns = payload;
    for (unsigned turn = 0; turn < turns->count; turn++) {
        const struct way *way = turns->ways[way_of_turn(turn)];
        uint64_t done = 0, until;
        pthread_barrier_wait(&turns->start);
        until = atomic_load(&turns->until);
        while (now_ns() < until) {
            module_free(&turns->rig, way_load(way, &turns->rig));
            done++;
        }
        atomic_fetch_add(&turns->done, done);
        pthread_barrier_wait(&turns->end);
    }
    return NULL;
}

static int do_turns(char **words, int count)
{
    static struct turns turns;
    const unsigned threads = number(words[4], MAX_THREADS);
    pthread_t thread[MAX_THREADS];
    (void)count;

    turns.ways[0] = way_find(words[2]);
    turns.ways[1] = way_find(words[3]);
    turns.for_ns = number(words[5], 600000) * UINT64_C(1000000);
    turns.count = 2 * number(words[6], 10000);
    rig_open(&turns.rig, words[0], words[1]);
    for (unsigned i = 0; i < 4; i++)
        module_free(&turns.rig, way_load(turns.ways[i % 2], &turns.rig));
    pthread_barrier_init(&turns.start, NULL, threads + 1);
    pthread_barrier_init(&turns.end, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, take_turns, &turns))
            die("pthread_create failed");
    printf("{\"per_second\":[");
    for (unsigned turn = 0; turn < turns.count; turn++) {
        const uint64_t started = now_ns();
        atomic_store(&turns.done, 0);
        atomic_store(&turns.until, started + turns.for_ns);
        pthread_barrier_wait(&turns.start);
        pthread_barrier_wait(&turns.end);
        printf("%s[%u,%.1f]", turn ? "," : "", way_of_turn(turn),
               (double)atomic_load(&turns.done) * 1e9 / (double)(now_ns() - started));
    }
    printf("]}\n");
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    return 0;
}

/* ---- memory ---- */

/* Every page of the files that are mapped from below `dir`: what shared pages can be, they are. */
static uint64_t touch_mapped(const char *dir)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    const long page = sysconf(_SC_PAGESIZE);
    char line[4096];
    uint64_t sum = 0;
    if (!maps)
        die("/proc/self/maps: %s", strerror(errno));
    while (fgets(line, sizeof(line), maps)) {
        uintptr_t from, to;
        char *end;
        from = (uintptr_t)strtoull(line, &end, 16);
        to = (uintptr_t)strtoull(end + 1, &end, 16);
        if (end[1] != 'r' || !strstr(line, dir))
            continue;
        for (; from < to; from += (uintptr_t)page)
            sum += *(const volatile uint8_t *)from;
    }
    fclose(maps);
    return sum;
}

static int do_hold(char **words, int count)
{
    const struct way *way = way_find(words[2]);
    struct rig rig;
    void *module;
    char byte;
    (void)count;

    /* Only what this way needs, and no more than a host keeps. */
    rig_paths(&rig, words[0], words[1]);
    if (strcmp(way->name, "own") == 0) {
        rig.wasm = read_file(words[1]);
        rig.with_cache = bench_engine.engine_with_cache(rig.own_config);
    } else {
        rig.engine = bench_engine.engine_new();
    }
    if (strncmp(way->name, "ours", 4) == 0)
        attached_open(&rig.once, &rig, WASMCACHE_VERIFY_ONCE, 0, "bench");
    module = way_load(way, &rig);
    free(rig.wasm.data);
    rig.wasm.data = NULL;
    puts("ready");
    fflush(stdout);
    if (read(0, &byte, 1) == 1) { /* a line: read the pages, then say so */
        printf("touched %" PRIu64 "\n", touch_mapped(words[0]));
        fflush(stdout);
        while (read(0, &byte, 1) == 1)
            ;
    }
    module_free(&rig, module);
    return 0;
}

/* ---- words ---- */

static const struct {
    const char *name;
    int least, most;
    int (*run)(char **words, int count);
} commands[] = {
    {"make", 2, 2, do_make},       {"many", 3, 3, do_many},     {"warm", 4, 3 + MAX_WAYS, do_warm},
    {"new", 3, 3, do_new},         {"sealed", 3, 3, do_sealed}, {"miss", 3, 3, do_miss},
    {"publish", 3, 3, do_publish}, {"rate", 7, 7, do_rate},     {"turns", 7, 7, do_turns},
    {"hold", 3, 3, do_hold},
};

int main(int argc, char **argv)
{
    main_ns = now_ns();
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(argv[1], commands[i].name) == 0 && argc - 2 >= commands[i].least &&
            argc - 2 <= commands[i].most)
            return commands[i].run(argv + 2, argc - 2);
    fprintf(stderr, "usage: bench-%s WORD...: see the top of bench/host.c\n", bench_engine.name);
    return 2;
}
