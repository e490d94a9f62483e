/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every setting of wasm_config_t either changes the fingerprint, and then entries are not shared,
 * or has no say in what an artifact is, and then the engine treats a loaded module as it would have
 * treated its own.
 *
 * Setters are looked up by name, so that this compiles with every engine; that none is missing here
 * is read from the engine's own header. Each configuration gets a process of its own: the C API
 * aborts on one that cannot be.
 *
 * only-wasmtime: Wasmer shows no settings; test_wasmer_settings.c is about what it has instead
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

/* Compiles on the calling thread. */
static wasm_config_t *host_config(void)
{
    wasm_config_t *config = wasm_config_new();
    wasmtime_config_parallel_compilation_set(config, false);
    return config;
}

/* NULL: host_config() */
static void open_with(struct host *h, const char *dir, wasm_config_t *config)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = dir;
    host_open_with(h, &options, wasm_engine_new_with_config(config ? config : host_config()), "");
}

/* ---- the settings ---- */

enum kind { BOOL, SIZE, U64, ENUM };

static const struct setting {
    const char *name;
    enum kind kind;
    uint64_t value; /* not for BOOL: there true and false are compared */
    int changes;
    const char *with; /* settings that must be off for this one to be switched, '-' before each */
} settings[] = {
    {"debug_info", BOOL, 0, 1, ""},
    {"consume_fuel", BOOL, 0, 1, ""},
    {"epoch_interruption", BOOL, 0, 1, ""},
    {"wasm_threads", BOOL, 0, 1, ""},
    {"wasm_tail_call", BOOL, 0, 1, ""},
    {"wasm_reference_types", BOOL, 0, 1,
     "-wasm_function_references-wasm_gc-wasm_exceptions-wasm_component_model_async"},
    {"wasm_function_references", BOOL, 0, 1, "-wasm_gc"},
    {"wasm_gc", BOOL, 0, 1, ""},
    {"gc_support", BOOL, 0, 1, ""},
    {"wasm_simd", BOOL, 0, 1, "-wasm_relaxed_simd"},
    {"wasm_relaxed_simd", BOOL, 0, 1, ""},
    {"wasm_relaxed_simd_deterministic", BOOL, 0, 1, ""},
    {"wasm_bulk_memory", BOOL, 0, 1, ""},
    {"wasm_multi_value", BOOL, 0, 1, ""},
    {"wasm_multi_memory", BOOL, 0, 1, ""},
    {"wasm_memory64", BOOL, 0, 1, ""},
    {"wasm_wide_arithmetic", BOOL, 0, 1, ""},
    {"wasm_branch_hinting", BOOL, 0, 1, ""},
    {"wasm_exceptions", BOOL, 0, 1, ""},
    {"wasm_custom_page_sizes", BOOL, 0, 1, ""},
    {"wasm_compact_imports", BOOL, 0, 1, ""},
    {"wasm_stack_switching", BOOL, 0, 1, ""},
#if WASMTIME_VERSION_MAJOR >= 45
    {"strategy", ENUM, 2, 1, ""}, /* Winch */
#endif
    {"cranelift_debug_verifier", BOOL, 0, 1, ""},
    {"cranelift_nan_canonicalization", BOOL, 0, 1, ""},
    {"cranelift_opt_level", ENUM, WASMTIME_OPT_LEVEL_NONE, 1, ""},
    {"cranelift_opt_level", ENUM, WASMTIME_OPT_LEVEL_SPEED_AND_SIZE, 1, ""},
    {"cranelift_regalloc_algorithm", ENUM, 1, 1, ""}, /* single pass */
    {"memory_may_move", BOOL, 0, 1, ""},
    {"memory_reservation", U64, 1 << 20, 1, ""},
    {"memory_guard_size", U64, 1 << 16, 1, ""},
    {"memory_reservation_for_growth", U64, 1 << 20, 1, ""},
    {"native_unwind_info", BOOL, 0, 1, ""},
    {"signals_based_traps", BOOL, 0, 1, ""},
    {"memory_init_cow", BOOL, 0, 1, ""},
    {"wasm_component_model", BOOL, 0, 1, ""},
    {"concurrency_support", BOOL, 0, 1, ""},
    {"wasm_component_model_map", BOOL, 0, 1, ""},
    {"wasm_component_model_implements", BOOL, 0, 1, ""},
    {"wasm_component_model_canonical_names", BOOL, 0, 1, ""},
    {"wasm_component_model_accessors", BOOL, 0, 1, ""},
    {"wasm_component_model_async", BOOL, 0, 1, ""},
    {"wasm_component_model_more_async_builtins", BOOL, 0, 1, ""},
    {"wasm_component_model_async_stackful", BOOL, 0, 1, ""},
    /* How it is compiled, not what comes out. */
    {"parallel_compilation", BOOL, 0, 0, ""},
    /* Read from the store when code runs. */
    {"max_wasm_stack", SIZE, 100000, 0, ""},
    /* Checked when a memory is made: shared_memories_are_refused_by_the_store. */
    {"shared_memory", BOOL, 0, 0, ""},
    /* Tools are told of code when it is loaded, wherever it comes from. */
    {"profiler", ENUM, WASMTIME_PROFILING_STRATEGY_PERFMAP, 0, ""},
    /* Of the running process, on macOS alone. */
    {"macos_use_mach_ports", BOOL, 0, 0, ""},
};

