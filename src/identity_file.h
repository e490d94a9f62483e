/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_IDENTITY_FILE_H
#define WC_IDENTITY_FILE_H

/*
 * What a namespace's fingerprint was made of, as text beside its entries: a fingerprint is a hash,
 * and so says that two engines differ, but not in what. It is for people, and vouches for nothing:
 * no lookup reads it.
 *
 *     wc_identity_file_write(store, &folder, attachment, identity);   // after a save
 *     rc = wc_identity_file_read(&found, store, &folder, &err);
 *
 * The file is a line "wasmcache identity 1" and lines "name: value" of printable ASCII, in all at
 * most WC_IDENTITY_FILE_MAX bytes. Names that are not known are passed over.
 */

#include "attachment.h"

#define WC_IDENTITY_NAME ".identity"
enum { WC_IDENTITY_FILE_MAX = 4096 };

/* Writes the file where there is none yet. No failure shows. */
void wc_identity_file_write(const struct wc_store *store, const struct wc_folder *folder,
                            const wasmcache_attachment *attachment,
                            const struct wc_identity *identity);

/* Judges and reads it. On failure *out is not to be used. EMISS: there is none; EUNTRUSTED,
 * ECORRUPT, ENEWER, EIO. */
int wc_identity_file_read(wasmcache_identity *out, const struct wc_store *store,
                          const struct wc_folder *folder, struct wc_error *err);

#endif
