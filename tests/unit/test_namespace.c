/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names: which are accepted, and that nothing a caller passes leaves the cache directory. What the
 * grammar says is held against regular expressions, which are written from docs/format.md.
 */
#define _XOPEN_SOURCE 700 /* realpath */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "key.h"
#include "namespace.h"
#include "os/os.h"
#include "support/fake_engine.h"
#include "support/scratch.h"

#define FUZZED 10000
#define NAME_ROOM 400

#define HEX64 "[0-9A-F]{64}"
#define HEX16 "[0-9A-F]{16}"
static const char key_hex[] = "93A44BBB96C751218E4C00D479E4C14358122A389ACCA16205B1E4D0DC5F9476";

/* ---- the grammar, a second time ---- */

static regex_t re_id, re_namespace, re_entry, re_temp, re_old, re_hex;

static int compile_grammar(void **state)
{
    static const struct {
        regex_t *re;
        const char *text;
    } all[] = {
        {&re_id, "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$"},
        {&re_namespace, "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}-v(0|[1-9][0-9]{0,9})$"},
        {&re_entry, "^(" HEX64 "|" HEX16 ")\\.bin$"},
        {&re_temp, "^\\.tmp-" HEX16 "$"},
        {&re_old, "^\\.old-(" HEX64 "|" HEX16 ")\\.bin-" HEX16 "$"},
        {&re_hex, "^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{16})$"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (regcomp(all[i].re, all[i].text, REG_EXTENDED | REG_NOSUB) != 0)
            return -1;
    return 0;
}

static int free_grammar(void **state)
{
    (void)state;
    regfree(&re_id);
    regfree(&re_namespace);
    regfree(&re_entry);
    regfree(&re_temp);
    regfree(&re_old);
    regfree(&re_hex);
    return 0;
}

static int is(const regex_t *re, const char *text)
{
    return regexec(re, text, 0, NULL, 0) == 0;
}

static int is_id(const char *text)
{
    return is(&re_id, text) && !strstr(text, "..");
}

static int is_namespace(const char *text)
{
    return is(&re_namespace, text) && !strstr(text, "..") &&
           strtoull(strrchr(text, 'v') + 1, NULL, 10) <= UINT32_MAX;
}

/* All validators and parsers agree with the grammar about `name`. */
static void compare(const char *name)
{
    char of[WC_ENTRY_NAME_SIZE], again[WC_ENTRY_NAME_SIZE];
    wasmcache_key key;
    int entry = wc_entry_name_parse(&key, name) == 0;
    int private = wc_private_name_parse(of, name);

    assert_int_equal(wc_engine_id_valid(name), is_id(name));
    assert_int_equal(wc_namespace_valid(name), is_namespace(name));
    assert_int_equal(entry, is(&re_entry, name));
    assert_int_equal(private, is(&re_temp, name) || is(&re_old, name));
    assert_int_equal(of[0] != '\0', is(&re_old, name));
    if (entry) {
        wc_entry_name(again, &key);
        assert_string_equal(again, name);
    }
    if (of[0])
        assert_memory_equal(name + 5, of, strlen(of));
    assert_int_equal(wasmcache_key_from_hex(&key, name) == 0, is(&re_hex, name));
}

/* ---- names by hand ---- */

static char *repeated(char *out, char c, size_t count, const char *tail)
{
    memset(out, c, count);
    strcpy(out + count, tail);
    return out;
}

static void engine_ids(void **state)
{
    static const char *const good[] = {"a",   "0",     "Z",   "wasmtime-cranelift-23F91500F4B83756",
                                       "a.b", "a_b",   "a+b", "a-",
                                       "a.",  "a.b.c", "v1"};
    static const char *const bad[] = {
        "",      ".",   "..", "-a",  "_a",  "+a",   ".a",   "a..",  "a..b", "a/b",    "/",
        "a/",    "a b", " a", "a ",  "a\n", "\n",   "a\tb", "a\\b", "a:b",  "a\177b", "\xc3\xa4",
        "a\xff", "a*",  "a?", "a$b", "a%b", "../x", "~",    "a;b",  "a'b"};
    char text[NAME_ROOM];
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_true(wc_engine_id_valid(good[i]));
        compare(good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_false(wc_engine_id_valid(bad[i]));
        compare(bad[i]);
    }
    assert_false(wc_engine_id_valid(NULL));
    assert_true(wc_engine_id_valid(repeated(text, 'a', 128, "")));
    assert_false(wc_engine_id_valid(repeated(text, 'a', 129, "")));
    assert_false(wc_engine_id_valid(repeated(text, 'a', 300, "")));
}

static void each_byte_at_each_place(void **state)
{
    (void)state;
    for (int c = 1; c < 256; c++)
        for (size_t at = 0; at < 4; at++) {
            char id[] = "abcd", ns[] = "abcd-v10";
            id[at] = (char)c;
            compare(id);
            for (size_t i = at; i < sizeof(ns) - 1; i += 4) {
                char before = ns[i];
                ns[i] = (char)c;
                compare(ns);
                ns[i] = before;
            }
        }
}

static void namespaces(void **state)
{
    static const char *const good[] = {"a-v0",  "a-v1", "a-v4294967295",         "a-v1-v2",
                                       "a--v1", "v-v1", "cranelift-opts-rkyv-v7"};
    static const char *const bad[] = {"",
                                      "a",
                                      "a-v",
                                      "-v1",
                                      "v1",
                                      "a-v01",
                                      "a-v00",
                                      "a-v-1",
                                      "a-v+1",
                                      "a-v1x",
                                      "a-vx",
                                      "a-V1",
                                      "a-v1.",
                                      "a-v1 ",
                                      "a-v1\n",
                                      "a-v 1",
                                      "a.v1",
                                      "a-v4294967296",
                                      "a-v99999999999999999999",
                                      "a-v18446744073709551617",
                                      "../a-v1",
                                      "a/../b-v1",
                                      "a..b-v1",
                                      "..-v1",
                                      "/a-v1",
                                      "u0",
                                      "CACHEDIR.TAG"};
    char text[NAME_ROOM];
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_true(wc_namespace_valid(good[i]));
        compare(good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_false(wc_namespace_valid(bad[i]));
        compare(bad[i]);
    }
    assert_false(wc_namespace_valid(NULL));
    assert_true(wc_namespace_valid(repeated(text, 'n', 128, "-v4294967295")));
    assert_int_equal(strlen(text) + 1, WC_NAMESPACE_SIZE);
    assert_false(wc_namespace_valid(repeated(text, 'n', 129, "-v1")));
    assert_false(wc_namespace_valid(repeated(text, 'n', 300, "-v1")));
}

static void namespaces_that_are_made(void **state)
{
    char made[WC_NAMESPACE_SIZE], id[NAME_ROOM];
    (void)state;
    wc_namespace_make(made, "wasmtime-cranelift-00", 50);
    assert_string_equal(made, "wasmtime-cranelift-00-v50");
    wc_namespace_make(made, repeated(id, 'i', WC_ENGINE_ID_MAX, ""), UINT32_MAX);
    assert_int_equal(strlen(made), WC_NAMESPACE_SIZE - 1); /* nothing was cut */
    assert_true(wc_namespace_valid(made));
}

/* Ours end with 16 upper-case hex digits behind a dash. */
static void namespaces_that_others_may_use_too(void **state)
{
    static const char *const shared[] = {
        "cranelift-opts-rkyv-v9",
        "a-v1",
        "0123456789ABCDEF-v1",
        "wasmtime-cranelift-0123456789ABCDE-v50",
        "wasmtime-cranelift-0123456789abcdef-v50",
        "wasmtime-cranelift-0123456789ABCDEG-v50",
        "wasmtime-cranelift_0123456789ABCDEF-v50",
        "wasmtime-cranelift-0123456789ABCDEF0-v50",
        "wasmtime-cranelift-0123456789ABCDEF-v1-v50",
        "wasmtime-cranelift-0123456789ABCDEF.-v50",
    };
    static const char *const own[] = {
        "wasmtime-cranelift-0123456789ABCDEF-v50",
        "wasmer-default-0000000000000000-v9",
        "fake-none-FFFFFFFFFFFFFFFF-v4294967295",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(shared) / sizeof(*shared); i++) {
        assert_true(wc_namespace_valid(shared[i]));
        if (!wc_namespace_is_shared(shared[i]))
            fail_msg("%s", shared[i]);
    }
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        assert_true(wc_namespace_valid(own[i]));
        if (wc_namespace_is_shared(own[i]))
            fail_msg("%s", own[i]);
    }
}

static void entry_names(void **state)
{
    char name[WC_ENTRY_NAME_SIZE], other[NAME_ROOM];
    wasmcache_key key, back;
    (void)state;
    assert_int_equal(wasmcache_key_from_hex(&key, key_hex), 0);
    wc_entry_name(name, &key);
    snprintf(other, sizeof(other), "%s.bin", key_hex);
    assert_string_equal(name, other);
    assert_int_equal(wc_entry_name_parse(&back, name), 0);
    assert_true(wasmcache_key_equal(&key, &back));

    assert_int_equal(wasmcache_key_from_hex(&key, "0CC78860D414714C"), 0);
    wc_entry_name(name, &key);
    assert_string_equal(name, "0CC78860D414714C.bin");
    assert_int_equal(wc_entry_name_parse(&back, name), 0);
    assert_int_equal(back.algorithm, WASMCACHE_KEY_XXH64);
}

/* One file has one name: what a directory that folds case, or somebody else, puts there is none. */
static void other_forms_of_an_entry_name(void **state)
{
    static const char *const bad[] = {
        "",
        ".bin",
        "0CC78860D414714C",
        "0CC78860D414714C.bi",
        "0CC78860D414714C.binx",
        "0CC78860D414714C.BIN",
        "0cc78860d414714c.bin",
        "0CC78860D414714c.bin",
        "0CC78860D414714.bin",
        "0CC78860D414714C0.bin",
        "0CC78860D414714G.bin",
        "0CC78860D414714C.bin\n",
        " CC78860D414714C.bin",
        "0CC78860D414714C.bin/",
        "./0CC78860D414714C.bin",
        "0CC78860/414714C.bin",
    };
    char text[NAME_ROOM];
    wasmcache_key key;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        memset(&key, 0xEE, sizeof(key));
        assert_int_equal(wc_entry_name_parse(&key, bad[i]), -1);
        assert_int_equal(key.length, 0xEE); /* nothing was written */
        compare(bad[i]);
    }
    for (size_t digits = 0; digits < 300; digits++)
        compare(repeated(text, 'A', digits, ".bin"));
}