/* Those that are no plain setters. The first three have tests of their own below. The engine's own
 * cache and a memory creator have no say in what is compiled: the one keeps artifacts, the other
 * gets the sizes that the code counts on and must obey them. */
static const char *const others[] = {
#if WASMTIME_VERSION_MAJOR < 45
    "strategy", /* has nothing to choose from */
#endif
    "target",
    "cranelift_flag_enable",
    "cranelift_flag_set",
    "cache_config_load",
    "host_memory_creator"};

/* Returns 0 if this engine has no such setting. */
static int set(wasm_config_t *config, const char *name, enum kind kind, uint64_t value)
{
    char symbol[128];
    void *found;
    union {
        void *object;
        void (*with_bool)(wasm_config_t *, bool);
        void (*with_size)(wasm_config_t *, size_t);
        void (*with_u64)(wasm_config_t *, uint64_t);
        void (*with_enum)(wasm_config_t *, uint32_t);
    } setter;
    snprintf(symbol, sizeof(symbol), "wasmtime_config_%s_set", name);
    found = dlsym(RTLD_DEFAULT, symbol);
    if (!found)
        return 0;
    setter.object = found;
    switch (kind) {
    case BOOL:
        setter.with_bool(config, value != 0);
        break;
    case SIZE:
        setter.with_size(config, (size_t)value);
        break;
    case U64:
        setter.with_u64(config, value);
        break;
    case ENUM:
        setter.with_enum(config, (uint32_t)value);
        break;
    }
    return 1;
}

static void switch_off(wasm_config_t *config, const char *list)
{
    char copy[256];
    char *rest = copy, *name;
    snprintf(copy, sizeof(copy), "%s", list);
    while ((name = strtok_r(rest, "-", &rest)) != NULL)
        set(config, name, BOOL, 0);
}

/* ---- one configuration, in a process of its own ---- */

/* In memory that is shared with the parent. */
struct trial {
    const char *dir;
    const char *with;
    const char *name; /* NULL: the default configuration */
    enum kind kind;
    uint64_t value;
    /* answers */
    int missing; /* this engine has no such setting */
    int error;   /* of the attachment */
    uint8_t fingerprint[32];
    char engine_namespace[192];
    wasmcache_outcome first, second;
    unsigned loads_of_first, loads_of_second;
    int right;  /* the module gave what it should */
    int steady; /* a second attachment, after a few compiles, comes to the same */
};

static struct trial *shared;
static struct scratch scratch;

