/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row 40: what protection costs, with an artifact as large as the largest that is known here. The
 * engine is on paper: it maps the file and touches each page, as one does that runs all of it.
 * Figures only: what is slow on a busy machine is no failure.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"
#include "torture/times.h"

enum { ROUNDS = 30, SMALL = 4096 };
#define LARGE ((size_t)142 << 20)

struct paper {
    wasmcache_engine_table table;
    uint8_t *artifact;
    size_t size;
};

struct mapped {
    const uint8_t *bytes;
    size_t size;
};

/* Of where every ending would need a store that the compiler cannot leave out. */
static volatile unsigned sum;

static struct mapped *map(const char *path)
{
    struct mapped *m = malloc(sizeof(*m));
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!m || fd < 0 || fstat(fd, &st) < 0)
        abort();
    m->size = (size_t)st.st_size;
    m->bytes = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (m->bytes == MAP_FAILED)
        abort();
    close(fd);
    for (size_t at = 0; at < m->size; at += 4096)
        sum += m->bytes[at];
    return m;
}

static int compile(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                   void **module, void **error)
{
    (void)engine, (void)kind, (void)wasm, (void)length, (void)error;
    *module = calloc(1, sizeof(struct mapped));
    return *module == NULL;
}

static int serialize(void *engine, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                     void **error)
{
    const struct paper *paper = engine;
    (void)kind, (void)module, (void)error;
    out->data = paper->artifact;
    out->size = paper->size;
    return 0;
}

static void artifact_free(wasmcache_artifact *artifact)
{
    (void)artifact;
}

static int load_file(void *engine, wasmcache_kind kind, const char *path, void **module,
                     void **error)
{
    (void)engine, (void)kind, (void)error;
    *module = map(path);
    return 0;
}

static int load_bytes(void *engine, wasmcache_kind kind, const void *bytes, size_t length,
                      void **module, void **error)
{
    (void)engine, (void)kind, (void)bytes, (void)length, (void)module, (void)error;
    return 1;
}

static void module_free(wasmcache_kind kind, void *module)
{
    struct mapped *m = module;
    (void)kind;
    if (m->size)
        munmap((void *)(uintptr_t)m->bytes, m->size);
    free(m);
}

static void error_message(const void *error, char *out, size_t size)
{
    (void)error;
    snprintf(out, size, "no");
}

static void error_free(void *error)
{
    (void)error;
}

static int probe(void *engine, wasmcache_artifact *out, void **error)
{
    static const uint8_t name[] = "paper";
    (void)engine, (void)error;
    out->data = name;
    out->size = sizeof(name);
    return 0;
}

static void paper_init(struct paper *paper, size_t size)
{
    const wasmcache_engine_table table = {
        sizeof(table),
        "paper",
        1u << WASMCACHE_MODULE,
        compile,
        serialize,
        artifact_free,
        load_file,
        load_bytes,
        module_free,
        error_message,
        error_free,
        probe,
        0,
        NULL,
        NULL,
    };
    uint64_t x = 88172645463325252u;
    paper->table = table;
    paper->size = size;
    paper->artifact = malloc(size);
    assert_non_null(paper->artifact);
    for (size_t i = 0; i + 8 <= size; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(paper->artifact + i, &x, 8);
    }
}

/* A cache that checks or syncs in one way. */
struct side {
    wasmcache *cache;
    wasmcache_attachment *wc;
};

static void side_open(struct side *side, const char *dir, struct paper *paper,
                      wasmcache_verify verify, unsigned flags)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.dir = dir;
    options.verify = verify;
    options.flags = flags;
    options.max_bytes = WASMCACHE_UNLIMITED;
    attach.compiler = "none";
    attach.engine_version = "1";
    attach.artifact_version = 1;
    assert_int_equal(wasmcache_open(&side->cache, &options), 0);
    assert_int_equal(wasmcache_attach(&side->wc, side->cache, &paper->table, paper, &attach), 0);
}

static void side_close(struct side *side)
{
    wasmcache_detach(side->wc);
    wasmcache_close(side->cache);
}

