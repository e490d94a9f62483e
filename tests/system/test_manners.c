/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library is a guest in the process: whatever happens in a cache, the host's output, signals,
 * threads, descriptors, environment, umask, limits and working directory are as they were.
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include "wasmcache_async.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct scratch scratch;

/* All that a process has and that a library could change. */
struct process {
    struct sigaction actions[65];
    sigset_t mask;
    char environment[65536];
    char cwd[1024];
    mode_t umask;
    struct rlimit limits[RLIM_NLIMITS];
    unsigned threads, descriptors;
};

static unsigned threads(void)
{
    char line[256];
    unsigned count = 0;
    FILE *file = fopen("/proc/self/status", "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, "Threads:", 8) == 0)
            count = (unsigned)strtoul(line + 8, NULL, 10);
    fclose(file);
    return count;
}

/* The fewest of some looks, since a thread takes a moment to end, also one that was joined: until
 * there are no more than `wanted`, for 5 s; 0: where the engine has threads, for a tenth. */
static unsigned lasting_threads(unsigned wanted)
{
    const int looks = wanted ? 2500 : ENGINE_STARTS_THREADS ? 50 : 1;
    unsigned least = threads();
    for (int i = 1; i < looks && (!wanted || least > wanted); i++) {
        const unsigned now = threads();
        least = now < least ? now : least;
        usleep(2000);
    }
    return least;
}

static void look(struct process *p, unsigned threads_wanted)
{
    size_t used = 0;
    memset(p, 0, sizeof(*p));
    for (int i = 1; i < 65; i++)
        (void)sigaction(i, NULL, &p->actions[i]);
    sigprocmask(SIG_SETMASK, NULL, &p->mask);
    for (char **e = environ; *e; e++) {
        const size_t length = strlen(*e) + 1;
        assert_true(used + length < sizeof(p->environment));
        memcpy(p->environment + used, *e, length);
        used += length;
    }
    assert_non_null(getcwd(p->cwd, sizeof(p->cwd)));
    p->umask = umask(0);
    umask(p->umask);
    for (int i = 0; i < RLIM_NLIMITS; i++)
        assert_int_equal(getrlimit((__rlimit_resource_t)i, &p->limits[i]), 0);
    p->threads = lasting_threads(threads_wanted);
    p->descriptors = scratch_descriptors();
}

static void assert_same(const struct process *a, const struct process *b)
{
    for (int i = 1; i < 65; i++) {
        assert_int_equal(a->actions[i].sa_flags, b->actions[i].sa_flags);
        assert_true(a->actions[i].sa_sigaction == b->actions[i].sa_sigaction);
    }
    assert_memory_equal(&a->mask, &b->mask, sizeof(a->mask));
    assert_memory_equal(a->environment, b->environment, sizeof(a->environment));
    assert_string_equal(a->cwd, b->cwd);
    assert_int_equal(a->umask, b->umask);
    assert_memory_equal(a->limits, b->limits, sizeof(a->limits));
    assert_int_equal(a->threads, b->threads);
    assert_int_equal(a->descriptors, b->descriptors);
}

/*
 * The library's own threads, by their name: how many there are now. Each of them blocks all
 * signals that can be blocked; one that the C library keeps for itself (setuid in all threads) is
 * not shown as blocked.
 */
static unsigned librarys_threads(void)
{
    unsigned count = 0;
    struct dirent *entry;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        char path[300], line[256];
        int ours = 0, blocks = 0;
        FILE *file;
        snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        while (file && fgets(line, sizeof(line), file)) {
            if (strcmp(line, "Name:\twasmcache\n") == 0)
                ours = 1;
            if (strncmp(line, "SigBlk:", 7) == 0) {
                const uint64_t all = ~(UINT64_C(1) << (SIGKILL - 1) | UINT64_C(1) << (SIGSTOP - 1) |
                                       UINT64_C(3) << 31);
                blocks = (strtoull(line + 7, NULL, 16) & all) == all;
            }
        }
        if (file)
            fclose(file);
        if (ours)
            assert_true(blocks);
        count += (unsigned)ours;
    }
    closedir(tasks);
    return count;
}

