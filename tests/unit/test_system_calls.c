/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs/system-calls.md against a kernel that enforces it: the library works in processes that may
 * make the calls of its tables and no others (seccomp), and does what the tables say where one of
 * them is forbidden.
 *
 * no-asan no-tsan no-coverage: all of them make calls of their own
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "asked.h"
#include "call_tables.h"
#include "seam.h"
#include "support/rig.h"

#ifdef HAS_CALL_TABLES

static int begin(void **state)
{
    (void)state;
    if (call_tables_read(TESTS_DIR "/../docs/system-calls.md") < 0)
        return -1;
    /* As root nothing asks who we are. */
    if (geteuid() == 0 &&
        (setgroups(0, NULL) < 0 || setgid((gid_t)SCRATCH_NOBODY) < 0 || setuid(SCRATCH_NOBODY) < 0))
        return -1;
    prctl(PR_SET_DUMPABLE, 1);
    return 0;
}

/* ---- what the child does ---- */

/* In memory that both see. */
static struct result {
    int trapped; /* 1 + the number of the call that ended it */
    int got[3];  /* what the gets returned */
    wasmcache_report reports[3];
} * result;

struct job {
    struct call_rules rules;
    struct rig *r;
    unsigned lacking;
    void (*work)(struct job *job);
};

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    result->trapped = 1 + info->si_syscall;
    _exit(90);
}

static int run_job(void *payload)
{
    struct job *job = payload;
    struct sigaction action;
    struct sock_fprog program;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_sigsys;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &action, NULL);
    (void)umask(077); /* against the modes of what is shared */
    wc_os_lacking = job->lacking;
    call_rules_make(&job->rules);
    program.len = job->rules.length;
    program.filter = job->rules.program;
    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    job->work(job);
    _exit(0);
}

/* The exit status of the child: 0, or 90 if it made a call that it may not. */
static int run(struct job *job)
{
    const wasmcache_report report = WASMCACHE_REPORT_INIT;
    memset(result, 0, sizeof(*result));
    result->reports[0] = result->reports[1] = result->reports[2] = report;
    return scratch_child(run_job, job, 0, 30);
}

static void assert_runs(struct job *job, const char *what)
{
    const int status = run(job);
    if (result->trapped)
        fail_msg("%s: it called %s, which the tables do not have, or not with these arguments",
                 what, call_name_of(result->trapped - 1));
    if (status == 100 + SIGSYS)
        fail_msg("%s: a thread made a call that the tables do not have", what);
    if (status != 0)
        fail_msg("%s: status %d", what, status);
}

/* ---- works ---- */

static const char there[] = "the module that is there", missing[] = "the module that is not there",
                  small[] = "a small one", damaged[] = "the damaged one";

static void get_source(struct rig *r, const wasmcache_source *source, wasmcache_outcome outcome)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, source, NULL, &report), 0);
    assert_int_equal(report.outcome, outcome);
    wasmcache_module_release(module);
}

