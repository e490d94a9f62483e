/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_wasmtime.h"

#define WASMCACHE_WASMTIME_CALL(name) cli_wasmtime.name
#include <wasmcache_wasmtime.h>

#include "output.h"

#ifndef WASMCACHE_DEFAULT_WASMTIME
#define WASMCACHE_DEFAULT_WASMTIME NULL
#endif

struct cli_wasmtime cli_wasmtime;
static char version[16]; /* of the library that was loaded last: its major number, if known */

struct name {
    const char *name;
    size_t offset;
};

#define NAME(name) {#name, offsetof(struct cli_wasmtime, name)},

static const struct name names[] = {CLI_WASMTIME_NAMES(NAME)};

enum { NAMES = sizeof(names) / sizeof(names[0]) };

/*
 * The major version that an artifact was made by, 0 if it cannot be told. The C API has no version
 * function, but an artifact is an ELF file whose section .wasmtime.engine begins with a format byte
 * and the version as a string with its length before it: 00 02 '5' '0'.
 */
static unsigned artifact_major(const uint8_t *bytes, size_t size)
{
    static const char wanted[] = ".wasmtime.engine";
    Elf64_Ehdr header;
    Elf64_Shdr strings;
    size_t i;

    if (size < sizeof(header))
        return 0;
    memcpy(&header, bytes, sizeof(header));
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_shentsize != sizeof(Elf64_Shdr) ||
        header.e_shstrndx >= header.e_shnum || header.e_shoff > size ||
        (size - header.e_shoff) / sizeof(Elf64_Shdr) < header.e_shnum)
        return 0;
    memcpy(&strings, bytes + header.e_shoff + header.e_shstrndx * sizeof(strings), sizeof(strings));
    if (strings.sh_offset > size || strings.sh_size > size - strings.sh_offset)
        return 0;
    for (i = 0; i < header.e_shnum; i++) {
        Elf64_Shdr section;
        const uint8_t *data;
        unsigned major = 0;
        size_t digit;

        memcpy(&section, bytes + header.e_shoff + i * sizeof(section), sizeof(section));
        if (section.sh_name > strings.sh_size ||
            strings.sh_size - section.sh_name < sizeof(wanted) ||
            memcmp(bytes + strings.sh_offset + section.sh_name, wanted, sizeof(wanted)) != 0 ||
            section.sh_offset > size || section.sh_size > size - section.sh_offset ||
            section.sh_size < 2)
            continue;
        data = bytes + section.sh_offset;
        /* A longer string is a custom version, which says nothing. */
        if (data[0] || data[1] > 4 || data[1] > section.sh_size - 2)
            return 0;
        for (digit = 0; digit < data[1]; digit++) {
            if (data[2 + digit] < '0' || data[2 + digit] > '9')
                return 0;
            major = major * 10 + (unsigned)(data[2 + digit] - '0');
        }
        return major;
    }
    return 0;
}

static unsigned engine_major(void)
{
    wasm_engine_t *engine = cli_wasmtime.wasm_engine_new();
    wasmcache_artifact artifact;
    void *error = NULL;
    unsigned major = 0;

    if (!engine)
        return 0;
    memset(&artifact, 0, sizeof(artifact));
    if (wasmcache_wasmtime_probe(engine, &artifact, &error)) {
        if (error)
            wasmcache_wasmtime_error_free(error);
    } else {
        major = artifact_major(artifact.data, artifact.size);
        wasmcache_wasmtime_artifact_free(&artifact);
    }
    cli_wasmtime.wasm_engine_delete(engine);
    return major;
}

static int load(void *library, const char *path)
{
    unsigned major;
    size_t i;

    for (i = 0; i < NAMES; i++) {
        void *symbol = dlsym(library, names[i].name);

        if (!symbol) {
            cli_error("cannot use %s as Wasmtime: it has no function %s; give the shared library "
                      "of Wasmtime %s's C API, built with WASI and a compiler",
                      path, names[i].name, WASMTIME_VERSION);
            return CLI_FAILED;
        }
        /* POSIX lets an object pointer of dlsym's be a function pointer, ISO C has no cast for it.
         */
        memcpy((char *)&cli_wasmtime + names[i].offset, &symbol, sizeof(symbol));
    }
    major = engine_major();
    version[0] = '\0';
    if (major)
        snprintf(version, sizeof(version), "%u", major);
    if (major && major != WASMTIME_VERSION_MAJOR) {
        cli_error("cannot use %s: this tool was built for Wasmtime %d, and that is Wasmtime %u; "
                  "give the library of Wasmtime %d",
                  path, WASMTIME_VERSION_MAJOR, major, WASMTIME_VERSION_MAJOR);
        return CLI_FAILED;
    }
    return CLI_OK;
}

static const char *loaded_version(void)
{
    return version;
}

static void *create(void)
{
    return cli_wasmtime.wasm_engine_new();
}

static void destroy(void *native)
{
    cli_wasmtime.wasm_engine_delete(native);
}

static wasmcache_attachment *attach(wasmcache *cache, void *native,
                                    const wasmcache_attach_options *options)
{
    return wasmcache_wasmtime_attach_with(cache, native, options);
}

const struct cli_engine_type cli_engine_wasmtime = {
    .name = "wasmtime",
    .title = "Wasmtime",
    .version = WASMTIME_VERSION,
    .library = "libwasmtime.so",
    .root = "WASMTIME_ROOT",
    .default_path = WASMCACHE_DEFAULT_WASMTIME,
#ifdef WASMCACHE_WASMTIME_COMPONENTS
    .components = true,
#endif
    .marker = "wasmtime_module_new",
    .load = load,
    .loaded_version = loaded_version,
    .create = create,
    .attach = attach,
    .run = cli_wasmtime_run,
    .invoke = cli_wasmtime_invoke,
    .destroy = destroy,
};