/* ---- all that can go well or wrong ---- */

static void count_answer(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    (void)request;
    if (result->error == 0 && result->module)
        (*(unsigned *)payload)++;
    wasmcache_module_release(result->module);
}

/* Requests, on threads of the library's, which are gone with the executor. */
static void ask(wasmcache_attachment *wc)
{
    const wasmcache_source good = wasmcache_source_bytes(wasm_add, wasm_add_size),
                           bad = wasmcache_source_bytes("\0asm garbage", 12);
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    unsigned modules = 0;
    assert_int_equal(librarys_threads(), 0);
    options.threads = 2;
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    assert_true(wasmcache_executor_fd(executor) >= 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(wasmcache_request_get(NULL, executor, wc, WASMCACHE_MODULE,
                                               i % 2 ? &bad : &good, NULL, count_answer, &modules),
                         0);
    while (wasmcache_executor_wait(executor, -1) == 1)
        wasmcache_executor_dispatch(executor);
    assert_int_equal(modules, 2);
    /* What an engine starts on one of them has its name and mask at first. */
    assert_in_range(librarys_threads(), 1, ENGINE_STARTS_THREADS ? 1000 : 2);
    wasmcache_executor_free(executor);
    for (int i = 0; i < 500 && librarys_threads(); i++)
        usleep(2000); /* one that was joined may still be seen for a moment */
    assert_int_equal(librarys_threads(), 0);
}

static void get(wasmcache_attachment *wc, wasm_engine_t *engine, const void *wasm, size_t size)
{
    engine_module *module = engine_get(wc, engine, wasm, size, NULL, 0);
    if (module)
        engine_module_delete(module);
}

static void use_a_cache(const char *dir, wasm_engine_t *engine)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    const wasmcache_key key = key_of(wasm_add, wasm_add_size);
    wasmcache_source source = wasmcache_source_path("/there/is/no/such.wasm");
    wasmcache_module *module = NULL;
    wasmcache_iterator *it;
    wasmcache *cache = NULL;
    wasmcache_attachment *wc;
    char path[1024];
    int root;

    options.dir = dir;
    assert_int_equal(wasmcache_open(&cache, &options), 0);
    wc = engine_attach(cache, engine, "");
    wasmcache_attachment_status(wc, &info);
    wasmcache_status(cache, &status);
    get(wc, engine, wasm_add, wasm_add_size);
    get(wc, engine, wasm_add, wasm_add_size);
    get(wc, engine, "\0asm garbage", 12);
    get(wc, engine, NULL, 0);
    ask(wc);
    if (wasmcache_entry_path(path, sizeof(path), cache, info.engine_namespace, &key) == 0 &&
        scratch_exists(path)) {
        scratch_flip(path, 99); /* damaged, removed, replaced */
        get(wc, engine, wasm_add, wasm_add_size);
        chmod(path, 0666); /* not to be trusted */
        get(wc, engine, wasm_add, wasm_add_size);
    }
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EIO);
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, NULL, NULL, NULL),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_load(&module, NULL, WASMCACHE_MODULE, &key, NULL) < 0, 1);
    if (wasmcache_iterate(&it, cache, NULL, WASMCACHE_CHECK_DIGEST) == 0) {
        while (wasmcache_iterator_next(it, &entry) == 0)
            ;
        wasmcache_iterator_close(it);
    }
    root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    wasmcache_overlaps(cache, root);
    close(root);
    wasmcache_clean(cache, NULL);
    wasmcache_remove(cache, info.engine_namespace, &key);
    wasmcache_remove(cache, "../escape", &key);
    wasmcache_detach(wc);
    wasmcache_close(cache);
}

static void *no_body(void *argument)
{
    return argument;
}

