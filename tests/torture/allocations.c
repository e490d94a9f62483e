/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "torture/allocations.h"

#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

/* A sanitizer's malloc is its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

void allocations_fail(unsigned nth, int sticky)
{
    (void)nth, (void)sticky;
}
void allocations_stop(void)
{
}
int allocations_met(void)
{
    return 0;
}
unsigned allocations_counted(void)
{
    return 0;
}
long allocations_live(void)
{
    return 0;
}
void allocations_watch(void)
{
}
const char *allocations_missing(void)
{
    return "malloc is somebody else's here: make check-asan has unit/test_allocations";
}

#else

#define EXPORTED __attribute__((visibility("default")))

/* What glibc offers to who takes its place. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void __libc_free(void *bytes);

static atomic_uint counted, fail_at, met;
static atomic_int armed, goes_on, watching;
static atomic_long live;

/* Where this program's own code lies, and the dynamic loader's, which keeps what it allocates for
 * as long as what it loaded. */
static struct range {
    uintptr_t from, to;
} own, loader;

/* What lives and is the library's: addresses, with a probe sequence. */
enum { SLOTS = 1 << 16 };
static atomic_uintptr_t known[SLOTS];
#define GONE ((uintptr_t)1)

/* For the program itself when the system has no more. */
static _Alignas(16) unsigned char reserve[96 << 20];
static atomic_size_t reserve_used;

static int find_ranges(struct dl_phdr_info *info, size_t size, void *payload)
{
    (void)size;
    (void)payload;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        const uintptr_t from = info->dlpi_addr + p->p_vaddr;
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        if (!own.to) /* the first is the program */
            own = (struct range){from, from + p->p_memsz};
        else if (info->dlpi_addr == getauxval(AT_BASE))
            loader = (struct range){from, from + p->p_memsz};
    }
    return 0;
}

static int in_range(const struct range *range, const void *caller)
{
    return (uintptr_t)caller >= range->from && (uintptr_t)caller < range->to;
}

static int is_own(const void *caller)
{
    return in_range(&own, caller);
}

static size_t slot_of(uintptr_t address)
{
    return (size_t)((address >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 48);
}

static void remember(const void *bytes)
{
    size_t i = slot_of((uintptr_t)bytes);
    if (!atomic_load(&watching) || !bytes)
        return;
    for (size_t n = 0; n < SLOTS; n++, i = (i + 1) % SLOTS) {
        uintptr_t was = atomic_load(&known[i]);
        if (was <= GONE && atomic_compare_exchange_strong(&known[i], &was, (uintptr_t)bytes)) {
            atomic_fetch_add(&live, 1);
            return;
        }
    }
}

static void forget(const void *bytes)
{
    size_t i = slot_of((uintptr_t)bytes);
    if (!atomic_load(&watching) || !bytes)
        return;
    for (size_t n = 0; n < SLOTS; n++, i = (i + 1) % SLOTS) {
        uintptr_t was = atomic_load(&known[i]);
        if (was == 0)
            return;
        if (was == (uintptr_t)bytes) {
            atomic_store(&known[i], GONE);
            atomic_fetch_sub(&live, 1);
            return;
        }
    }
}

static int fails_now(const void *caller)
{
    unsigned nth;
    if (!atomic_load(&armed) || is_own(caller))
        return 0;
    nth = atomic_fetch_add(&counted, 1) + 1;
    if (!fail_at || nth < fail_at || (nth > fail_at && !goes_on))
        return 0;
    atomic_store(&met, 1);
    errno = ENOMEM;
    return 1;
}

static int in_reserve(const void *bytes)
{
    return (const unsigned char *)bytes >= reserve &&
           (const unsigned char *)bytes < reserve + sizeof(reserve);
}

static void *from_reserve(size_t size)
{
    const size_t room = (size + 31) / 16 * 16; /* with its size in front */
    const size_t at = atomic_fetch_add(&reserve_used, room);
    if (at + room > sizeof(reserve))
        return NULL;
    memcpy(reserve + at, &size, sizeof(size));
    return reserve + at + 16;
}

static void *give(void *bytes, size_t size, const void *caller)
{
    if (is_own(caller))
        return bytes ? bytes : from_reserve(size);
    if (!in_range(&loader, caller))
        remember(bytes);
    return bytes;
}

EXPORTED void *malloc(size_t size)
{
    const void *caller = __builtin_return_address(0);
    return fails_now(caller) ? NULL : give(__libc_malloc(size), size, caller);
}

EXPORTED void *calloc(size_t count, size_t size)
{
    const void *caller = __builtin_return_address(0);
    return fails_now(caller) ? NULL : give(__libc_calloc(count, size), count * size, caller);
}

EXPORTED void *realloc(void *old, size_t size)
{
    const void *caller = __builtin_return_address(0);
    void *bytes;
    if (fails_now(caller))
        return NULL;
    if (in_reserve(old)) {
        size_t had;
        memcpy(&had, (unsigned char *)old - 16, sizeof(had));
        bytes = malloc(size);
        if (bytes)
            memcpy(bytes, old, had < size ? had : size);
        return bytes;
    }
    forget(old);
    bytes = __libc_realloc(old, size);
    if (!bytes && size) {
        if (is_own(caller) && (bytes = from_reserve(size)) != NULL) {
            const size_t had = old ? malloc_usable_size(old) : 0;
            if (had)
                memcpy(bytes, old, had < size ? had : size);
            return bytes;
        }
        remember(old);
        return bytes;
    }
    return give(bytes, size, caller);
}

EXPORTED void free(void *bytes)
{
    if (in_reserve(bytes))
        return;
    forget(bytes);
    __libc_free(bytes);
}

void allocations_fail(unsigned nth, int sticky)
{
    if (!own.to)
        dl_iterate_phdr(find_ranges, NULL);
    atomic_store(&counted, 0);
    atomic_store(&met, 0);
    atomic_store(&fail_at, nth);
    atomic_store(&goes_on, sticky);
    atomic_store(&armed, 1);
}

void allocations_stop(void)
{
    atomic_store(&armed, 0);
}

int allocations_met(void)
{
    return (int)atomic_load(&met);
}

unsigned allocations_counted(void)
{
    return atomic_load(&counted);
}

void allocations_watch(void)
{
    if (!own.to)
        dl_iterate_phdr(find_ranges, NULL);
    atomic_store(&watching, 1);
}

long allocations_live(void)
{
    return atomic_load(&live);
}

const char *allocations_missing(void)
{
    return NULL;
}

#endif