static void private_names(void **state)
{
    char name[WC_PRIVATE_NAME_SIZE], again[WC_PRIVATE_NAME_SIZE], of[WC_ENTRY_NAME_SIZE];
    char entry[WC_ENTRY_NAME_SIZE];
    (void)state;
    assert_int_equal(wc_private_name(name, NULL), 0);
    assert_true(is(&re_temp, name));
    assert_int_equal(wc_private_name_parse(of, name), 1);
    assert_string_equal(of, "");
    assert_int_equal(wc_private_name(again, NULL), 0);
    assert_string_not_equal(name, again);

    snprintf(entry, sizeof(entry), "%s.bin", key_hex);
    assert_int_equal(wc_private_name(name, entry), 0);
    assert_true(is(&re_old, name));
    assert_int_equal(wc_private_name_parse(of, name), 1);
    assert_string_equal(of, entry);
    assert_int_equal(wc_private_name(again, entry), 0);
    assert_string_not_equal(name, again);

    assert_int_equal(wc_private_name(name, "0CC78860D414714C.bin"), 0);
    assert_int_equal(wc_private_name_parse(of, name), 1);
    assert_string_equal(of, "0CC78860D414714C.bin");
}

static void names_that_are_not_private(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        ".tmp-",
        ".tmp-0123456789ABCDE",
        ".tmp-0123456789ABCDEF0",
        ".tmp-0123456789abcdef",
        ".tmp-0123456789ABCDEF\n",
        "tmp-0123456789ABCDEF",
        ".tmp_0123456789ABCDEF",
        "..tmp-0123456789ABCDEF",
        ".old-",
        ".old-0123456789ABCDEF",
        ".old--0123456789ABCDEF",
        ".old-0CC78860D414714C.bin",
        ".old-0CC78860D414714C.bin-",
        ".old-0CC78860D414714C.bin-0123456789ABCDE",
        ".old-0CC78860D414714C.bin-0123456789ABCDEFA",
        ".old-0CC78860D414714C-0123456789ABCDEF",
        ".old-0cc78860d414714c.bin-0123456789ABCDEF",
        ".old-../../../x.bin-0123456789ABCDEF",
        ".old-CACHEDIR.TAG-0123456789ABCDEF",
        ".old-.tmp-0123456789ABCDEF-0123456789ABCDEF",
        ".tmp-0CC78860D414714C.bin-0123456789ABCDEF",
    };
    char of[WC_ENTRY_NAME_SIZE], text[NAME_ROOM];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        strcpy(of, "before");
        assert_int_equal(wc_private_name_parse(of, bad[i]), 0);
        assert_string_equal(of, "");
        compare(bad[i]);
    }
    snprintf(text, sizeof(text), ".old-%0300d-0123456789ABCDEF", 0);
    assert_int_equal(wc_private_name_parse(of, text), 0);
}

