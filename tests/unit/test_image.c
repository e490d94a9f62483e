/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which image a function is in and what its build id is, from images that are made here: loaders
 * and linkers put together what they like. A program that is not position independent is in
 * test_image_fixed.c.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "os/os.h"
#include "support/below.h"

/* An image with one loaded segment, which has the notes. */
struct image {
    uint8_t bytes[256];
    /* Behind it, as what a dynamic section tells of is. */
    char strings[16];
    ElfW(Sym) symbols[2];
    ElfW(Rela) relocations[2];
    ElfW(Dyn) dynamic[5];
    ElfW(Phdr) headers[3];
    struct dl_phdr_info info;
};

static struct image image, host;

static void make(struct image *out)
{
    memset(out, 0, sizeof(*out));
    out->headers[0].p_type = PT_LOAD;
    out->headers[0].p_memsz = sizeof(out->bytes);
    out->headers[1].p_type = PT_NOTE;
    out->headers[1].p_memsz = 128;
    out->info.dlpi_addr = (ElfW(Addr))(uintptr_t)out->bytes;
    out->info.dlpi_name = "/lib/image.so";
    out->info.dlpi_phdr = out->headers;
    out->info.dlpi_phnum = 3;
}

static int set_up(void **state)
{
    (void)state;
    make(&image);
    make(&host);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)below_off();
    return 0;
}

/* Appends a note, and returns where the next one goes. */
static size_t note(size_t at, uint32_t name_size, const char *name, uint32_t size, uint32_t type,
                   uint8_t fill)
{
    const uint32_t header[3] = {name_size, size, type};
    const size_t padded = (name_size + 3u) & ~3u;
    memcpy(image.bytes + at, header, sizeof(header));
    memcpy(image.bytes + at + 12, name, 4);
    if (at + 12 + padded + size < sizeof(image.bytes))
        memset(image.bytes + at + 12 + padded, fill, size);
    return at + 12 + padded + ((size + 3u) & ~3u);
}

/* The build id of what is at `address`, as the host's image asks for it. */
static int ask(const void *address, uint8_t *out, size_t size, int *own)
{
    struct dl_phdr_info infos[2] = {host.info, image.info};
    int rc;
    below_images(infos, 2);
    rc = wc_os_build_id(NULL, address, host.bytes, out, size, own);
    (void)below_off();
    return rc;
}

static int length_of(void)
{
    uint8_t out[32];
    int own = 7;
    int rc = ask(image.bytes, out, sizeof(out), &own);
    assert_int_equal(own, 0);
    return rc;
}

static void a_build_id_is_found_behind_other_notes(void **state)
{
    uint8_t out[32], want[20];
    int own = 7;
    size_t at = note(0, 3, "Foo", 5, NT_GNU_BUILD_ID, 1); /* of somebody else's */
    (void)state;
    at = note(at, 4, "Bar", 4, NT_GNU_BUILD_ID, 1);
    at = note(at, 4, "GNU", 4, NT_GNU_ABI_TAG, 1);
    (void)note(at, 4, "GNU", 20, NT_GNU_BUILD_ID, 9);
    memset(want, 9, sizeof(want));
    assert_int_equal(ask(image.bytes + 200, out, sizeof(out), &own), 20);
    assert_memory_equal(out, want, sizeof(want));
    assert_int_equal(own, 0);
    assert_int_equal(ask(image.bytes, out, 6, &own), 6); /* as much of it as is wanted */
}

static void an_image_knows_whether_it_is_the_hosts(void **state)
{
    uint8_t out[32];
    int own = 7;
    (void)state;
    assert_int_equal(ask(host.bytes, out, sizeof(out), &own), 0);
    assert_int_equal(own, 1);
    assert_int_equal(ask(image.bytes, out, sizeof(out), &own), 0);
    assert_int_equal(own, 0);
    assert_int_equal(ask(&own, out, sizeof(out), &own), 0); /* in no image */
    assert_int_equal(own, 0);
}

