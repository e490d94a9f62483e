/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: what they are made of, and what is refused instead of hashed. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "key.h"
#include "os/os.h"
#include "support/scratch.h"

#define PIECE ((size_t)256 * 1024) /* as key.c reads files */

static const char sha_empty[] = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
static const char sha_abc[] = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
/* A million times "a", from the standard's examples. */
static const char sha_million[] =
    "CDC76E5C9914FB9281A1C7E284D73E67F1809A48A497200E046D39CCC7112CD0";
static const char xxh_empty[] = "99E9D85137DB46EF";
static const char xxh_asm[] = "0CC78860D414714C"; /* as Wasmer on x86-64 names it */

struct fixture {
    struct scratch s;
    unsigned descriptors;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    scratch_init(&f->s);
    f->descriptors = scratch_descriptors();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    wc_os_hook = NULL;
    assert_int_equal(scratch_descriptors(), f->descriptors);
    scratch_end(&f->s);
    free(f);
    return 0;
}

static void assert_hex(const wasmcache_key *key, const char *hex)
{
    char text[WASMCACHE_KEY_HEX_SIZE];
    assert_string_equal(wasmcache_key_to_hex(text, key), hex);
}

/* Not a key: to see that nothing is written on failure. */
static void poison(wasmcache_key *key)
{
    memset(key, 0xEE, sizeof(*key));
}

static void assert_poisoned(const wasmcache_key *key)
{
    wasmcache_key other;
    poison(&other);
    assert_memory_equal(key, &other, sizeof(other));
}

static void assert_detail(int error, int os, const char *call, const char *path)
{
    const wasmcache_error_detail *detail = wasmcache_last_error();
    assert_int_equal(detail->error, error);
    assert_int_equal(detail->system_errno, os);
    assert_string_equal(detail->call, call);
    assert_string_equal(detail->path, path);
    assert_true(strlen(detail->message) > 10);
}

/* ---- bytes ---- */

static void known_vectors(void **state)
{
    wasmcache_key key;
    (void)state;
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, "", 0), 0);
    assert_hex(&key, sha_empty);
    assert_int_equal(key.algorithm, WASMCACHE_KEY_SHA256);
    assert_int_equal(key.length, 32);
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, NULL, 0), 0);
    assert_hex(&key, sha_empty);
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, "abc", 3), 0);
    assert_hex(&key, sha_abc);

    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_XXH64, "\0asm...", 7), 0);
    assert_hex(&key, xxh_asm);
    assert_int_equal(key.algorithm, WASMCACHE_KEY_XXH64);
    assert_int_equal(key.length, 8);
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_XXH64, NULL, 0), 0);
    assert_hex(&key, xxh_empty);
}

static void bytes_behind_a_short_key_are_zero(void **state)
{
    static const uint8_t zero[24];
    wasmcache_key key;
    (void)state;
    poison(&key);
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_XXH64, "x", 1), 0);
    assert_memory_equal(key.bytes + 8, zero, sizeof(zero));
    poison(&key);
    assert_int_equal(wasmcache_key_from_hex(&key, xxh_asm), 0);
    assert_memory_equal(key.bytes + 8, zero, sizeof(zero));
    poison(&key);
    assert_int_equal(wasmcache_key_from_digest(&key, WASMCACHE_KEY_XXH64, zero, 8), 0);
    assert_memory_equal(key.bytes + 8, zero, sizeof(zero));
}

static void hashing_in_parts_is_hashing_at_once(void **state)
{
    struct wc_sha256_state sha;
    uint8_t text[200], whole[32], parts[32];
    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i * 7);
    wc_sha256(whole, text, sizeof(text));
    for (size_t cut = 0; cut <= sizeof(text); cut++) {
        wc_sha256_start(&sha);
        wc_sha256_add(&sha, text, cut);
        wc_sha256_add(&sha, NULL, 0);
        wc_sha256_add(&sha, text + cut, sizeof(text) - cut);
        wc_sha256_finish(&sha, parts);
        assert_memory_equal(parts, whole, sizeof(whole));
    }
}

/* ---- hex ---- */