static int set_up(void **state)
{
    (void)state;
    scratch_init(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_end(&scratch);
    return 0;
}

static int set_up_group(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared == MAP_FAILED ? -1 : 0;
}

static int tear_down_group(void **state)
{
    (void)state;
    return munmap(shared, sizeof(*shared));
}

static int run_trial(void *payload)
{
    struct trial *t = payload;
    const int32_t numbers[] = {19, 23};
    wasm_config_t *config = host_config();
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_report report;
    wasmtime_module_t *module;
    char map[64];
    struct host h;

    switch_off(config, t->with);
    if (t->name && !set(config, t->name, t->kind, t->value)) {
        t->missing = 1;
        wasm_config_delete(config);
        return 0;
    }
    open_with(&h, t->dir, config);
    wasmcache_attachment_status(h.wc, &info);
    t->error = info.error;
    memcpy(t->fingerprint, info.fingerprint, sizeof(t->fingerprint));
    snprintf(t->engine_namespace, sizeof(t->engine_namespace), "%s", info.engine_namespace);

    assert_int_equal(get_bytes(&module, &h, wasm_add, wasm_add_size, &report), 0);
    t->first = report.outcome;
    t->loads_of_first = host_loads();
    t->right = call_export(h.engine, module, "add", numbers, 2) == 42;
    wasmtime_module_delete(module);
    host_forget(&h.seen);
    assert_int_equal(get_bytes(&module, &h, wasm_add, wasm_add_size, &report), 0);
    t->second = report.outcome;
    t->loads_of_second = host_loads();
    t->right &= call_export(h.engine, module, "add", numbers, 2) == 42;
    wasmtime_module_delete(module);
    wasmcache_detach(h.wc);
    h.wc = wasmcache_wasmtime_attach(h.cache, h.engine, "");
    t->steady = strcmp(host_namespace(&h), t->engine_namespace) == 0;
    host_close(&h);
    snprintf(map, sizeof(map), "/tmp/perf-%d.map", (int)getpid());
    (void)unlink(map); /* what the profiler wrote */
    return 0;
}

static struct trial try_setting(const char *with, const char *name, enum kind kind, uint64_t value)
{
    int status;
    memset(shared, 0, sizeof(*shared));
    shared->dir = scratch_in(&scratch, "cache");
    shared->with = with;
    shared->name = name;
    shared->kind = kind;
    shared->value = value;
    status = scratch_child(run_trial, shared, 0, 60);
    if (status != 0)
        fail_msg("%s = %llu: the child ended with %d", name ? name : "default",
                 (unsigned long long)value, status);
    assert_int_equal(shared->error, 0);
    assert_true(shared->missing || shared->right);
    return *shared;
}

static int same(const struct trial *a, const struct trial *b)
{
    const int equal = memcmp(a->fingerprint, b->fingerprint, sizeof(a->fingerprint)) == 0;
    /* The namespace has its part of it. */
    assert_int_equal(equal, strcmp(a->engine_namespace, b->engine_namespace) == 0);
    return equal;
}

static void every_setting_changes_the_fingerprint_or_need_not(void **state)
{
    unsigned changed = 0, unchanged = 0, missing = 0;
    const struct trial standard = try_setting("", NULL, BOOL, 0);
    (void)state;
    assert_int_equal(standard.first, WASMCACHE_COMPILED);
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
        const struct setting *s = &settings[i];
        const uint64_t base_value = 0;
        struct trial base = standard, other;
        if (s->kind == BOOL)
            base = try_setting(s->with, s->name, BOOL, base_value);
        other = try_setting(s->with, s->name, s->kind, s->kind == BOOL ? 1 : s->value);
        if (other.missing) {
            missing++;
            continue;
        }
        if (same(&base, &other) == s->changes)
            fail_msg("%s: the fingerprint should %s", s->name, s->changes ? "change" : "stay");
        /* What the one saved is loaded by the other if, and only if, they are the same. */
        if (other.second != WASMCACHE_HIT || other.loads_of_second != 1)
            fail_msg("%s: its own entry is not loaded (%u)", s->name, other.loads_of_second);
        if (!base.steady || !other.steady)
            fail_msg("%s: the fingerprint is not the same a second time", s->name);
        if (!s->changes) {
            assert_int_equal(other.first, WASMCACHE_HIT);
            unchanged++;
        } else {
            changed++;
        }
        if (other.first == WASMCACHE_COMPILED)
            assert_int_equal(other.loads_of_first, 0);
    }
    printf("%u settings change the fingerprint, %u need not, %u are not in this engine\n", changed,
           unchanged, missing);
    assert_true(changed > 30);
}

/* With every pair of configurations, not only with the default one: no hit at all in a directory
 * where all others have saved, but by one's own fingerprint. */
static void no_entry_is_loaded_under_another_configuration(void **state)
{
    struct trial seen[2 * sizeof(settings) / sizeof(*settings)];
    size_t count = 0;
    (void)state;
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
        for (uint64_t value = 0; value < (settings[i].kind == BOOL ? 2 : 1); value++) {
            const struct setting *s = &settings[i];
            struct trial t =
                try_setting(s->with, s->name, s->kind, s->kind == BOOL ? value : s->value);
            int known = 0;
            if (t.missing)
                continue;
            for (size_t j = 0; j < count; j++)
                known |= same(&seen[j], &t);
            assert_int_equal(t.first, known ? WASMCACHE_HIT : WASMCACHE_COMPILED);
            assert_int_equal(t.loads_of_first, known ? 1 : 0);
            seen[count++] = t;
        }
}

