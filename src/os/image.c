/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which library is the engine? The build ids of the images that are loaded. And how our own stays.
 */
#define _GNU_SOURCE
#include "os/private.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

struct search {
    uintptr_t address;
    uintptr_t image; /* tells images apart */
    uint8_t *out;    /* NULL: the build id is not wanted */
    size_t size;
    size_t length;
};

/* A note segment: entries of name size, description size, type, name, description, each padded. */
static void find_build_id(struct search *search, const uint8_t *note, size_t left)
{
    while (left >= 12) {
        uint32_t header[3];
        size_t name, description;
        memcpy(header, note, sizeof(header));
        if (header[0] > left || header[1] > left)
            return;
        name = (header[0] + 3u) & ~(size_t)3;
        description = (header[1] + 3u) & ~(size_t)3;
        if (name + description > left - 12)
            return;
        if (header[2] == NT_GNU_BUILD_ID && header[0] == 4 && memcmp(note + 12, "GNU", 4) == 0) {
            search->length = header[1] < search->size ? header[1] : search->size;
            memcpy(search->out, note + 12 + name, search->length);
            return;
        }
        note += 12 + name + description;
        left -= 12 + name + description;
    }
}

/* Do `size` bytes from `start` lie in one loaded segment? */
static int is_loaded(const struct dl_phdr_info *info, uintptr_t start, size_t size)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        const uintptr_t from = (uintptr_t)info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && start >= from && start - from < segment->p_memsz &&
            size <= segment->p_memsz - (start - from))
            return 1;
    }
    return 0;
}

static int visit_image(struct dl_phdr_info *info, size_t size, void *payload)
{
    struct search *search = payload;
    (void)size;
    if (!is_loaded(info, search->address, 1))
        return 0;
    search->image = (uintptr_t)info->dlpi_phdr;
    for (int i = 0; search->out && i < info->dlpi_phnum && !search->length; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        const uintptr_t start = (uintptr_t)info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_NOTE && is_loaded(info, start, segment->p_memsz))
            find_build_id(search, (const uint8_t *)start, segment->p_memsz);
    }
    return 1;
}

static uintptr_t image_of(const void *address)
{
    struct search search = {(uintptr_t)address, 0, NULL, 0, 0};
    dl_iterate_phdr(visit_image, &search);
    return search.image;
}

/* Does the image `image` take the function `symbol` from another one? */
struct need {
    uintptr_t image;
    const char *symbol;
    int found;
};

/* What the dynamic section of an image says where, of what is looked at here. */
struct tables {
    const ElfW(Sym) * symbols;
    const char *strings;
    const ElfW(Rela) * relocations[2]; /* those of calls, and the others */
    size_t sizes[2];
};

/* Some loaders turn these into addresses in place, others leave them relative to the image. */
static uintptr_t address_in(const struct dl_phdr_info *info, uintptr_t value)
{
    return value < (uintptr_t)info->dlpi_addr ? (uintptr_t)info->dlpi_addr + value : value;
}

static void read_dynamic(struct tables *tables, const struct dl_phdr_info *info,
                         const ElfW(Dyn) * dynamic)
{
    memset(tables, 0, sizeof(*tables));
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        const uintptr_t at = address_in(info, dynamic->d_un.d_ptr);
        switch (dynamic->d_tag) {
        case DT_SYMTAB:
            tables->symbols = (const ElfW(Sym) *)at;
            break;
        case DT_STRTAB:
            tables->strings = (const char *)at;
            break;
        case DT_JMPREL:
            tables->relocations[0] = (const ElfW(Rela) *)at;
            break;
        case DT_PLTRELSZ:
            tables->sizes[0] = dynamic->d_un.d_val;
            break;
        case DT_RELA:
            tables->relocations[1] = (const ElfW(Rela) *)at;
            break;
        case DT_RELASZ:
            tables->sizes[1] = dynamic->d_un.d_val;
            break;
        }
    }
}

