/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "cache.h"
#include "cli.h"
#include "doctor.h"
#include "output.h"

static const char *const healths[CLI_HEALTHS] = {"ok", "warning", "failure"};

void cli_doctor_say(struct cli_doctor *doctor, enum cli_health health, const char *check,
                    const char *advice, const char *format, ...)
{
    va_list arguments;
    char text[4096];

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    doctor->found[health]++;
    if (doctor->cli->json) {
        cli_json_line(json_pack("{s:s,s:s,s:o,s:o}", "check", check, "state", healths[health],
                                "text", cli_json_text(text), "advice", cli_json_text(advice)));
    } else if (health != CLI_FINE || !doctor->cli->quiet) {
        cli_print("%-8s %-12s %s\n", healths[health], check, text);
        if (advice)
            cli_print("%-8s %-12s -> %s\n", "", "", advice);
    }
}

char *cli_doctor_count(char *out, uint64_t count, const char *one, const char *many)
{
    snprintf(out, CLI_TEXT_SIZE, "%" PRIu64 " %s", count, count == 1 ? one : many);
    return out;
}

char *cli_doctor_bytes(char *out, uint64_t bytes)
{
    if (!bytes)
        snprintf(out, CLI_TEXT_SIZE, "0 B");
    return bytes ? cli_text_bytes(out, bytes) : out;
}

bool cli_doctor_trusts(const struct stat *st)
{
    return !(st->st_mode & 022) && (st->st_uid == 0 || st->st_uid == geteuid());
}

static void print_sum(const struct cli_doctor *doctor)
{
    const unsigned *found = doctor->found;
    char warnings[CLI_TEXT_SIZE], failures[CLI_TEXT_SIZE];

    if (doctor->cli->json)
        cli_json_line(json_pack("{s:i,s:i,s:i}", "ok", (int)found[CLI_FINE], "warnings",
                                (int)found[CLI_DOUBTFUL], "failures", (int)found[CLI_BROKEN]));
    else if (!doctor->cli->quiet)
        cli_print("\n%u ok, %s, %s\n", found[CLI_FINE],
                  cli_doctor_count(warnings, found[CLI_DOUBTFUL], "warning", "warnings"),
                  cli_doctor_count(failures, found[CLI_BROKEN], "failure", "failures"));
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_doctor, argc, argv);
    struct cli_doctor doctor = {
        .cli = cli, .status = WASMCACHE_STATUS_INIT, .dir = -1, .place = -1};
    int id;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_doctor, "it takes no argument; see --cache-dir");
        return scan.status;
    }
    cli_doctor_settings(&doctor);
    cli_doctor_directory(&doctor);
    cli_doctor_disk(&doctor);
    cli_doctor_layers(&doctor);
    cli_doctor_engines(&doctor);
    cli_doctor_limits(&doctor);
    print_sum(&doctor);
    if (doctor.place >= 0 && doctor.place != doctor.dir)
        close(doctor.place);
    if (doctor.dir >= 0)
        close(doctor.dir);
    wasmcache_close(doctor.cache);
    return doctor.found[CLI_BROKEN] ? CLI_FAILED : CLI_OK;
}

const struct cli_command cli_command_doctor = {
    .name = "doctor",
    .operands = "",
    .summary = "look for what is wrong, and say what to do",
    .help = "Looks at the directory and who may write to it, at free space against the\n"
            "limits, whether locks and mapping work there, at what writers left behind, at\n"
            "layers, engines, and limits of the process. It changes nothing in the cache.\n"
            "With -q only what is not ok is shown.\n\n"
            "The exit status is 1 if something fails; a warning is no failure.",
    .examples = "wasmcache doctor\n"
                "wasmcache --json doctor | jq -r 'select(.state==\"failure\").text'",
    .options = NULL,
    .run = run,
};