/* A setter that a later engine has, and that nobody looked at, shows here. */
static void no_setting_of_the_header_is_missing_here(void **state)
{
    static const char mark[] = "WASMTIME_CONFIG_PROP(";
    static const char plain[] = "wasmtime_config_";
    char path[1024];
    unsigned found = 0, unknown = 0;
    uint8_t *bytes;
    size_t size;
    char *text;
    (void)state;
    snprintf(path, sizeof(path), "%s/../../include/wasmtime/config.h", ENGINE_LIBRARY);
    if (!scratch_exists(path))
        snprintf(path, sizeof(path), "%s/include/wasmtime/config.h",
                 getenv("WASMTIME_ROOT") ? getenv("WASMTIME_ROOT") : "");
    if (!scratch_exists(path)) {
        printf("there is no %s\n", path);
        skip();
    }
    bytes = scratch_read(path, &size);
    text = (char *)bytes;
    for (char *p = text; (p = strstr(p, mark)) != NULL;) {
        char name[128];
        int known = 0;
        p += sizeof(mark) - 1;
        if (sscanf(p, "%*[^,], %127[a-z0-9_]", name) != 1)
            fail_msg("cannot read a setter of %s", path);
        if (strncmp(p, "ret,", 4) == 0)
            continue; /* the macro itself */
        found++;
        for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
            known |= strcmp(settings[i].name, name) == 0;
        for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
            known |= strcmp(others[i], name) == 0;
        if (!known)
            printf("not tested: %s\n", name);
        unknown += !known;
    }
    for (char *p = text; (p = strstr(p, plain)) != NULL;) {
        char name[128];
        int known = 0, taken = 0;
        p += sizeof(plain) - 1;
        if (sscanf(p, "%127[a-z0-9_](wasm_config_t%n", name, &taken) != 1 || !taken)
            continue;
        if (strlen(name) > 4 && strcmp(name + strlen(name) - 4, "_set") == 0 &&
            strcmp(name, "cranelift_flag_set") != 0)
            name[strlen(name) - 4] = '\0';
        found++;
        for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
            known |= strcmp(others[i], name) == 0;
        if (!known)
            printf("not tested: %s\n", name);
        unknown += !known;
    }
    free(bytes);
    assert_true(found > 30);
    assert_int_equal(unknown, 0);
}

/* ---- settings with text ---- */

struct texts {
    const char *target, *enable, *key, *value;
};

static int run_texts(void *payload)
{
    const struct texts *t = payload;
    wasm_config_t *config = host_config();
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmtime_module_t *module;
    wasmcache_report report;
    struct host h;
    if (t->target)
        assert_null(wasmtime_config_target_set(config, t->target));
    if (t->enable)
        wasmtime_config_cranelift_flag_enable(config, t->enable);
    if (t->key)
        wasmtime_config_cranelift_flag_set(config, t->key, t->value);
    open_with(&h, scratch_in(&scratch, "cache"), config);
    wasmcache_attachment_status(h.wc, &info);
    shared->error = info.error;
    memcpy(shared->fingerprint, info.fingerprint, sizeof(shared->fingerprint));
    snprintf(shared->engine_namespace, sizeof(shared->engine_namespace), "%s",
             info.engine_namespace);
    if (get_bytes(&module, &h, wasm_add, wasm_add_size, &report) == 0) {
        shared->first = report.outcome;
        wasmtime_module_delete(module);
    }
    shared->loads_of_first = host_loads();
    host_close(&h);
    return 0;
}

static struct trial try_texts(struct texts t)
{
    memset(shared, 0, sizeof(*shared));
    assert_int_equal(scratch_child(run_texts, &t, 0, 60), 0);
    return *shared;
}