static int visit_needs(struct dl_phdr_info *info, size_t size, void *payload)
{
    struct need *need = payload;
    struct tables tables = {NULL, NULL, {NULL, NULL}, {0, 0}};
    (void)size;
    if ((uintptr_t)info->dlpi_phdr != need->image)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            read_dynamic(
                &tables, info,
                (const ElfW(Dyn) *)((uintptr_t)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr));
    for (int t = 0; tables.symbols && tables.strings && t < 2; t++) {
        const size_t count = tables.relocations[t] ? tables.sizes[t] / sizeof(ElfW(Rela)) : 0;
        for (size_t i = 0; i < count && !need->found; i++) {
            const ElfW(Sym) *symbol = &tables.symbols[ELF64_R_SYM(tables.relocations[t][i].r_info)];
            need->found = symbol->st_shndx == SHN_UNDEF && symbol->st_name &&
                          strcmp(tables.strings + symbol->st_name, need->symbol) == 0;
        }
    }
    return 1;
}

static int takes_from_another(uintptr_t image, const char *symbol)
{
    struct need need = {image, symbol, 0};
    dl_iterate_phdr(visit_needs, &need);
    return need.found;
}

struct names {
    char *list[256];
    size_t count;
    int failed;
};

static int collect_name(struct dl_phdr_info *info, size_t size, void *payload)
{
    struct names *names = payload;
    (void)size;
    /* Without a slash it is the kernel's own image. */
    if (!info->dlpi_name || !strchr(info->dlpi_name, '/'))
        return 0;
    if (names->count < 256)
        names->list[names->count] = strdup(info->dlpi_name);
    if (names->count == 256 || !names->list[names->count])
        return names->failed = 1;
    names->count++;
    return 0;
}

/* The address of the function in the library `name`, if that defines it itself, else NULL. *failed:
 * it could not be told. */
static const void *defined_in(const char *name, const char *symbol, int *failed)
{
    struct link_map *map = NULL;
    const void *found = NULL;
    void *library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) { /* it was there just now */
        *failed = 1;
        return NULL;
    }
    found = dlsym(library, symbol);
    if (found &&
        (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || image_of(found) != image_of(map->l_ld)))
        found = NULL;
    dlclose(library);
    return found;
}

/*
 * In a program that is not position independent, a function of a library has an address in the
 * program itself, a jump to the real one; and its relocations show that it takes it from elsewhere.
 * Then the library that defines it is looked for: the first in the order of loading is the one that
 * the program was bound to. NULL: it could not be told.
 */
static const void *defining_address(const char *symbol, const void *address)
{
    const void *found = NULL;
    struct names names = {{NULL}, 0, 0};
    dl_iterate_phdr(collect_name, &names);
    for (size_t i = 0; i < names.count; i++) {
        if (!found && !names.failed)
            found = defined_in(names.list[i], symbol, &names.failed);
        free(names.list[i]);
    }
    if (found)
        return found;
    return names.failed ? NULL : address;
}

int wc_os_build_id(const char *symbol, const void *address, const void *here, uint8_t *out,
                   size_t size, int *own)
{
    const uintptr_t host = image_of(here);
    struct search search = {0, 0, out, size, 0};
    /* A program that has the function itself, linked statically, needs no library for it, whichever
     * else has one of that name. */
    if (symbol && image_of(address) == host && takes_from_another(host, symbol))
        address = defining_address(symbol, address);
    if (!address)
        return -ENOMEM;
    search.address = (uintptr_t)address;
    dl_iterate_phdr(visit_image, &search);
    *own = search.image == host;
    return (int)search.length;
}

int wc_os_stay_loaded(const void *here)
{
    Dl_info info;
    ENTER("stay_loaded");
    /* The program itself stays. */
    if (image_of(here) == (uintptr_t)getauxval(AT_PHDR))
        return 0;
    if (!dladdr(here, &info) || !dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
        return -ENOMEM;
    return 0;
}