static int no_random(const char *call)
{
    return strcmp(call, "random") == 0 ? -EIO : 0;
}

static void private_name_without_randomness(void **state)
{
    char name[WC_PRIVATE_NAME_SIZE];
    (void)state;
    wc_os_hook = no_random;
    assert_int_equal(wc_private_name(name, NULL), -EIO);
    wc_os_hook = NULL;
}

/* ---- 10,000 names, always the same ---- */

static uint64_t random_state;

static unsigned random_below(unsigned limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 11) % limit;
}

struct fuzzed {
    size_t length; /* with NUL bytes in it */
    char text[NAME_ROOM];
};

static void add(struct fuzzed *name, const char *bytes, size_t length)
{
    if (name->length + length >= NAME_ROOM)
        length = NAME_ROOM - 1 - name->length;
    memcpy(name->text + name->length, bytes, length);
    name->length += length;
}

/* A name that is good or nearly so, with up to four places where something is put in, put over, or
 * taken away. */
static void next_name(struct fuzzed *name)
{
    static const char *const seeds[] = {
        "wasmtime-cranelift-23F91500F4B83756",
        "wasmtime-cranelift-23F91500F4B83756-v50",
        "cranelift-opts-rkyv",
        "a-v0",
        "a-v4294967295",
        "93A44BBB96C751218E4C00D479E4C14358122A389ACCA16205B1E4D0DC5F9476.bin",
        "0CC78860D414714C.bin",
        "0CC78860D414714C",
        ".tmp-0123456789ABCDEF",
        ".old-0CC78860D414714C.bin-0123456789ABCDEF",
        "u0",
        "",
    };
    static const struct {
        const char *bytes;
        size_t length;
    } nasty[] = {{"/", 1},        {"..", 2},       {"../", 3},
                 {"/../", 4},     {"\0", 1},       {"\n", 1},
                 {"\xff\xfe", 2}, {"\xc0\xaf", 2}, {"\xed\xa0\x80", 3},
                 {"\xf8", 1},     {".", 1},        {"-", 1},
                 {"-v", 2},       {"v", 1},        {"%2e%2e%2f", 9},
                 {"\\", 1},       {" ", 1},        {"\x7f", 1},
                 {"~", 1},        {"0", 1},        {"9", 1},
                 {"A", 1},        {"f", 1},        {"_", 1},
                 {"+", 1},        {"/etc", 4},     {"proc/self", 9}};
    struct fuzzed before;
    const char *seed = seeds[random_below(sizeof(seeds) / sizeof(*seeds))];

    name->length = 0;
    add(name, seed, strlen(seed));
    if (random_below(12) == 0) { /* long ones, some just as long as may be */
        char filler[300];
        memset(filler, "ax0"[random_below(3)], sizeof(filler));
        add(name, filler, random_below(2) ? 93 + random_below(40) : 200 + random_below(100));
        if (random_below(2))
            add(name, "-v7", 3);
    }
    for (unsigned edits = random_below(5); edits; edits--) {
        size_t at = random_below((unsigned)name->length + 1);
        size_t skip = random_below(2) ? 0 : random_below(3);
        unsigned what = random_below(sizeof(nasty) / sizeof(*nasty) + 4);
        before = *name;
        name->length = at;
        if (what < sizeof(nasty) / sizeof(*nasty)) {
            add(name, nasty[what].bytes, nasty[what].length);
        } else {
            char byte = (char)random_below(256);
            add(name, &byte, 1);
        }
        if (at + skip < before.length)
            add(name, before.text + at + skip, before.length - at - skip);
    }
    name->text[name->length] = '\0';
}