static void hex_round_trip(void **state)
{
    wasmcache_key key, back;
    char hex[WASMCACHE_KEY_HEX_SIZE], lower[WASMCACHE_KEY_HEX_SIZE];
    (void)state;
    for (int algorithm = WASMCACHE_KEY_SHA256; algorithm <= WASMCACHE_KEY_XXH64; algorithm++)
        for (unsigned i = 0; i < 256; i++) {
            uint8_t digest[32];
            size_t length = algorithm == WASMCACHE_KEY_SHA256 ? 32 : 8;
            for (size_t j = 0; j < sizeof(digest); j++)
                digest[j] = (uint8_t)(i + j * 37);
            assert_int_equal(
                wasmcache_key_from_digest(&key, (wasmcache_key_algorithm)algorithm, digest, length),
                0);
            assert_memory_equal(key.bytes, digest, length);
            assert_ptr_equal(wasmcache_key_to_hex(hex, &key), hex);
            assert_int_equal(strlen(hex), 2 * length);
            assert_int_equal(strspn(hex, "0123456789ABCDEF"), 2 * length);
            assert_int_equal(wasmcache_key_from_hex(&back, hex), 0);
            assert_true(wasmcache_key_equal(&key, &back));
            for (size_t j = 0; j <= 2 * length; j++)
                lower[j] = (char)(hex[j] >= 'A' && hex[j] <= 'F' ? hex[j] - 'A' + 'a' : hex[j]);
            poison(&back);
            assert_int_equal(wasmcache_key_from_hex(&back, lower), 0);
            assert_true(wasmcache_key_equal(&key, &back));
        }
}

static void hex_of_a_wrong_form(void **state)
{
    static const char *const wrong[] = {
        "",
        "0",
        "0CC78860D414714",   /* 15 */
        "0CC78860D414714C0", /* 17 */
        "0CC78860D414714G",
        "0CC78860D414714 ",
        " CC78860D414714C",
        "0x78860D414714CC",
        "0CC78860D41471-C",
        "0CC78860D414\303\2444C",
    };
    wasmcache_key key;
    char text[130];
    (void)state;
    poison(&key);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        assert_int_equal(wasmcache_key_from_hex(&key, wrong[i]), WASMCACHE_EMISUSE);
        assert_poisoned(&key);
        assert_detail(WASMCACHE_EMISUSE, 0, "", "");
    }
    for (size_t length = 0; length < sizeof(text); length++) {
        memset(text, 'A', length);
        text[length] = '\0';
        assert_int_equal(wasmcache_key_from_hex(&key, text),
                         length == 64 || length == 16 ? 0 : WASMCACHE_EMISUSE);
    }
    /* Each byte that is no digit, at each place. */
    for (int c = 1; c < 256; c++) {
        int digit = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
        for (size_t at = 0; at < 16; at++) {
            memcpy(text, "0CC78860D414714C", 17);
            text[at] = (char)c;
            assert_int_equal(wasmcache_key_from_hex(&key, text), digit ? 0 : WASMCACHE_EMISUSE);
        }
    }
}

static void hex_of_what_is_no_key(void **state)
{
    wasmcache_key key;
    char hex[WASMCACHE_KEY_HEX_SIZE];
    (void)state;
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_XXH64, "x", 1), 0);
    strcpy(hex, "before");
    key.bytes[8] = 1; /* behind its length */
    assert_ptr_equal(wasmcache_key_to_hex(hex, &key), hex);
    assert_string_equal(hex, "");
    key.bytes[8] = 0;
    assert_string_not_equal(wasmcache_key_to_hex(hex, &key), "");
    key.length = 32;
    assert_string_equal(wasmcache_key_to_hex(hex, &key), "");
    key.length = 8;
    key.algorithm = 0;
    assert_string_equal(wasmcache_key_to_hex(hex, &key), "");
    key.algorithm = 3;
    assert_string_equal(wasmcache_key_to_hex(hex, &key), "");
    assert_string_equal(wasmcache_key_to_hex(hex, NULL), "");
    assert_null(wasmcache_key_to_hex(NULL, &key));
}

/* ---- digests ---- */