static void targets_and_compiler_flags(void **state)
{
    const struct trial standard = try_setting("", NULL, BOOL, 0);
    /* Naming the machine switches off the inference of what it can do. */
    const struct texts changing[] = {
        {"pulley64", NULL, NULL, NULL},
#if defined(__x86_64__)
        {"x86_64-unknown-linux-gnu", NULL, NULL, NULL},
        {"x86_64-unknown-linux-gnu", "has_sse41", NULL, NULL},
        {"x86_64-unknown-linux-gnu", NULL, "has_sse42", "true"},
#endif
        {NULL, NULL, "enable_alias_analysis", "false"},
        {NULL, NULL, "regalloc_checker", "true"},
    };
    const size_t count = sizeof(changing) / sizeof(*changing);
    struct trial got[sizeof(changing) / sizeof(*changing)];
    (void)state;
    for (size_t i = 0; i < count; i++) {
        got[i] = try_texts(changing[i]);
        assert_int_equal(got[i].error, 0);
        assert_int_equal(got[i].first, WASMCACHE_COMPILED);
        assert_int_equal(got[i].loads_of_first, 0);
        assert_false(same(&got[i], &standard));
        for (size_t j = 0; j < i; j++)
            assert_false(same(&got[i], &got[j]));
    }
    assert_non_null(strstr(got[0].engine_namespace, "-pulley-"));
    assert_non_null(strstr(standard.engine_namespace, "-cranelift-"));
}

#if defined(__x86_64__)
/* An engine for a machine that this one is not can compile and load nothing: it is not cached. */
static void engine_for_another_machine_is_not_attached(void **state)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[8192];
    int has = 0;
    struct trial got;
    (void)state;
    while (file && fgets(line, sizeof(line), file))
        has |= strstr(line, " avx512_bitalg") != NULL;
    if (file)
        fclose(file);
    if (has)
        skip();
    got = try_texts((struct texts){NULL, "has_avx512bitalg", NULL, NULL});
    assert_int_equal(got.error, WASMCACHE_EENGINE);
    assert_string_equal(got.engine_namespace, "");
    assert_int_equal(got.first, WASMCACHE_FAILED);
    assert_false(scratch_exists(scratch_in(&scratch, "cache")));
}
#endif

/* ---- what only validates ---- */

struct feature {
    const char *name, *with, *text;
};

static const struct feature features[] = {
    {"wasm_simd", "-wasm_relaxed_simd", "(module (func (result v128) (v128.const i64x2 1 2)))"},
    {"wasm_relaxed_simd", "",
     "(module (func (param v128 v128) (result v128)"
     " (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))"},
    {"wasm_multi_value", "", "(module (func (result i32 i32) (i32.const 1) (i32.const 2)))"},
    {"wasm_bulk_memory", "",
     "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))"},
    {"wasm_reference_types",
     "-wasm_function_references-wasm_gc-wasm_exceptions-wasm_component_model_async",
     "(module (table 1 externref))"},
    {"wasm_tail_call", "", "(module (func $f (return_call $f)))"},
    {"wasm_threads", "", "(module (memory 1 1 shared))"},
    {"wasm_multi_memory", "", "(module (memory 1) (memory 1))"},
    {"wasm_memory64", "", "(module (memory i64 1))"},
    {"wasm_function_references", "-wasm_gc", "(module (type $t (func)) (func (param (ref $t))))"},
    {"wasm_gc", "", "(module (type (struct)))"},
    {"wasm_exceptions", "", "(module (tag))"},
    {"wasm_wide_arithmetic", "",
     "(module (func (param i64 i64) (result i64 i64)"
     " (i64.mul_wide_u (local.get 0) (local.get 1))))"},
    {"wasm_custom_page_sizes", "", "(module (memory 1 (pagesize 1)))"},
};

struct validated {
    const struct feature *feature;
    wasm_byte_vec_t wasm;
    int on;
};

static int run_validated(void *payload)
{
    const struct validated *v = payload;
    wasm_config_t *config = host_config();
    wasmtime_module_t *module;
    wasmtime_error_t *error;
    char own[1024], cached[1024];
    struct host h;

    switch_off(config, v->feature->with);
    if (!set(config, v->feature->name, BOOL, (uint64_t)v->on))
        return 77;
    open_with(&h, scratch_in(&scratch, "cache"), config);
    error = wasmtime_module_new(h.engine, (uint8_t *)v->wasm.data, v->wasm.size, &module);
    if (v->on) {
        assert_null(error);
        wasmtime_module_delete(module);
        error = wasmcache_wasmtime_module_new(h.wc, h.engine, (uint8_t *)v->wasm.data, v->wasm.size,
                                              &module);
        assert_null(error);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_SAVED], 1);
        wasmtime_module_delete(module);
    } else {
        assert_non_null(error);
        error_text(own, sizeof(own), error);
        error = wasmcache_wasmtime_module_new(h.wc, h.engine, (uint8_t *)v->wasm.data, v->wasm.size,
                                              &module);
        assert_non_null(error);
        assert_string_equal(error_text(cached, sizeof(cached), error), own);
        assert_int_equal(host_loads(), 0);
    }
    host_close(&h);
    return 0;
}

