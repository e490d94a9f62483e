/* SPDX-License-Identifier: Apache-2.0 */
/* Row 28: names that mean harm. */
#define _GNU_SOURCE
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

static const char wasm[] = "a module that was there before";

struct opened {
    struct tally *t;
    const char *root;
    unsigned long opens;
};

/* The paths that a process of any directory may ask about the system it runs on. */
static int is_of_the_system(const char *path)
{
    static const char *const known[] = {"/proc/",     "/sys/", "/dev/null",
                                        "/etc/ld.so", "/lib",  "/usr/lib"};
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strncmp(path, known[i], strlen(known[i])) == 0)
            return !strstr(path, "..");
    return 0;
}

static void note_open(struct trace_call *call, void *payload)
{
    static const char *const with_path[] = {"openat",   "openat2",   "unlinkat", "mkdirat",
                                            "linkat",   "renameat2", "renameat", "mkdir",
                                            "fchmodat", "utimensat"};
    struct opened *o = payload;
    char path[600];
    int counts = 0, inside;
    if (call->at_exit)
        return;
    for (size_t i = 0; i < sizeof(with_path) / sizeof(*with_path); i++)
        counts |= strcmp(call->name, with_path[i]) == 0;
    if (!counts)
        return;
    trace_path(call, path, sizeof(path));
    if (!path[0] || is_of_the_system(path))
        return;
    o->opens++;
    if (path[0] == '/')
        inside = strncmp(path, o->root, strlen(o->root)) == 0 && !strstr(path, "/../") &&
                 (path[strlen(o->root)] == '/' || !path[strlen(o->root)]);
    else /* one component below a descriptor, or the table of hints beside a namespace */
        inside = strncmp(path, "../.hints-", 10) == 0
                     ? !strchr(path + 3, '/')
                     : !strchr(path, '/') && strcmp(path, "..") != 0;
    tally_check(o->t, 'X', inside, "%s of \"%s\"", call->name, path);
}

/* A name that means harm. */
static void hostile_name(char out[400], uint64_t *seed)
{
    static const char *const pieces[] = {
        "..", "/", "../", "./",   ".", "a", "-v1",  "\n",          "\xff", "\xc3", "%2e%2e",
        "\\", "~", "A9",  "\x7f", " ", "*", "fake", "/etc/passwd", "v",    "-v2"};
    const unsigned count = (unsigned)lab_dice(seed) % 12;
    size_t used = 0;
    out[0] = '\0';
    if (lab_dice(seed) % 20 == 0) { /* a long one */
        memset(out, 'a', 399);
        out[250 + lab_dice(seed) % 149] = '\0';
        return;
    }
    for (unsigned i = 0; i < count && used < 380; i++)
        used += (size_t)snprintf(out + used, 400 - used, "%s",
                                 pieces[lab_dice(seed) % (sizeof(pieces) / sizeof(*pieces))]);
}

struct names {
    struct rig *r;
    unsigned count;
    uint64_t seed;
    uint64_t refused, taken;
};

static int use_names(void *argument)
{
    struct names *n = argument;
    struct rig *r = n->r;
    wasmcache_key key = rig_key(wasm);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    trace_on();
    for (unsigned i = 0; i < n->count; i++) {
        char name[400], path[2000];
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
        wasmcache_attach_options attach = r->attach;
        wasmcache_attachment *wc = NULL;
        wasmcache_iterator *it = NULL;
        wasmcache_key other;
        int rc = 0;
        hostile_name(name, &n->seed);
        switch (i % 8) {
        case 0:
            rc = wasmcache_entry_check(&entry, r->cache, name, &key, 0);
            break;
        case 1:
            rc = wasmcache_remove(r->cache, name, &key);
            break;
        case 2:
            rc = wasmcache_pin(r->cache, name, &key, 1);
            break;
        case 3:
            rc = wasmcache_iterate(&it, r->cache, name, 0);
            if (rc == 0)
                rc = wasmcache_iterator_next(it, &entry);
            wasmcache_iterator_close(it);
            break;
        case 4:
            rc = wasmcache_entry_path(path, sizeof(path), r->cache, name, &key);
            break;
        case 5:
            rc = wasmcache_key_from_hex(&other, name);
            if (rc == 0)
                rc = wasmcache_remove(r->cache, "fake-v1", &other);
            break;
        default: /* of the engine: its own id, or what is made into one */
            attach.engine_id = i % 8 == 6 ? name : NULL;
            attach.compiler = i % 8 == 7 ? name : "none";
            rc = wasmcache_attach(&wc, r->cache, &r->engine.table, &r->engine, &attach);
            if (rc == 0) {
                const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
                wasmcache_module *module = NULL;
                (void)wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL);
                wasmcache_module_release(module);
            }
            wasmcache_detach(wc);
        }
        if (rc == WASMCACHE_EMISUSE)
            n->refused++;
        else
            n->taken++;
    }
    trace_off();
    rig_close(r);
    return 0;
}

void row_names(struct row_run *run)
{
    struct tally *t = run->tally;
    struct names *n =
        mmap(NULL, sizeof(*n), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct opened opened = {t, NULL, 0};
    struct trace_end ended;
    struct rig r;
    if (trace_missing()) {
        tally_skip(t, "%s", trace_missing());
        return;
    }
    assert_true(n != MAP_FAILED);
    rig_init(&r);
    r.engine.knows_others = 1;
    n->r = &r;
    n->count = run->tier == TIER_QUICK ? 2000 : 10000;
    n->seed = run->seed;
    opened.root = r.dir;
    trace(&ended, use_names, n, note_open, &opened, 300);
    t->runs = n->count;
    tally_check(t, 'D', ended.exit_status == 0 && !ended.late, "it ended with status %d, signal %d",
                ended.exit_status, ended.signal);
    tally_note(t,
               "%lu opens and renames, none outside of the directory; %llu names refused, %llu "
               "taken",
               opened.opens, (unsigned long long)n->refused, (unsigned long long)n->taken);
    munmap(n, sizeof(*n));
    lab_rig_end(t, &r);
}