static void digests_of_a_wrong_length(void **state)
{
    uint8_t digest[64] = {1};
    wasmcache_key key;
    (void)state;
    for (size_t length = 0; length <= sizeof(digest); length++) {
        poison(&key);
        assert_int_equal(wasmcache_key_from_digest(&key, WASMCACHE_KEY_SHA256, digest, length),
                         length == 32 ? 0 : WASMCACHE_EMISUSE);
        poison(&key);
        assert_int_equal(wasmcache_key_from_digest(&key, WASMCACHE_KEY_XXH64, digest, length),
                         length == 8 ? 0 : WASMCACHE_EMISUSE);
        if (length != 8)
            assert_poisoned(&key);
        assert_int_equal(
            wasmcache_key_from_digest(&key, (wasmcache_key_algorithm)0, digest, length),
            WASMCACHE_EMISUSE);
        assert_int_equal(
            wasmcache_key_from_digest(&key, (wasmcache_key_algorithm)3, digest, length),
            WASMCACHE_EMISUSE);
    }
}

static void equality(void **state)
{
    wasmcache_key a, b, none = {0, 0, {0}};
    (void)state;
    assert_int_equal(wasmcache_key_from_bytes(&a, WASMCACHE_KEY_SHA256, "abc", 3), 0);
    b = a;
    assert_int_equal(wasmcache_key_equal(&a, &b), 1);
    for (int i = 0; i < 32; i++) {
        b.bytes[i] ^= 1;
        assert_int_equal(wasmcache_key_equal(&a, &b), 0);
        b.bytes[i] ^= 1;
    }
    assert_int_equal(wasmcache_key_from_bytes(&b, WASMCACHE_KEY_XXH64, "abc", 3), 0);
    assert_int_equal(wasmcache_key_equal(&a, &b), 0);
    assert_int_equal(wasmcache_key_equal(&b, &b), 1);
    /* What is no key equals nothing, not even itself. */
    assert_int_equal(wasmcache_key_equal(&none, &none), 0);
    assert_int_equal(wasmcache_key_equal(NULL, NULL), 0);
    assert_int_equal(wasmcache_key_equal(&a, NULL), 0);
    assert_int_equal(wasmcache_key_equal(NULL, &a), 0);
}

static void foreign(wasmcache_key *key, const char *algorithm, const void *digest, size_t length)
{
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_key_of_digest(key, algorithm, digest, length, &err), 0);
    assert_true(wc_key_valid(key));
    assert_int_equal(key->algorithm, WASMCACHE_KEY_SHA256);
}

static void foreign_digests(void **state)
{
    static const uint8_t digest[128] = {9, 8, 7, 0, 0, 6};
    static const struct {
        const char *algorithm;
        size_t length;
    } all[] = {{"blake3", 32}, {"blake2b", 32}, {"BLAKE3", 32}, {"blake3", 31}, {"blake3", 33},
               {"sha512", 64}, {"sha512", 63},  {"sha384", 48}, {"b", 1},       {"b", 2},
               {"sha25", 32},  {"sha256x", 32}, {"sha512", 128}};
    enum { COUNT = sizeof(all) / sizeof(*all) };
    wasmcache_key keys[COUNT + 1], again;
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        foreign(&keys[i], all[i].algorithm, digest, all[i].length);
        foreign(&again, all[i].algorithm, digest, all[i].length);
        assert_true(wasmcache_key_equal(&keys[i], &again));
    }
    /* "sha256" is the key itself, which no hash of a name and a digest is. */
    foreign(&keys[COUNT], "sha256", digest, 32);
    assert_memory_equal(keys[COUNT].bytes, digest, 32);
    for (size_t i = 0; i <= COUNT; i++)
        for (size_t j = 0; j < i; j++)
            assert_false(wasmcache_key_equal(&keys[i], &keys[j]));
}

/* The bytes that are hashed must not be the same for another name and digest. */
static void foreign_digest_is_not_glued_to_its_name(void **state)
{
    wasmcache_key a, b;
    (void)state;
    foreign(&a, "ab", "c", 1);
    foreign(&b, "a", "bc", 2);
    assert_false(wasmcache_key_equal(&a, &b));
    foreign(&b, "abc", "", 1);
    assert_false(wasmcache_key_equal(&a, &b));
    foreign(&a, "x", "\0y", 2);
    foreign(&b, "x", "y", 2);
    assert_false(wasmcache_key_equal(&a, &b));
}

/* Fixed for good: it names entries. SHA-256 of "wasmcache digest 1", NUL, "blake3", NUL and the
 * 32 bytes 00 to 1F, made with another program. */