static int run(void *payload)
{
    static struct process before, after;
    wasm_engine_t *engine = engine_new();
    const char *const hostile[] = {"WASMCACHE_DIR",  "WASMCACHE_ENGINE",  "WASMCACHE_DISABLE",
                                   "XDG_CACHE_HOME", "WASMCACHE_RECACHE", "HOME",
                                   "TMPDIR",         "XDG_CONFIG_HOME"};
    struct stat st;
    char *outside = scratch_in(&scratch, "outside"), *file = scratch_in(&scratch, "file");
    pthread_t thread;
    int out;
    (void)payload;

    /* The engine does to the process what it does when it is first used; that is not ours. */
    get(NULL, engine, wasm_add, wasm_add_size);
    get(NULL, engine, "garbage", 7);
    {
        engine_module *module = engine_compile(engine, wasm_add, wasm_add_size, NULL, 0);
        wasm_byte_vec_t bytes;
        const int32_t numbers[] = {1, 2};
        assert_non_null(module);
        assert_int_equal(call_export(engine, module, "add", numbers, 2), 3);
        assert_int_equal(engine_serialize(module, &bytes), 0);
        engine_module_delete(module);
        module = engine_load(engine, bytes.data, bytes.size);
        assert_non_null(module);
        engine_module_delete(module);
        wasm_byte_vec_delete(&bytes);
    }
    assert_int_equal(mkdir(outside, 0700), 0);
    scratch_write(file, "in the way", 10, 0600);
    for (size_t i = 0; i < sizeof(hostile) / sizeof(*hostile); i++)
        setenv(hostile[i], outside, 1);
    umask(027);
    out = open(scratch_in(&scratch, "output"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(out >= 0);
    fflush(stdout);
    fflush(stderr);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);

    /* A sanitizer has a thread of its own from the first one on. */
    assert_int_equal(pthread_create(&thread, NULL, no_body, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);

    look(&before, 0);
    use_a_cache(scratch_in(&scratch, "cache"), engine);
    use_a_cache(scratch_in(&scratch, "file/below"), engine); /* off: something is in the way */
    use_a_cache(scratch_in(&scratch, "dir/dir/dir"), engine);
    use_a_cache(NULL, engine); /* off: no directory */
    assert_int_equal(mkdir(scratch_in(&scratch, "open"), 0700), 0);
    assert_int_equal(chmod(scratch_in(&scratch, "open"), 0777), 0);
    use_a_cache(scratch_in(&scratch, "open"), engine); /* not to be trusted */
    look(&after, before.threads);

    assert_same(&before, &after);
    fflush(stdout);
    fflush(stderr);
    assert_int_equal(fstat(out, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_string_equal(scratch_tree(&scratch, outside), "");
    wasm_engine_delete(engine);
    return 0;
}

static void the_process_is_as_it_was(void **state)
{
    int status;
    (void)state;
    scratch_init(&scratch);
    status = scratch_child(run, NULL, 0, 60);
    if (status != 0 && scratch_exists(scratch_in(&scratch, "output"))) {
        size_t size;
        uint8_t *text = scratch_read(scratch_in(&scratch, "output"), &size);
        printf("%.*s", (int)size, (char *)text);
        free(text);
    }
    scratch_end(&scratch);
    assert_int_equal(status, 0);
}

/* Nothing of the host's heap or stack is needed afterwards, and nothing is left in it. */
static void a_hundred_caches_leave_no_descriptor(void **state)
{
    wasm_engine_t *engine = engine_new();
    unsigned before;
    (void)state;
    scratch_init(&scratch);
    before = scratch_descriptors();
    for (int i = 0; i < 100; i++)
        use_a_cache(scratch_in(&scratch, "cache"), engine);
    assert_int_equal(scratch_descriptors(), before);
    assert_null(strstr(scratch_tree(&scratch, scratch_in(&scratch, "cache")), "tmp"));
    wasm_engine_delete(engine);
    scratch_end(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_process_is_as_it_was),
        cmocka_unit_test(a_hundred_caches_leave_no_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