/* A host that only loads: a cache that is opened to be read. */
static void only_read(struct job *job)
{
    struct rig *r = job->r;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    wasmcache_key key = rig_key(there);
    wasmcache_source source;
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(wasmcache_status(r->cache, &status), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_get(r, there, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
    }
    assert_int_equal(rig_load(r, there, NULL), 0);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), 0);
    source = wasmcache_source_path(scratch_in(&r->scratch, "there.wasm"));
    get_source(r, &source, WASMCACHE_HIT);
    get_source(r, &source, WASMCACHE_HIT);
    assert_int_equal(rig_get(r, missing, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    rig_close(r);
}

/* Hits that are counted and remembered, misses that are saved. */
static void read_and_write(struct job *job)
{
    struct rig *r = job->r;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    const wasmcache_source source = wasmcache_source_path(scratch_in(&r->scratch, "there.wasm"));
    for (unsigned durable = 0; durable < 2; durable++) {
        r->options.flags = durable ? WASMCACHE_DURABLE : 0;
        r->options.max_disk_percent = 90;
        rig_open(r);
        assert_int_equal(rig_get(r, there, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        get_source(r, &source, WASMCACHE_HIT);
        assert_int_equal(rig_get(r, durable ? small : missing, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, 0);
        assert_int_equal(rig_save(r, there, NULL), 0);
        assert_int_equal(rig_get_with(r, missing, WASMCACHE_GET_RECOMPILE, &report), 0);
        assert_int_equal(report.save_error, 0);
        if (!durable) { /* is removed, and replaced */
            assert_int_equal(rig_get(r, damaged, &report), 0);
            assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
            assert_int_equal(report.save_error, 0);
        }
        rig_close(r);
    }
    /* Made here, and once more with times. */
    for (unsigned i = 0; i < 2; i++) {
        r->options.flags = i ? WASMCACHE_REPRODUCIBLE : 0;
        r->options.share = WASMCACHE_SHARE_READABLE;
        r->options.dir = scratch_in(&r->scratch, "made/%u", i);
        rig_open(r);
        assert_int_equal(rig_get(r, small, &report), 0);
        assert_int_equal(report.save_error, 0);
        rig_close(r);
        assert_int_equal(scratch_mode(r->options.dir), 0755);
    }
    r->options.flags = 0;
    r->options.share = WASMCACHE_SHARE_PRIVATE;
    r->options.dir = r->dir;
}

/* With a call that fails, or is taken away, what is done may fail too, but for gets. */
#define HOLDS(condition) assert_true((condition) || job->rules.failing >= 0 || job->lacking)

/* All that is no get. */
static void do_the_rest(struct job *job)
{
    struct rig *r = job->r;
    wasmcache_prune_options prune = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result pruned = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_identity identity = WASMCACHE_IDENTITY_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key(there), other = {0};
    wasmcache_iterator *it = NULL;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *const layers[] = {&layer};
    unsigned sound = 0, corrupt = 0;
    uint64_t removed;
    const char *ns;
    int root, fd;

    layer.dir = r->dir;
    r->options.evict_after_seconds = 3600; /* on a slow machine an entry is soon a second old */
    r->options.dir = scratch_in(&r->scratch, "link"); /* to the directory */
    rig_open(r);
    ns = rig_namespace(r);
    assert_int_equal(rig_get(r, small, NULL), 0);
    HOLDS(wasmcache_iterate(&it, r->cache, NULL, WASMCACHE_CHECK_DIGEST) == 0);
    while (it && wasmcache_iterator_next(it, &entry) == 0) {
        sound += entry.state == WASMCACHE_REASON_NONE;
        corrupt += entry.state == WASMCACHE_REASON_CORRUPT;
    }
    wasmcache_iterator_close(it);
    HOLDS(sound == 2);
    HOLDS(corrupt == 1);
    HOLDS(wasmcache_entry_check(&entry, r->cache, ns, &key, WASMCACHE_CHECK_DIGEST) == 0);
    HOLDS(wasmcache_identity_read(&identity, r->cache, ns) == 0);
    HOLDS(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats) == 0);
    HOLDS(wasmcache_stats_reset(r->cache) == 0);
    HOLDS(wasmcache_flush(r->cache) == 0);
    HOLDS(wasmcache_pin(r->cache, ns, &key, 1) == 0);
    HOLDS(wasmcache_prune(r->cache, &prune, &pruned) == 0);
    HOLDS(wasmcache_clean(r->cache, &removed) == 0);
    key = rig_key(damaged);
    HOLDS(wasmcache_remove_damaged(r->cache, ns, &key) == 0);
    key = rig_key(small);
    HOLDS(wasmcache_remove(r->cache, ns, &key) == 0);
    root = open(scratch_in(&r->scratch, "guest"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    HOLDS(wasmcache_overlaps(r->cache, root) == 0);
    close(root);
    root = open(job->r->scratch.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    HOLDS(wasmcache_overlaps(r->cache, root) == 1);
    assert_int_not_equal(wasmcache_overlaps(r->cache, root), 0); /* nor where it cannot tell */
    close(root);
    key = rig_key(there);
    HOLDS(wasmcache_key_from_path(&other, WASMCACHE_KEY_SHA256,
                                  scratch_in(&r->scratch, "there.wasm")) == 0);
    HOLDS(wasmcache_key_equal(&key, &other));
    fd = open(scratch_in(&r->scratch, "there.wasm"), O_RDONLY | O_CLOEXEC);
    HOLDS(wasmcache_key_from_fd(&other, WASMCACHE_KEY_SHA256, fd) == 0);
    HOLDS(wasmcache_key_equal(&key, &other));
    {
        const wasmcache_source source = wasmcache_source_fd(fd);
        if (job->rules.failing < 0)
            get_source(r, &source, WASMCACHE_HIT);
    }
    close(fd);
    prune.max_age_seconds = 0;
    prune.max_entries = 1;
    HOLDS(wasmcache_pin(r->cache, ns, &key, 0) == 0);
    HOLDS(wasmcache_prune(r->cache, &prune, &pruned) == 0);
    rig_close(r);
    /* Below a path that is relative, with a layer and hints elsewhere. */
    r->options.dir = "made/from/here";
    r->options.layers = layers;
    r->options.layer_count = 1;
    r->options.hints_dir = scratch_in(&r->scratch, "made/hints");
    rig_open(r);
    assert_int_equal(rig_get(r, small, NULL), 0);
    assert_int_equal(rig_get(r, there, NULL), 0);
    HOLDS(r->events.count[WASMCACHE_EVENT_HIT] > 0);
    rig_close(r);
    r->options.layer_count = 0;
}

static void in_the_background(struct job *job)
{
    struct rig *r = job->r;
    wasmcache_executor *executor = executor_with(0, 0);
    struct asked a[4];
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_true(wasmcache_executor_fd(executor) >= 0);
    r->options.save_executor = executor;
    rig_open(r);
    ask_get(&a[0], r, executor, there, 0);
    ask_get(&a[1], r, executor, missing, 0);
    ask_get(&a[2], r, executor, missing, 0);
    ask_contains(&a[3], r, executor, there);
    run_all(executor);
    for (int i = 0; i < 3; i++)
        assert_answered_once(&a[i]);
    assert_int_equal(a[3].answers, 1);
    assert_int_equal(a[0].report.outcome, WASMCACHE_HIT);
    assert_true(a[1].right && a[2].right);
    assert_int_equal(rig_get(r, small, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(wasmcache_flush(r->cache), 0);
    rig_close(r);
    wasmcache_executor_free(executor);
}

/* Gets of what is there, of what is not, and of what is damaged. */
static const char *const wanted[] = {there, missing, damaged};

static void three_gets(struct job *job)
{
    struct rig *r = job->r;
    rig_open(r);
    for (int i = 0; i < 3; i++)
        result->got[i] = rig_get(r, wanted[i], &result->reports[i]);
    rig_close(r);
}

static void durable_gets(struct job *job)
{
    job->r->options.flags = WASMCACHE_DURABLE;
    wc_os_lacking = WC_OS_NO_TMPFILE;
    three_gets(job);
}

static void three_gets_in_the_background(struct job *job)
{
    struct rig *r = job->r;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a[3];
    rig_open(r);
    (void)wasmcache_executor_fd(executor);
    for (int i = 0; i < 3; i++)
        ask_get(&a[i], r, executor, wanted[i], 0);
    run_all(executor);
    for (int i = 0; i < 3; i++) {
        result->got[i] = a[i].right ? a[i].error : -100;
        result->reports[i] = a[i].report;
    }
    rig_close(r);
    wasmcache_executor_free(executor);
}

/* ---- tests ---- */

static void fill(struct rig *r)
{
    r->engine.artifact_size = 300000; /* enough for views */
    rig_open(r);
    assert_int_equal(rig_get(r, there, NULL), 0);
    r->engine.artifact_size = 0;
    assert_int_equal(rig_get(r, damaged, NULL), 0);
    scratch_flip(rig_entry(r, damaged), 99);
    rig_close(r);
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rig_init(r);
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    fill(r);
    scratch_write(scratch_in(&r->scratch, "there.wasm"), there, strlen(there), 0600);
    assert_int_equal(mkdir(scratch_in(&r->scratch, "guest"), 0700), 0);
    assert_int_equal(symlink(r->dir, scratch_in(&r->scratch, "link")), 0);
    assert_int_equal(chdir(r->scratch.dir), 0);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    wc_os_lacking = 0;
    munmap(result, sizeof(*result));
    assert_int_equal(chdir("/"), 0);
    rig_end(r);
    free(r);
    return 0;
}

static struct job *job_of(void **state, unsigned sections, void (*work)(struct job *))
{
    static struct job job;
    memset(&job, 0, sizeof(job));
    job.r = *state;
    job.rules.sections = sections;
    job.rules.without = job.rules.failing = -1;
    job.work = work;
    return &job;
}

static void reading_needs_the_calls_of_reading(void **state)
{
    assert_runs(job_of(state, 1u << LIBC | 1u << READING, only_read), "reading");
}

static void writing_needs_those_of_writing_besides(void **state)
{
    assert_runs(job_of(state, 1u << LIBC | 1u << READING | 1u << WRITING, read_and_write),
                "writing");
}

static void the_rest_needs_those_of_the_rest_besides(void **state)
{
    assert_runs(job_of(state, ALL_SECTIONS & ~(1u << THREADS), do_the_rest), "the rest");
}

static void requests_need_those_of_threads_besides(void **state)
{
    assert_runs(job_of(state, 1u << LIBC | 1u << READING | 1u << WRITING | 1u << THREADS,
                       in_the_background),
                "requests");
}

static const struct work {
    const char *name;
    unsigned sections;
    void (*work)(struct job *);
} works[] = {
    {"reading", 1u << LIBC | 1u << READING, only_read},
    {"writing", 1u << LIBC | 1u << READING | 1u << WRITING, read_and_write},
    {"the rest", ALL_SECTIONS & ~(1u << THREADS), do_the_rest},
    {"requests", ALL_SECTIONS & ~(1u << REST), in_the_background},
};
enum { WORKS = sizeof(works) / sizeof(*works) };

/* The scratch directory as it was, so that each child finds the same. */
static void begin_anew(struct rig *r)
{
    scratch_remove(r->dir);
    scratch_remove(scratch_in(&r->scratch, "made"));
    fill(r);
}

static void every_fallback_has_its_calls_in_the_tables(void **state)
{
    struct rig *r = *state;
    for (unsigned v = 0; v < seam_variant_count; v++)
        for (unsigned w = 0; w < WORKS; w++) {
            struct job *job = job_of(state, works[w].sections, works[w].work);
            job->lacking =
                seam_variants[v].lacking | (v ? WC_OS_NO_EVENTFD | WC_OS_NO_STRAIGHT : 0);
            begin_anew(r);
            assert_runs(job,
                        scratch_text(&r->scratch, "%s, %s", works[w].name, seam_variants[v].name));
        }
}

/* The control: with a call off the list the process that makes it is ended. */
static void without_any_call_of_the_tables_something_is_ended(void **state)
{
    struct rig *r = *state;
    unsigned tried = 0, wrong = 0;
    for (unsigned i = 0; i < call_row_count; i++) {
        const unsigned section = call_rows[i].section;
        struct job *job;
        int status;
        if (section == LIBC || call_rows[i].is_fallback)
            continue;
        job = job_of(state, works[section].sections, works[section].work);
        job->rules.without = call_rows[i].number;
        begin_anew(r);
        status = run(job);
        if (!(status == 90 && result->trapped == 1 + call_rows[i].number) && status != 100 + SIGSYS)
            printf("%s: nothing is ended without it: status %d\n", call_rows[i].name, status),
                wrong++;
        tried++;
    }
    assert_int_equal(wrong, 0);
    assert_true(tried > 30);
    printf("%u calls taken off the list, each of which ended its process\n", tried);
}

static enum call_effect measured(struct rig *r)
{
    const int hit = result->reports[0].outcome == WASMCACHE_HIT;
    const int saved = scratch_exists(rig_entry(r, missing));
    return !hit ? MISSES : saved ? SAME : HITS;
}

/* A kernel that does not have the call, and one that does not allow it. */
static const int errors[] = {ENOSYS, EPERM};
static const char *const error_names[] = {"ENOSYS", "EPERM"};

/* Nothing is lost, nothing is left, and all is well again without the filter. */
static void assert_well_again(struct rig *r)
{
    rig_open(r);
    assert_int_equal(rig_state(r, there), WASMCACHE_REASON_NONE);
    assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".tmp-"));
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".old-"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_get(r, wanted[i], NULL), 0);
        assert_int_equal(rig_load(r, wanted[i], NULL), 0);
    }
    rig_close(r);
}

/* Runs the work with that call forbidden. */
static void forbid(void **state, const struct call_row *row, unsigned e, void (*work)(struct job *))
{
    struct job *job = job_of(state, ALL_SECTIONS, work);
    job->rules.failing = row->number;
    job->rules.error = errors[e];
    begin_anew(*state);
    assert_runs(job, scratch_text(&job->r->scratch, "%s fails with %s", row->name, error_names[e]));
    for (int i = 0; i < 3; i++)
        if (work != do_the_rest && result->got[i])
            fail_msg("%s fails with %s: a get returns %s", row->name, error_names[e],
                     wasmcache_error_name(result->got[i]));
}

static void what_is_forbidden_costs_what_the_tables_say(void **state)
{
    struct rig *r = *state;
    unsigned tried = 0, wrong = 0;
    for (unsigned i = 0; i < call_row_count; i++)
        for (unsigned e = 0; e < 2; e++) {
            enum call_effect effect;
            if (!call_rows[i].effects[e])
                continue;
            forbid(state, &call_rows[i], e,
                   call_rows[i].section == THREADS ? three_gets_in_the_background : three_gets);
            tried++;
            rig_open(r);
            effect = measured(r);
            rig_close(r);
            if (effect != call_rows[i].effects[e]) {
                printf("%s fails with %s: it is \"%s\", not \"%s\"\n", call_rows[i].name,
                       error_names[e], call_effect_names[effect],
                       call_effect_names[call_rows[i].effects[e]]);
                wrong++;
            }
            assert_well_again(r);
        }
    assert_int_equal(wrong, 0);
    assert_true(tried > 60);
    printf("%u times a call was forbidden, and each get gave its module\n", tried);
}

static void nor_is_anything_lost_elsewhere(void **state)
{
    for (unsigned i = 0; i < call_row_count; i++)
        for (unsigned e = 0; e < 2; e++) {
            if (!call_rows[i].effects[e] || call_rows[i].section == THREADS)
                continue;
            forbid(state, &call_rows[i], e, durable_gets);
            assert_well_again(*state);
            forbid(state, &call_rows[i], e, do_the_rest);
            assert_well_again(*state);
        }
}

int main(void)
{
    if (prctl(PR_GET_SECCOMP) < 0) {
        printf("skipped: this kernel filters no system calls\n");
        return 77;
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(reading_needs_the_calls_of_reading),
        TEST(writing_needs_those_of_writing_besides),
        TEST(the_rest_needs_those_of_the_rest_besides),
        TEST(requests_need_those_of_threads_besides),
        TEST(every_fallback_has_its_calls_in_the_tables),
        TEST(without_any_call_of_the_tables_something_is_ended),
        TEST(what_is_forbidden_costs_what_the_tables_say),
        TEST(nor_is_anything_lost_elsewhere),
    };
#undef TEST
    return cmocka_run_group_tests(tests, begin, NULL);
}

#else

int main(void)
{
    printf("skipped: the tables are of x86-64 and arm64 with glibc\n");
    return 77;
}

#endif