static void foreign_digest_of_the_format(void **state)
{
    uint8_t digest[32];
    wasmcache_key key;
    (void)state;
    for (unsigned i = 0; i < sizeof(digest); i++)
        digest[i] = (uint8_t)i;
    foreign(&key, "blake3", digest, sizeof(digest));
    assert_hex(&key, "E98F710FC0D2D3C4600A04194F8650E281FC79F5FC50FAD97DD518DBC1AA6102");
}

static void foreign_digests_that_are_misuse(void **state)
{
    static const uint8_t digest[129];
    char name[66];
    wasmcache_key key;
    struct wc_error err;
    (void)state;
    wc_error_init(&err);
    memset(name, 'n', 65);
    name[65] = '\0';
    poison(&key);
    assert_int_equal(wc_key_of_digest(&key, NULL, digest, 32, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, "", digest, 32, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, name, digest, 32, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, "blake3", NULL, 32, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, "blake3", digest, 0, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, "blake3", digest, 129, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, "sha256", digest, 31, &err), WASMCACHE_EMISUSE);
    assert_int_equal(wc_key_of_digest(&key, "sha256", digest, 33, &err), WASMCACHE_EMISUSE);
    assert_poisoned(&key);
    assert_int_equal(err.error, WASMCACHE_EMISUSE);
    assert_true(err.message[0] != '\0');
    name[64] = '\0';
    foreign(&key, name, digest, 128);
}

/* ---- files ---- */

static char *file_of(struct fixture *f, const char *name, const void *bytes, size_t size)
{
    char *path = scratch_in(&f->s, "%s", name);
    scratch_write(path, bytes, size, 0600);
    return path;
}

static void files_of_all_sizes(void **state)
{
    struct fixture *f = *state;
    const size_t sizes[] = {0,         1,         7,         PIECE - 1,    PIECE,
                            PIECE + 1, 2 * PIECE, 1u << 20u, 1u << 20u | 5};
    uint8_t *bytes = malloc((1u << 20u) + 64);
    assert_non_null(bytes);
    for (size_t i = 0; i < (1u << 20u) + 64; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const char *path = file_of(f, "file", bytes, sizes[i]);
        for (int a = WASMCACHE_KEY_SHA256; a <= WASMCACHE_KEY_XXH64; a++) {
            const wasmcache_key_algorithm algorithm = (wasmcache_key_algorithm)a;
            wasmcache_key of_bytes, of_path, of_fd;
            struct wc_os_stat st;
            struct wc_error err;
            uint64_t size = 1;
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            assert_true(fd >= 0);
            assert_int_equal(wasmcache_key_from_bytes(&of_bytes, algorithm, bytes, sizes[i]), 0);
            assert_int_equal(wasmcache_key_from_path(&of_path, algorithm, path), 0);
            assert_int_equal(wasmcache_key_from_fd(&of_fd, algorithm, fd), 0);
            assert_true(wasmcache_key_equal(&of_bytes, &of_path));
            assert_true(wasmcache_key_equal(&of_bytes, &of_fd));
            wc_error_init(&err);
            assert_int_equal(wc_os_fstat(fd, &st), 0);
            assert_int_equal(wc_key_of_fd(&of_fd, algorithm, fd, &st, path, &size, &err), 0);
            assert_int_equal(size, sizes[i]);
            close(fd);
        }
    }
    free(bytes);
}

static void a_million_letters(void **state)
{
    struct fixture *f = *state;
    char *text = malloc(1000000);
    wasmcache_key key;
    assert_non_null(text);
    memset(text, 'a', 1000000);
    assert_int_equal(
        wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, file_of(f, "a", text, 1000000)), 0);
    assert_hex(&key, sha_million);
    free(text);
}

static void offset_is_neither_used_nor_moved(void **state)
{
    struct fixture *f = *state;
    wasmcache_key key;
    int fd = open(file_of(f, "abc", "abc", 3), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (off_t offset = 0; offset < 5; offset++) {
        assert_int_equal(lseek(fd, offset, SEEK_SET), offset);
        assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), 0);
        assert_hex(&key, sha_abc);
        assert_int_equal(lseek(fd, 0, SEEK_CUR), offset);
    }
    close(fd);
}