/* What an engine would refuse to compile it does not get from the cache either. */
static void features_that_only_validate_hold_for_hits_too(void **state)
{
    unsigned tried = 0;
    (void)state;
    for (size_t i = 0; i < sizeof(features) / sizeof(*features); i++) {
        struct validated v = {&features[i], {0, NULL}, 1};
        char why[512];
        wasmtime_error_t *error =
            wasmtime_wat2wasm(features[i].text, strlen(features[i].text), &v.wasm);
        int status;
        if (error) {
            printf("%s is not tried: %s\n", features[i].name, error_text(why, sizeof(why), error));
            continue;
        }
        status = scratch_child(run_validated, &v, 0, 60);
        if (status != 77) {
            tried++;
            if (status != 0)
                fail_msg("%s on: %d", features[i].name, status);
            v.on = 0;
            status = scratch_child(run_validated, &v, 0, 60);
            if (status != 0)
                fail_msg("%s off: %d", features[i].name, status);
        }
        wasm_byte_vec_delete(&v.wasm);
    }
    assert_true(tried > 8);
}

/* ---- what is checked when a module is used ---- */

/* Compiled here and loaded there: does each make an instance? */
static void instantiate(struct host *h, const wasm_byte_vec_t *wasm, wasmcache_outcome outcome,
                        char *why, size_t size)
{
    wasmcache_report report;
    wasmtime_module_t *module;
    wasmtime_instance_t instance;
    wasm_trap_t *trap = NULL;
    wasmtime_store_t *store = wasmtime_store_new(h->engine, NULL, NULL);
    assert_int_equal(get_bytes(&module, h, wasm->data, wasm->size, &report), 0);
    assert_int_equal(report.outcome, outcome);
    error_text(
        why, size,
        wasmtime_instance_new(wasmtime_store_context(store), module, NULL, 0, &instance, &trap));
    assert_null(trap);
    wasmtime_module_delete(module);
    wasmtime_store_delete(store);
}

static int run_shared_memory(void *payload)
{
    static const char text[] = "(module (memory 1 1 shared))";
    wasm_config_t *config = host_config();
    wasm_byte_vec_t wasm;
    char why[512], own[512];
    struct host on, off;
    (void)payload;
    if (!set(config, "shared_memory", BOOL, 1))
        return 77;
    wasmtime_config_wasm_threads_set(config, true);
    assert_null(wasmtime_wat2wasm(text, strlen(text), &wasm));
    open_with(&on, scratch_in(&scratch, "cache"), config);
    config = host_config();
    wasmtime_config_wasm_threads_set(config, true);
    set(config, "shared_memory", BOOL, 0);
    open_with(&off, scratch_in(&scratch, "cache"), config);
    assert_string_equal(host_namespace(&on), host_namespace(&off));
    instantiate(&on, &wasm, WASMCACHE_COMPILED, why, sizeof(why));
    assert_string_equal(why, "");
    instantiate(&off, &wasm, WASMCACHE_HIT, why, sizeof(why));
    assert_string_not_equal(why, "");
    /* As if it had been compiled there. */
    assert_int_equal(wasmcache_remove(off.cache, host_namespace(&off),
                                      (wasmcache_key[]){key_of(wasm.data, wasm.size)}),
                     0);
    instantiate(&off, &wasm, WASMCACHE_COMPILED, own, sizeof(own));
    assert_string_equal(own, why);
    instantiate(&on, &wasm, WASMCACHE_HIT, why, sizeof(why));
    assert_string_equal(why, "");
    wasm_byte_vec_delete(&wasm);
    host_close(&on);
    host_close(&off);
    return 0;
}

static void shared_memories_are_refused_by_the_store(void **state)
{
    const int status = scratch_child(run_shared_memory, NULL, 0, 60);
    (void)state;
    if (status == 77)
        skip();
    assert_int_equal(status, 0);
}