/* How long a get takes, which has to come to `outcome`. */
static uint64_t get(const struct side *side, const char *wasm, wasmcache_outcome outcome)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module;
    uint64_t took = times_now();
    assert_int_equal(wasmcache_get(&module, side->wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
    took = times_now() - took;
    assert_int_equal(report.outcome, outcome);
    assert_int_equal(report.save_error, 0);
    wasmcache_module_release(module);
    return took;
}

static uint64_t load_alone(const char *path)
{
    uint64_t took = times_now();
    struct mapped *m = map(path);
    took = times_now() - took;
    module_free(WASMCACHE_MODULE, m);
    return took;
}

static double median_ms(uint64_t *ns)
{
    times_sort(ns, ROUNDS);
    return (double)ns[ROUNDS / 2] / 1e6;
}

/* The medians of loads: the engine alone, stamped, and with the digest compared each time. */
static void price_of_loads(struct row_run *run, size_t size, double ms[3])
{
    uint64_t ns[3][ROUNDS];
    struct side once, always;
    struct scratch scratch;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_key key;
    struct paper paper;
    char path[512];
    paper_init(&paper, size);
    scratch_init(&scratch);
    side_open(&once, scratch_in(&scratch, "cache"), &paper, WASMCACHE_VERIFY_ONCE, 0);
    side_open(&always, scratch_in(&scratch, "cache"), &paper, WASMCACHE_VERIFY_ALWAYS, 0);
    (void)get(&once, "w", WASMCACHE_COMPILED);
    key = rig_key("w");
    assert_int_equal(wasmcache_attachment_status(once.wc, &info), 0);
    assert_int_equal(
        wasmcache_entry_path(path, sizeof(path), once.cache, info.engine_namespace, &key), 0);
    times_pause_us(50000); /* after which a stamp is taken */
    (void)get(&once, "w", WASMCACHE_HIT);
    for (unsigned i = 0; i < ROUNDS; i++) {
        ns[0][i] = load_alone(path);
        ns[1][i] = get(&once, "w", WASMCACHE_HIT);
        ns[2][i] = get(&always, "w", WASMCACHE_HIT);
        run->tally->runs += 3;
    }
    for (unsigned i = 0; i < 3; i++)
        ms[i] = median_ms(ns[i]);
    side_close(&once);
    side_close(&always);
    scratch_end(&scratch);
    free(paper.artifact);
}

/* Open, write, perhaps fdatasync, close. */
static uint64_t write_alone(const char *path, const struct paper *paper, int synced)
{
    uint64_t took = times_now();
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t at = 0; at < paper->size;) {
        const ssize_t n = write(fd, paper->artifact + at, paper->size - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
    if (synced)
        assert_int_equal(fdatasync(fd), 0);
    close(fd);
    took = times_now() - took;
    assert_int_equal(unlink(path), 0);
    return took;
}

/* The medians of saves: a plain write, the same synced; a cached save, and a durable one. */
static void price_of_saves(struct row_run *run, double ms[4])
{
    uint64_t ns[4][ROUNDS];
    struct scratch scratch;
    struct paper paper;
    struct side side[2];
    paper_init(&paper, LARGE);
    scratch_init(&scratch);
    for (unsigned d = 0; d < 2; d++)
        side_open(&side[d], scratch_in(&scratch, "cache %u", d), &paper, WASMCACHE_VERIFY_ONCE,
                  d ? WASMCACHE_DURABLE : 0);
    for (unsigned i = 0; i < ROUNDS; i++)
        for (unsigned d = 0; d < 2; d++) {
            sync(); /* nobody else's bytes are in the way */
            ns[d][i] = write_alone(scratch_in(&scratch, "plain"), &paper, (int)d);
            sync();
            ns[2 + d][i] = get(&side[d], "w", WASMCACHE_COMPILED);
            scratch_remove(scratch_in(&scratch, "cache %u", d));
            run->tally->runs += 2;
        }
    for (unsigned d = 0; d < 2; d++)
        side_close(&side[d]);
    for (unsigned i = 0; i < 4; i++)
        ms[i] = median_ms(ns[i]);
    scratch_end(&scratch);
    free(paper.artifact);
}

void row_price(struct row_run *run)
{
    double large[3], small[3], save[4];
    price_of_loads(run, LARGE, large);
    price_of_loads(run, SMALL, small);
    price_of_saves(run, save);
    tally_note(run->tally,
               "142 MiB, medians of %d: mapped and touched by the engine alone %.1f ms, stamped "
               "%+.1f, unstamped (digest) %+.1f; 4 KiB: alone %.0f us, stamped %+.0f us; plain "
               "write %.0f ms, with fdatasync %+.0f; save %.0f, durable %+.0f",
               ROUNDS, large[0], large[1] - large[0], large[2] - large[0], small[0] * 1e3,
               (small[1] - small[0]) * 1e3, save[0], save[1] - save[0], save[2], save[3] - save[2]);
}