static void symbolic_links_are_followed(void **state)
{
    struct fixture *f = *state;
    char *link_path = scratch_in(&f->s, "link");
    wasmcache_key key;
    file_of(f, "abc", "abc", 3);
    assert_int_equal(symlink("abc", link_path), 0);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, link_path), 0);
    assert_hex(&key, sha_abc);
    assert_int_equal(symlink("loop", scratch_in(&f->s, "loop")), 0);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, scratch_in(&f->s, "loop")),
                     WASMCACHE_EIO);
    assert_detail(WASMCACHE_EIO, ELOOP, "open", scratch_in(&f->s, "loop"));
}

/* Each of these would hang, or hash something else, if it were simply opened and read. */
static void assert_refused(struct fixture *f, const char *path, int os, const char *call)
{
    for (int a = WASMCACHE_KEY_SHA256; a <= WASMCACHE_KEY_XXH64; a++) {
        wasmcache_key key;
        poison(&key);
        assert_int_equal(wasmcache_key_from_path(&key, (wasmcache_key_algorithm)a, path),
                         WASMCACHE_EIO);
        assert_poisoned(&key);
        assert_detail(WASMCACHE_EIO, os, call, path);
        assert_non_null(strstr(wasmcache_last_error()->message, path));
        assert_int_equal(scratch_descriptors(), f->descriptors);
    }
}

static void paths_that_are_no_files(void **state)
{
    struct fixture *f = *state;
    char *fifo = scratch_in(&f->s, "fifo"), *socket_path = scratch_in(&f->s, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char long_name[300];
    int fd;

    assert_refused(f, scratch_in(&f->s, "missing"), ENOENT, "open");
    assert_refused(f, scratch_in(&f->s, "missing/below"), ENOENT, "open");
    assert_refused(f, "", ENOENT, "open");
    assert_refused(f, scratch_in(&f->s, "%s/below", strrchr(file_of(f, "x", "x", 1), '/') + 1),
                   ENOTDIR, "open");
    assert_refused(f, f->s.dir, EISDIR, "");
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    assert_refused(f, scratch_in(&f->s, "%s", long_name), ENAMETOOLONG, "open");

    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_refused(f, fifo, 0, "");
    assert_refused(f, "/dev/null", 0, "");
    assert_refused(f, "/dev/zero", 0, "");

    assert_true(strlen(socket_path) < sizeof(address.sun_path));
    strcpy(address.sun_path, socket_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    f->descriptors++;
    assert_refused(f, socket_path, ENXIO, "open");
    f->descriptors--;
    close(fd);
}

static void descriptors_that_are_no_files(void **state)
{
    struct fixture *f = *state;
    int both[2], fd;
    wasmcache_key key;
    poison(&key);

    assert_int_equal(pipe(both), 0);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, both[0]), WASMCACHE_EIO);
    close(both[0]);
    close(both[1]);
    fd = open(f->s.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), WASMCACHE_EIO);
    close(fd);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EBADF);
    fd = open(file_of(f, "abc", "abc", 3), O_WRONLY | O_CLOEXEC);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EBADF);
    assert_string_equal(wasmcache_last_error()->call, "pread");
    assert_string_equal(wasmcache_last_error()->path, ""); /* there is none */
    close(fd);
    assert_poisoned(&key);
}

/* A device has no end: /dev/zero would be hashed for ever. */
static void descriptor_of_a_device(void **state)
{
    struct fixture *f = *state;
    wasmcache_key key;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    poison(&key);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), WASMCACHE_EIO);
    close(fd);
    assert_detail(WASMCACHE_EIO, 0, "", "");
    fd = open(f->s.dir, O_RDONLY | O_CLOEXEC);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), WASMCACHE_EIO);
    close(fd);
    assert_detail(WASMCACHE_EIO, EISDIR, "", "");
    assert_poisoned(&key);
}

struct as_user {
    const char *path;
};

static int key_as_user(void *argument)
{
    const struct as_user *user = argument;
    wasmcache_key key;
    if (wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, user->path) != WASMCACHE_EIO)
        return 1;
    if (wasmcache_last_error()->system_errno != EACCES)
        return 2;
    return strcmp(wasmcache_last_error()->call, "open") == 0 ? 0 : 3;
}

static void unreadable_file(void **state)
{
    struct fixture *f = *state;
    struct as_user user = {file_of(f, "mine", "abc", 3)};
    if (!scratch_is_root("a file that an ordinary user may not read"))
        skip();
    assert_int_equal(scratch_child(key_as_user, &user, SCRATCH_NOBODY, 20), 0);
}