static void fuzzed_names_against_the_grammar(void **state)
{
    unsigned slash = 0, parent = 0, newline = 0, nul = 0, high = 0, large = 0;
    unsigned ids = 0, spaces = 0, entries = 0, privates = 0;
    struct fuzzed name;
    (void)state;
    random_state = 0x5EED;
    for (int i = 0; i < FUZZED; i++) {
        /* Nothing is read behind its NUL. */
        char *exact;
        next_name(&name);
        exact = strdup(name.text);
        assert_non_null(exact);
        compare(exact);
        if (wc_engine_id_valid(exact) || wc_namespace_valid(exact)) {
            static const char allowed[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-";
            assert_int_equal(strspn(exact, allowed), strlen(exact));
            assert_true(strlen(exact) < WC_NAMESPACE_SIZE && exact[0] != '.');
            assert_null(strstr(exact, ".."));
        }
        ids += wc_engine_id_valid(exact) != 0;
        spaces += wc_namespace_valid(exact) != 0;
        entries += (unsigned)is(&re_entry, exact);
        privates += (unsigned)(is(&re_temp, exact) || is(&re_old, exact));
        slash += memchr(name.text, '/', name.length) != NULL;
        parent += strstr(exact, "..") != NULL;
        newline += memchr(name.text, '\n', name.length) != NULL;
        nul += strlen(exact) != name.length;
        large += name.length >= 256;
        for (size_t j = 0; j < name.length; j++)
            if ((unsigned char)name.text[j] >= 0x80) {
                high++;
                break;
            }
        free(exact);
    }
    /* The generator makes enough of each sort, or this would prove nothing. */
    assert_true(slash > 1000 && parent > 1000 && newline > 300 && nul > 300 && high > 500);
    assert_true(large > 200 && ids > 1000 && spaces > 500 && entries > 200 && privates > 200);
}

/* ---- what is opened ---- */

/* While the library works, each descriptor that it has open is looked at. */
static struct {
    char root[256];
    unsigned char ours[256]; /* open before */
    unsigned calls, opened;
    char outside[512]; /* the first path that should not have been opened */
} watch;

static int watch_descriptors(const char *call)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *item;
    size_t length = strlen(watch.root);
    (void)call;
    watch.calls++;
    while (dir && (item = readdir(dir)) != NULL) {
        char link_name[300], path[512];
        int fd = atoi(item->d_name);
        ssize_t n;
        if (item->d_name[0] == '.' || fd == dirfd(dir) || (fd < 256 && watch.ours[fd]))
            continue;
        snprintf(link_name, sizeof(link_name), "/proc/self/fd/%d", fd);
        n = readlink(link_name, path, sizeof(path) - 1);
        if (n < 0)
            continue;
        path[n] = '\0';
        watch.opened++;
        if (strncmp(path, watch.root, length) != 0 ||
            (path[length] != '\0' && path[length] != '/') || strstr(path + length, "/../"))
            if (!watch.outside[0])
                snprintf(watch.outside, sizeof(watch.outside), "%s", path);
    }
    if (dir)
        closedir(dir);
    return 0;
}

