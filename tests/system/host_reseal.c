/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_reseal ENTRY: gives the entry another first byte and a trailer that vouches for it, so that
 * all is sound but no engine takes it. What lies there afterwards is a new file.
 *
 * no-engine
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "entry.h"

static void fail(const char *what)
{
    fprintf(stderr, "host_reseal: %s\n", what);
    exit(1);
}

static uint8_t *read_all(const char *path, size_t *size)
{
    struct stat st;
    uint8_t *bytes = NULL;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &st) || !(bytes = malloc((size_t)st.st_size)) ||
        fread(bytes, 1, (size_t)st.st_size, file) != (size_t)st.st_size)
        fail("cannot read it");
    fclose(file);
    *size = (size_t)st.st_size;
    return bytes;
}

int main(int argc, char **argv)
{
    struct wc_trailer trailer;
    struct wc_digest_state *digest;
    struct wc_error error;
    size_t size;
    uint8_t *bytes;
    FILE *file;
    int fd;

    if (argc != 2)
        fail("which entry?");
    bytes = read_all(argv[1], &size);
    wc_error_init(&error);
    if (size < WC_TRAILER_SIZE || wc_trailer_decode(&trailer, bytes, size, size, &error) != 0)
        fail("it is no entry");
    bytes[0] ^= 0xff;
    digest = wc_digest_start(trailer.digest.kind);
    if (!digest)
        fail("no memory");
    wc_digest_add(digest, bytes, (size_t)trailer.artifact_bytes);
    wc_digest_finish(digest, &trailer.digest);
    wc_trailer_encode(bytes + size - WC_TRAILER_SIZE, &trailer);

    if (unlink(argv[1]) || (fd = open(argv[1], O_WRONLY | O_CREAT | O_EXCL, 0400)) < 0 ||
        !(file = fdopen(fd, "wb")) || fwrite(bytes, 1, size, file) != size || fclose(file))
        fail("cannot write it");
    free(bytes);
    return 0;
}