static void notes_that_are_cut_are_no_build_id(void **state)
{
    (void)state;
    (void)note(0, 4, "GNU", 20, NT_GNU_BUILD_ID, 9);
    assert_int_equal(length_of(), 20);
    image.headers[1].p_memsz = 12 + 4 + 20;
    assert_int_equal(length_of(), 20);
    image.headers[1].p_memsz--;
    assert_int_equal(length_of(), 0);
    image.headers[1].p_memsz = 11;
    assert_int_equal(length_of(), 0);
    image.headers[1].p_memsz = 128;
    (void)note(0, 4, "GNU", 129, NT_GNU_BUILD_ID, 9); /* longer than all of it */
    assert_int_equal(length_of(), 0);
    (void)note(0, UINT32_MAX, "GNU", 20, NT_GNU_BUILD_ID, 9);
    assert_int_equal(length_of(), 0);
    (void)note(0, 4, "GNU", UINT32_MAX, NT_GNU_BUILD_ID, 9);
    assert_int_equal(length_of(), 0);
    (void)note(0, 100, "GNU", 100, NT_GNU_BUILD_ID, 9); /* both fit, but not together */
    assert_int_equal(length_of(), 0);
}

static void notes_that_are_not_loaded_are_not_read(void **state)
{
    (void)state;
    (void)note(0, 4, "GNU", 20, NT_GNU_BUILD_ID, 9);
    image.headers[1].p_memsz = sizeof(image.bytes) + 1;
    assert_int_equal(length_of(), 0);
    image.headers[1].p_memsz = 128;
    image.headers[1].p_vaddr = sizeof(image.bytes);
    assert_int_equal(length_of(), 0);
    /* The first that has one counts. */
    image.headers[1].p_vaddr = 0;
    image.headers[2] = image.headers[1];
    image.headers[2].p_vaddr = 64;
    assert_int_equal(length_of(), 20);
}

static void a_function_that_the_host_has_itself_is_its_own(void **state)
{
    struct dl_phdr_info infos[2];
    uint8_t out[32];
    int own = 7;
    (void)state;
    infos[0] = image.info; /* it is not the first */
    infos[1] = host.info;
    for (int i = 0; i < 4; i++) {
        /* 0: linked statically; 1: a dynamic section without a table of symbols; 2: or of names;
         * 3: nothing that is taken from elsewhere */
        host.headers[2].p_type = i ? PT_DYNAMIC : PT_NULL;
        host.headers[2].p_vaddr = (uintptr_t)host.dynamic - (uintptr_t)host.bytes;
        host.dynamic[0].d_tag = i == 1 ? DT_STRTAB : DT_SYMTAB;
        host.dynamic[0].d_un.d_ptr = (uintptr_t)host.strings;
        host.dynamic[1].d_tag = i == 3 ? DT_STRTAB : DT_NULL;
        host.dynamic[1].d_un.d_ptr = (uintptr_t)host.strings;
        below_images(infos, 2);
        assert_int_equal(wc_os_build_id("symbol", host.bytes, host.bytes, out, sizeof(out), &own),
                         0);
        (void)below_off();
        assert_int_equal(own, 1);
    }
}

/* The host has a relocation of "symbol", which `section` of it defines; SHN_UNDEF: another image.
 */
static void relocate_symbol(uint16_t section)
{
    strcpy(host.strings + 1, "symbol");
    host.symbols[1].st_name = 1;
    host.symbols[1].st_shndx = section;
    host.relocations[1].r_info = ELF64_R_INFO((ElfW(Xword))1, 0);
    host.dynamic[0].d_tag = DT_SYMTAB;
    host.dynamic[0].d_un.d_ptr = (uintptr_t)host.symbols;
    host.dynamic[1].d_tag = DT_STRTAB;
    host.dynamic[1].d_un.d_ptr = (uintptr_t)host.strings;
    host.dynamic[2].d_tag = DT_RELA;
    host.dynamic[2].d_un.d_ptr = (uintptr_t)host.relocations;
    host.dynamic[3].d_tag = DT_RELASZ;
    host.dynamic[3].d_un.d_val = sizeof(host.relocations);
    host.headers[2].p_type = PT_DYNAMIC;
    host.headers[2].p_vaddr = (uintptr_t)host.dynamic - (uintptr_t)host.bytes;
}