struct world {
    struct scratch s;
    char *root;
    wasmcache *cache;
    struct fake_engine engine;
    wasmcache_key key;
    unsigned descriptors;
};

static void watch_start(const struct world *w)
{
    DIR *dir;
    struct dirent *item;
    char *real;
    memset(&watch, 0, sizeof(watch));
    real = realpath(w->s.dir, NULL); /* as /proc shows it; the cache may not be there yet */
    assert_non_null(real);
    snprintf(watch.root, sizeof(watch.root), "%s%s", real, w->root + strlen(w->s.dir));
    free(real);
    dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while ((item = readdir(dir)) != NULL)
        if (item->d_name[0] != '.' && atoi(item->d_name) < 256 && atoi(item->d_name) != dirfd(dir))
            watch.ours[atoi(item->d_name)] = 1;
    closedir(dir);
    wc_os_hook = watch_descriptors;
}

static void watch_end(void)
{
    wc_os_hook = NULL;
    assert_string_equal(watch.outside, "");
}

/* A cache with something beside it that a path with ".." would find. */
static int make_world(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    assert_non_null(w);
    scratch_init(&w->s);
    w->descriptors = scratch_descriptors();
    w->root = scratch_in(&w->s, "cache");
    scratch_write(scratch_in(&w->s, "0CC78860D414714C.bin"), "beside", 6, 0600);
    options.dir = w->root;
    assert_int_equal(wasmcache_open(&w->cache, &options), 0);
    fake_engine_init(&w->engine, 1);
    assert_int_equal(wasmcache_key_from_hex(&w->key, "0CC78860D414714C"), 0);
    *state = w;
    return 0;
}

