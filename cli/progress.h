/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

/* Between output.c and progress.c: who writes to stderr when. */

#include <stdbool.h>

void cli_progress_allow(bool allowed);
/* Takes the progress line away, and lets nobody else write until the unlock. */
void cli_stderr_lock(void);
void cli_stderr_unlock(void);

#endif