/* A host that takes the function from elsewhere, and the images that are looked through for it. */
static void a_function_from_elsewhere_is_looked_for_in_what_has_a_name(void **state)
{
    static struct dl_phdr_info infos[300];
    uint8_t out[32];
    int own = 7;
    (void)state;
    relocate_symbol(SHN_UNDEF);
    host.info.dlpi_name = "";
    image.info.dlpi_name = NULL;
    infos[0] = host.info;
    infos[1] = image.info;
    below_images(infos, 2); /* nobody has a name: it stays where it was seen */
    assert_int_equal(wc_os_build_id("symbol", host.bytes, host.bytes, out, sizeof(out), &own), 0);
    assert_int_equal(own, 1);
    image.info.dlpi_name = "/there/is/no/such/library.so";
    infos[1] = image.info;
    below_images(infos, 2);
    assert_int_equal(wc_os_build_id("symbol", host.bytes, host.bytes, out, sizeof(out), &own),
                     -ENOMEM);
    for (size_t i = 1; i < 300; i++)
        infos[i] = image.info;
    below_images(infos, 300); /* more than are looked through */
    assert_int_equal(wc_os_build_id("symbol", host.bytes, host.bytes, out, sizeof(out), &own),
                     -ENOMEM);
}

/* A relocation of something that the host defines is no sign that it takes it from elsewhere. */
static void what_the_host_defines_is_not_looked_for(void **state)
{
    struct dl_phdr_info infos[2];
    uint8_t out[32];
    int own = 7;
    (void)state;
    relocate_symbol(1);
    image.info.dlpi_name = "/there/is/no/such/library.so"; /* it would fail */
    infos[0] = host.info;
    infos[1] = image.info;
    below_images(infos, 2);
    assert_int_equal(wc_os_build_id("symbol", host.bytes, host.bytes, out, sizeof(out), &own), 0);
    assert_int_equal(own, 1);
}

static void a_library_is_kept_loaded(void **state)
{
    (void)state;
    assert_int_equal(wc_os_stay_loaded(dlsym(RTLD_DEFAULT, "_cmocka_run_group_tests")), 0);
}

static void who_cannot_be_kept_loaded_is_told_so(void **state)
{
    const void *here = image.bytes;
    struct dl_phdr_info infos[1];
    (void)state;
    infos[0] = image.info;
    /* The program itself stays. */
    assert_int_equal(wc_os_stay_loaded(here), 0);
    below_images(infos, 1);
    below_fail("dladdr", 0, 1);
    assert_int_equal(wc_os_stay_loaded(here), -ENOMEM);
    below_images(infos, 1);
    below_fail("dlopen", ENOMEM, 1);
    assert_int_equal(wc_os_stay_loaded(here), -ENOMEM);
    assert_int_equal(below_off(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_build_id_is_found_behind_other_notes),
        TEST(an_image_knows_whether_it_is_the_hosts),
        TEST(notes_that_are_cut_are_no_build_id),
        TEST(notes_that_are_not_loaded_are_not_read),
        TEST(a_function_that_the_host_has_itself_is_its_own),
        TEST(a_function_from_elsewhere_is_looked_for_in_what_has_a_name),
        TEST(what_the_host_defines_is_not_looked_for),
        TEST(a_library_is_kept_loaded),
        TEST(who_cannot_be_kept_loaded_is_told_so),
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