static int end_world(void **state)
{
    struct world *w = *state;
    wc_os_hook = NULL;
    fake_engine_end(&w->engine);
    wasmcache_close(w->cache);
    assert_int_equal(scratch_descriptors(), w->descriptors);
    scratch_end(&w->s);
    free(w);
    return 0;
}

/* Every public function that takes a namespace. */
static void use_namespace(struct world *w, const char *name)
{
    const int good = is_namespace(name);
    const unsigned calls = watch.calls;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it = NULL;
    char path[NAME_ROOM + 300] = "";

    assert_int_equal(wasmcache_entry_path(path, sizeof(path), w->cache, name, &w->key),
                     good ? 0 : WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_check(&entry, w->cache, name, &w->key, 0),
                     good ? 0 : WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_remove(w->cache, name, &w->key),
                     good ? WASMCACHE_EMISS : WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_iterate(&it, w->cache, name, 0), good ? 0 : WASMCACHE_EMISUSE);
    if (good) {
        char expected[NAME_ROOM + 300];
        snprintf(expected, sizeof(expected), "%s/%s/0CC78860D414714C.bin", w->root, name);
        assert_string_equal(path, expected);
        assert_int_equal(wasmcache_iterator_next(it, &entry), WASMCACHE_EMISS);
        wasmcache_iterator_close(it);
    } else {
        assert_string_equal(path, "");
        assert_null(it);
        assert_int_equal(watch.calls, calls); /* nothing was touched */
    }
}

static int use_id(struct world *w, const char *name, int save)
{
    const int good = is_id(name);
    const unsigned calls = watch.calls;
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_source source = wasmcache_source_bytes("\0asm", 4);
    wasmcache_attachment *wc = NULL;
    wasmcache_module *module = NULL;

    options.compiler = "fake";
    options.engine_version = "1";
    options.artifact_version = 1;
    options.engine_id = name;
    assert_int_equal(wasmcache_attach(&wc, w->cache, &w->engine.table, &w->engine, &options),
                     good ? 0 : WASMCACHE_EMISUSE);
    if (!good) {
        assert_null(wc);
        assert_int_equal(watch.calls, calls);
        return 0;
    }
    assert_int_equal(wasmcache_attachment_status(wc, &info), 0);
    assert_int_equal(info.error, 0);
    assert_true(is_namespace(info.engine_namespace));
    assert_memory_equal(info.engine_namespace, name, strlen(name));
    if (save) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        char path[NAME_ROOM + 300];
        assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
        assert_true(report.outcome == WASMCACHE_HIT || report.save_error == 0);
        wasmcache_module_release(module);
        assert_int_equal(
            wasmcache_entry_path(path, sizeof(path), w->cache, info.engine_namespace, &report.key),
            0);
        assert_true(scratch_exists(path));
    }
    wasmcache_detach(wc);
    return 1;
}

static void fuzzed_names_leave_nothing_outside(void **state)
{
    struct world *w = *state;
    struct fuzzed name;
    unsigned saved = 0;
    const char *tree;

    random_state = 0xCAFE;
    watch_start(w);
    for (int i = 0; i < FUZZED; i++) {
        next_name(&name);
        use_namespace(w, name.text);
        saved += (unsigned)use_id(w, name.text, saved < 200);
    }
    watch_end();
    assert_true(saved > 1000);
    assert_true(watch.opened > 2000); /* it did see descriptors */

    tree = scratch_tree(&w->s, w->s.dir);
    for (const char *line = tree; *line; line = strchr(line, '\n') + 1)
        assert_true(strncmp(line, "cache/", 6) == 0 ||
                    strncmp(line, "0CC78860D414714C.bin\n", 21) == 0);
    assert_null(strstr(tree, ".tmp-"));
}

static void null_names_are_misuse(void **state)
{
    struct world *w = *state;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    char path[300] = "";
    wc_os_hook = watch_descriptors;
    watch.calls = 0;
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), w->cache, NULL, &w->key),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), w->cache, "a-v1", NULL),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_path(NULL, 0, w->cache, "a-v1", &w->key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_check(&entry, w->cache, NULL, &w->key, 0), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_remove(w->cache, NULL, &w->key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_remove(w->cache, "a-v1", NULL), WASMCACHE_EMISUSE);
    assert_int_equal(watch.calls, 0);
    wc_os_hook = NULL;
}