#if defined(WASMTIME_FEATURE_POOLING_ALLOCATOR)
/* An engine with a pool of that many memories, and limits for each. */
static wasm_config_t *pool(size_t memory, size_t elements)
{
    wasm_config_t *config = host_config();
    wasmtime_pooling_allocation_config_t *p = wasmtime_pooling_allocation_config_new();
    wasmtime_pooling_allocation_config_total_memories_set(p, 4);
    wasmtime_pooling_allocation_config_total_tables_set(p, 4);
    wasmtime_pooling_allocation_config_total_core_instances_set(p, 4);
    wasmtime_pooling_allocation_config_max_memory_size_set(p, memory);
    wasmtime_pooling_allocation_config_table_elements_set(p, elements);
    wasmtime_pooling_allocation_strategy_set(config, p);
    wasmtime_pooling_allocation_config_delete(p);
    return config;
}

static int run_pools(void *payload)
{
    static const char text[] = "(module (memory 2) (table 20 funcref))";
    wasm_byte_vec_t wasm;
    char own[1024], cached[1024];
    struct host none, small, large;
    wasmtime_module_t *module;
    wasmcache_report report;
    char *path;
    ino_t inode;
    (void)payload;
    assert_null(wasmtime_wat2wasm(text, strlen(text), &wasm));
    open_with(&none, scratch_in(&scratch, "cache"), NULL);
    open_with(&large, scratch_in(&scratch, "cache"), pool(1 << 20, 100));
    open_with(&small, scratch_in(&scratch, "cache"), pool(1 << 16, 10));
    assert_string_equal(host_namespace(&none), host_namespace(&large));
    assert_string_equal(host_namespace(&none), host_namespace(&small));
    instantiate(&none, &wasm, WASMCACHE_COMPILED, own, sizeof(own));
    assert_string_equal(own, "");
    path = entry_path(&scratch, &none, wasm.data, wasm.size);
    inode = scratch_inode(path);
    instantiate(&large, &wasm, WASMCACHE_HIT, own, sizeof(own));
    assert_string_equal(own, "");

    /* What does not fit is refused when it is loaded, in the words of a compile. */
    error_text(own, sizeof(own),
               wasmtime_module_new(small.engine, (uint8_t *)wasm.data, wasm.size, &module));
    assert_string_not_equal(own, "");
    error_text(cached, sizeof(cached),
               wasmcache_wasmtime_module_new(small.wc, small.engine, (uint8_t *)wasm.data,
                                             wasm.size, &module));
    assert_string_equal(cached, own);
    assert_int_equal(get_bytes(&module, &small, wasm.data, wasm.size, &report), WASMCACHE_EENGINE);
    assert_int_equal(report.reason, WASMCACHE_REASON_ENGINE_REFUSED);
    /* And it costs the others nothing. */
    assert_int_equal(scratch_inode(path), inode);
    instantiate(&none, &wasm, WASMCACHE_HIT, own, sizeof(own));
    wasm_byte_vec_delete(&wasm);
    host_close(&none);
    host_close(&large);
    host_close(&small);
    return 0;
}

static void pools_refuse_at_load_what_they_refuse_at_compile(void **state)
{
    (void)state;
    assert_int_equal(scratch_child(run_pools, NULL, 0, 60), 0);
}
#endif

/* ---- what the embedder says ---- */

static void describe(wasmcache *cache, wasm_engine_t *engine, const wasmcache_attach_options *o,
                     struct trial *out)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_attachment *wc = wasmcache_wasmtime_attach_with(cache, engine, o);
    assert_non_null(wc);
    wasmcache_attachment_status(wc, &info);
    assert_int_equal(info.error, 0);
    memset(out, 0, sizeof(*out));
    memcpy(out->fingerprint, info.fingerprint, sizeof(out->fingerprint));
    snprintf(out->engine_namespace, sizeof(out->engine_namespace), "%s", info.engine_namespace);
    wasmcache_detach(wc);
}