/* ---- faults ---- */

static struct {
    const char *call;
    int at;
    int os;
    int seen;
} fault;

static int inject(const char *call)
{
    if (strcmp(call, fault.call) != 0 || fault.seen++ != fault.at)
        return 0;
    return -fault.os;
}

static void every_call_that_fails(void **state)
{
    static const struct {
        const char *seam, *call;
        int os;
    } all[] = {{"open_read_path", "open", EMFILE},
               {"open_read_path", "open", EACCES},
               {"fstat", "fstat", EIO},
               {"pread", "pread", EIO},
               {"pread", "pread", ESTALE}};
    struct fixture *f = *state;
    uint8_t *bytes = calloc(1, 2 * PIECE + 1);
    const char *path = file_of(f, "large", bytes, 2 * PIECE + 1);
    unsigned failed = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        for (int at = 0;; at++) {
            wasmcache_key key;
            int rc;
            poison(&key);
            fault.call = all[i].seam;
            fault.at = at;
            fault.os = all[i].os;
            fault.seen = 0;
            wc_os_hook = inject;
            rc = wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path);
            wc_os_hook = NULL;
            assert_int_equal(scratch_descriptors(), f->descriptors);
            if (rc == 0)
                break; /* all calls of the kind were tried */
            failed++;
            assert_int_equal(rc, WASMCACHE_EIO);
            assert_poisoned(&key);
            assert_detail(WASMCACHE_EIO, all[i].os, all[i].call, path);
        }
    /* One open and one fstat each, three pieces. */
    assert_int_equal(failed, 3 + 2 * 3);
    free(bytes);
}

/* ---- misuse ---- */

static void null_and_unknown_are_misuse(void **state)
{
    const wasmcache_key_algorithm unknown[] = {
        (wasmcache_key_algorithm)0, (wasmcache_key_algorithm)3, (wasmcache_key_algorithm)255};
    struct fixture *f = *state;
    const char *path = file_of(f, "abc", "abc", 3);
    const uint8_t digest[32] = {0};
    wasmcache_key key;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const wasmcache_key_algorithm sha = WASMCACHE_KEY_SHA256;

    poison(&key);
    assert_int_equal(wasmcache_key_from_bytes(NULL, sha, "", 0), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_bytes(&key, sha, NULL, 1), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_bytes(&key, sha, "", (size_t)PTRDIFF_MAX + 1),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_bytes(&key, sha, "", SIZE_MAX), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_path(NULL, sha, path), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_path(&key, sha, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_fd(NULL, sha, fd), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_fd(&key, sha, -1), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_digest(NULL, sha, digest, 32), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_digest(&key, sha, NULL, 32), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_hex(NULL, sha_abc), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_key_from_hex(&key, NULL), WASMCACHE_EMISUSE);
    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
        assert_int_equal(wasmcache_key_from_bytes(&key, unknown[i], "", 0), WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_key_from_path(&key, unknown[i], path), WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_key_from_fd(&key, unknown[i], fd), WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_key_from_digest(&key, unknown[i], digest, 32),
                         WASMCACHE_EMISUSE);
    }
    assert_poisoned(&key);
    assert_detail(WASMCACHE_EMISUSE, 0, "", "");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(known_vectors),
        TEST(bytes_behind_a_short_key_are_zero),
        TEST(hashing_in_parts_is_hashing_at_once),
        TEST(hex_round_trip),
        TEST(hex_of_a_wrong_form),
        TEST(hex_of_what_is_no_key),
        TEST(digests_of_a_wrong_length),
        TEST(equality),
        TEST(foreign_digests),
        TEST(foreign_digest_is_not_glued_to_its_name),
        TEST(foreign_digest_of_the_format),
        TEST(foreign_digests_that_are_misuse),
        TEST(files_of_all_sizes),
        TEST(a_million_letters),
        TEST(offset_is_neither_used_nor_moved),
        TEST(symbolic_links_are_followed),
        TEST(paths_that_are_no_files),
        TEST(descriptors_that_are_no_files),
        TEST(descriptor_of_a_device),
        TEST(unreadable_file),
        TEST(every_call_that_fails),
        TEST(null_and_unknown_are_misuse),
    };
    return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