/* A key is the caller's memory: what is in it is not believed. */
static void fuzzed_keys(void **state)
{
    struct world *w = *state;
    unsigned good = 0;
    random_state = 0xBEEF;
    watch_start(w);
    for (int i = 0; i < FUZZED; i++) {
        const unsigned calls = watch.calls;
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
        wasmcache_key key;
        char path[500] = "";
        int valid;
        memset(&key, 0, sizeof(key));
        key.algorithm = (uint8_t)(random_below(8) ? 1 + random_below(2) : random_below(256));
        key.length = (uint8_t)(random_below(8) ? (random_below(2) ? 8 : 32) : random_below(256));
        for (unsigned j = random_below(3) ? 8 : 32; j; j--)
            key.bytes[j - 1] = (uint8_t)random_below(256);
        valid = (key.algorithm == WASMCACHE_KEY_SHA256 && key.length == 32) ||
                (key.algorithm == WASMCACHE_KEY_XXH64 && key.length == 8);
        for (size_t j = 8; j < 32; j++)
            if (key.length == 8 && key.bytes[j])
                valid = 0;
        good += (unsigned)valid;
        assert_int_equal(wc_key_valid(&key), valid);
        assert_int_equal(wasmcache_entry_path(path, sizeof(path), w->cache, "a-v1", &key),
                         valid ? 0 : WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_entry_check(&entry, w->cache, "a-v1", &key, 0),
                         valid ? 0 : WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_remove(w->cache, "a-v1", &key),
                         valid ? WASMCACHE_EMISS : WASMCACHE_EMISUSE);
        if (valid)
            assert_true(is(&re_entry, strrchr(path, '/') + 1));
        else
            assert_int_equal(watch.calls, calls);
    }
    watch_end();
    assert_true(good > 1000 && good < 9000);
}

/* Names that others put into the directory: only entries are entries, only temps are temps. */
static void fuzzed_names_in_the_directory(void **state)
{
    struct world *w = *state;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    struct fuzzed name;
    unsigned made = 0, entries = 0, privates = 0, seen = 0;
    uint64_t removed = 0;

    assert_int_equal(use_id(w, "n", 1), 1);
    random_state = 0xF11E;
    for (int i = 0; made < 400 && i < FUZZED; i++) {
        char *path;
        next_name(&name);
        path = scratch_in(&w->s, "cache/n-v1/%s", name.text);
        if (!name.text[0] || strchr(name.text, '/') || strlen(name.text) > 240 ||
            strcmp(name.text, ".") == 0 || strcmp(name.text, "..") == 0 || scratch_exists(path))
            continue;
        scratch_write(path, "x", 1, 0600);
        made++;
        entries += (unsigned)is(&re_entry, name.text);
        privates += (unsigned)(is(&re_temp, name.text) || is(&re_old, name.text));
    }
    assert_true(made == 400 && entries > 0 && privates > 0);
    watch_start(w);
    assert_int_equal(wasmcache_iterate(&it, w->cache, NULL, 0), 0);
    while (wasmcache_iterator_next(it, &entry) == 0) {
        assert_string_equal(entry.engine_namespace, "n-v1");
        seen++;
    }
    wasmcache_iterator_close(it);
    assert_int_equal(seen, entries + 1);
    assert_int_equal(wasmcache_clean(w->cache, &removed), 0);
    assert_int_equal(removed, privates);
    watch_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_ids),
        cmocka_unit_test(each_byte_at_each_place),
        cmocka_unit_test(namespaces),
        cmocka_unit_test(namespaces_that_are_made),
        cmocka_unit_test(namespaces_that_others_may_use_too),
        cmocka_unit_test(entry_names),
        cmocka_unit_test(other_forms_of_an_entry_name),
        cmocka_unit_test(private_names),
        cmocka_unit_test(names_that_are_not_private),
        cmocka_unit_test(private_name_without_randomness),
        cmocka_unit_test(fuzzed_names_against_the_grammar),
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_world, end_world)
        TEST(fuzzed_names_leave_nothing_outside),
        TEST(null_names_are_misuse),
        TEST(fuzzed_keys),
        TEST(fuzzed_names_in_the_directory),
    };
    return cmocka_run_group_tests_name("namespace", tests, compile_grammar, free_grammar);
}