static void what_the_embedder_says_counts(void **state)
{
    wasmcache_attach_options o = WASMCACHE_ATTACH_OPTIONS_INIT;
    struct trial got[7];
    struct host h;
    (void)state;
    open_with(&h, scratch_in(&scratch, "cache"), NULL);
    describe(h.cache, h.engine, &o, &got[0]);
    o.settings = "";
    describe(h.cache, h.engine, &o, &got[1]);
    assert_true(same(&got[0], &got[1]));
    o.settings = "metering 2";
    describe(h.cache, h.engine, &o, &got[1]);
    o.settings = "metering 3";
    describe(h.cache, h.engine, &o, &got[2]);
    o.target = "metering 3";
    o.settings = "";
    describe(h.cache, h.engine, &o, &got[3]);
    o.target = NULL;
    o.engine_version = "50.0.1-ours";
    describe(h.cache, h.engine, &o, &got[4]);
    o.engine_version = NULL;
    o.artifact_version = 4711;
    describe(h.cache, h.engine, &o, &got[5]);
    assert_non_null(strstr(got[5].engine_namespace, "-v4711"));
    o.artifact_version = 0;
    o.compiler = "winch";
    describe(h.cache, h.engine, &o, &got[6]);
    for (size_t i = 0; i < 7; i++)
        for (size_t j = 0; j < i; j++)
            assert_false(same(&got[i], &got[j]));
    host_close(&h);
}

/* An id of the embedder's own is one folder for all configurations: who does not match leaves the
 * other's entry alone. */
static void a_given_id_shares_the_folder_not_the_entries(void **state)
{
    wasmcache_attach_options o = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasm_config_t *config = host_config();
    wasmcache_report report;
    wasmtime_module_t *module;
    struct host a, b;
    uint8_t *before, *after;
    size_t before_size, after_size;
    char *path;
    (void)state;
    wasmtime_config_cranelift_opt_level_set(config, WASMTIME_OPT_LEVEL_NONE);
    open_with(&a, scratch_in(&scratch, "cache"), NULL);
    open_with(&b, scratch_in(&scratch, "cache"), config);
    o.engine_id = "our-own.id";
    o.artifact_version = 7;
    wasmcache_detach(a.wc);
    wasmcache_detach(b.wc);
    a.wc = wasmcache_wasmtime_attach_with(a.cache, a.engine, &o);
    b.wc = wasmcache_wasmtime_attach_with(b.cache, b.engine, &o);
    assert_string_equal(host_namespace(&a), "our-own.id-v7");
    assert_string_equal(host_namespace(&b), "our-own.id-v7");

    assert_int_equal(get_bytes(&module, &a, wasm_add, wasm_add_size, &report), 0);
    wasmtime_module_delete(module);
    assert_int_equal(report.save_error, 0);
    path = entry_path(&scratch, &a, wasm_add, wasm_add_size);
    before = scratch_read(path, &before_size);
    for (int i = 0; i < 2; i++) {
        host_forget(&b.seen);
        assert_int_equal(get_bytes(&module, &b, wasm_add, wasm_add_size, &report), 0);
        wasmtime_module_delete(module);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
        assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
        assert_int_equal(host_loads(), 0);
    }
    after = scratch_read(path, &after_size);
    assert_int_equal(after_size, before_size);
    assert_memory_equal(after, before, before_size);
    assert_int_equal(get_bytes(&module, &a, wasm_add, wasm_add_size, &report), 0);
    wasmtime_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    free(before);
    free(after);
    host_close(&a);
    host_close(&b);
}

/* ---- another process ---- */

static void another_process_comes_to_the_same(void **state)
{
    const struct trial here = try_setting("", NULL, BOOL, 0);
    char *wasm = scratch_in(&scratch, "add.wasm");
    char out[512], wanted[300];
    (void)state;
    scratch_write(wasm, wasm_add, wasm_add_size, 0400);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run_program(out, sizeof(out), "host_module", scratch_in(&scratch, "cache"),
                                     wasm, "-", NULL),
                         0);
        snprintf(wanted, sizeof(wanted), "hit none %s ", here.engine_namespace);
        assert_ptr_equal(strstr(out, wanted), out);
        assert_non_null(strstr(out, " loaded\n"));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_setting_changes_the_fingerprint_or_need_not),
        TEST(no_entry_is_loaded_under_another_configuration),
        TEST(no_setting_of_the_header_is_missing_here),
        TEST(targets_and_compiler_flags),
#if defined(__x86_64__)
        TEST(engine_for_another_machine_is_not_attached),
#endif
        TEST(features_that_only_validate_hold_for_hits_too),
        TEST(shared_memories_are_refused_by_the_store),
#if defined(WASMTIME_FEATURE_POOLING_ALLOCATOR)
        TEST(pools_refuse_at_load_what_they_refuse_at_compile),
#endif
        TEST(what_the_embedder_says_counts),
        TEST(a_given_id_shares_the_folder_not_the_entries),
        TEST(another_process_comes_to_the_same),
    };
    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
