/* SPDX-License-Identifier: Apache-2.0 */
/* What `doctor` finds out about settings, layers, engines, and the limits of the process. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cache.h"
#include "doctor.h"
#include "engine.h"
#include "nearest.h"
#include "output.h"

/* ---- settings -------------------------------------------------------------------------------- */

/* A variable that looks like a setting and is none is a slip of the pen. */
static void look_at_variable(struct cli_doctor *doctor, const char *entry)
{
    static const char prefix[] = "WASMCACHE_";
    const char *names[CLI_SETTINGS + 3] = {"config", "disable", "recache"};
    const char *equals = strchr(entry, '='), *nearest;
    char name[64], variable[CLI_VARIABLE_SIZE];
    int id;

    if (!equals || strncmp(entry, prefix, sizeof(prefix) - 1) != 0)
        return;
    entry += sizeof(prefix) - 1;
    snprintf(name, sizeof(name), "%.*s", (int)(equals - entry), entry);
    for (id = 0; id < CLI_SETTINGS; id++)
        names[id + 3] = cli_settings[id].name;
    nearest = cli_nearest(name, names, CLI_SETTINGS + 3);
    for (id = 0; id < CLI_SETTINGS; id++)
        if (!strcmp(cli_config_variable(variable, (enum cli_setting_id)id) + sizeof(prefix) - 1,
                    name))
            return;
    if (nearest && strcmp(name, "CONFIG") != 0 && strcmp(name, "DISABLE") != 0 &&
        strcmp(name, "RECACHE") != 0)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "settings", "correct its name, or unset it",
                       "$WASMCACHE_%s is no setting; the one like it is \"%s\"", name, nearest);
}

void cli_doctor_settings(struct cli_doctor *doctor)
{
    const struct cli_config *config = doctor->cli->config;
    unsigned from[4] = {0};
    char **entry;
    int id;

    for (id = 0; id < CLI_SETTINGS; id++)
        from[config->values[id].origin]++;
    cli_doctor_say(
        doctor, CLI_FINE, "settings", NULL,
        "%u of the file %s%s, %u of the environment, %u of options; \"wasmcache config\" "
        "shows them",
        from[CLI_FROM_FILE], config->file ? config->file : "(none)",
        !config->file || config->file_read ? "" : " (there is none)", from[CLI_FROM_ENVIRONMENT],
        from[CLI_FROM_OPTION]);
    if (cli_environment_flag("WASMCACHE_DISABLE"))
        cli_doctor_say(doctor, CLI_DOUBTFUL, "settings", "unset it to use the cache",
                       "$WASMCACHE_DISABLE is set: compile and run do without the cache");
    if (cli_environment_flag("WASMCACHE_RECACHE"))
        cli_doctor_say(doctor, CLI_DOUBTFUL, "settings", "unset it to have hits",
                       "$WASMCACHE_RECACHE is set: compile and run compile all anew");
    for (entry = environ; entry && *entry; entry++)
        look_at_variable(doctor, *entry);
}

/* ---- layers ---------------------------------------------------------------------------------- */

static bool is_same_directory(const struct cli_doctor *doctor, const struct stat *st)
{
    struct stat own;

    return doctor->dir >= 0 && !fstat(doctor->dir, &own) && own.st_dev == st->st_dev &&
           own.st_ino == st->st_ino;
}

static void say_layer(struct cli_doctor *doctor, const char *path, const struct stat *st,
                      const wasmcache_status_info *info)
{
    struct statvfs fs;
    bool can_write = !faccessat(AT_FDCWD, path, W_OK, AT_EACCESS);
    const char *protection = !statvfs(path, &fs) && fs.f_flag & ST_RDONLY ? "mounted read-only"
                             : can_write ? "this user could write to it, and nothing here does"
                                         : "this user cannot write to it";

    if (is_same_directory(doctor, st))
        cli_doctor_say(doctor, CLI_DOUBTFUL, "layer", "take it out of layers",
                       "%s is the cache directory itself", path);
    else
        cli_doctor_say(doctor, CLI_FINE, "layer", NULL,
                       "%s: readable and trusted (owner %" PRIu32 ", mode %04o); %s", path,
                       info->uid, info->mode & 07777, protection);
}

static void look_at_layer(struct cli_doctor *doctor, const char *path)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache *layer = NULL;
    struct stat st, used;

    options.dir = path;
    options.flags = WASMCACHE_READ_ONLY;
    if (wasmcache_open(&layer, &options)) {
        cli_doctor_say(doctor, CLI_BROKEN, "layer", "look at layers in the settings", "%s: %s",
                       path, cli_last_message());
        return;
    }
    wasmcache_status(layer, &info);
    if (info.state == WASMCACHE_STATE_OFF)
        cli_doctor_say(doctor, CLI_BROKEN, "layer",
                       "until then it is passed over: all that it has is compiled", "%s",
                       info.message);
    else if (stat(path, &st))
        cli_doctor_say(doctor, CLI_DOUBTFUL, "layer", "make it, or take it out of layers", "%s: %s",
                       path, strerror(errno));
    else if (stat(info.dir, &used)) /* a folder of our own in one that is not to be trusted */
        cli_doctor_say(doctor, CLI_BROKEN, "layer",
                       "chmod go-w it if nobody else wrote to it; else make it anew",
                       "nothing in %s is used: others may write to it (owner %" PRIu32
                       ", mode %04o), and there is no %s",
                       path, (uint32_t)st.st_uid, (unsigned)(st.st_mode & 07777), info.dir);
    else if (faccessat(AT_FDCWD, info.dir, R_OK | X_OK, AT_EACCESS))
        cli_doctor_say(doctor, CLI_BROKEN, "layer", "let this user read it", "%s: %s", info.dir,
                       strerror(errno));
    else
        say_layer(doctor, info.dir, &used, &info);
    wasmcache_close(layer);
}

void cli_doctor_layers(struct cli_doctor *doctor)
{
    char *layers[CLI_LAYERS_MAX];
    int i, count = cli_config_layers(layers, doctor->cli->config);

    for (i = 0; i < count; i++) {
        look_at_layer(doctor, layers[i]);
        free(layers[i]);
    }
    if (!count)
        cli_doctor_say(doctor, CLI_FINE, "layer", NULL, "there are none");
}

/* ---- engines --------------------------------------------------------------------------------- */

/* The middle of "wasmtime-cranelift-0123456789ABCDEF-v50", "" if it is none. */
static void compiler_of(char *out, size_t size, const char *engine, const char *engine_namespace)
{
    size_t length = strlen(engine);
    const char *name = engine_namespace + length + 1;

    out[0] = '\0';
    if (!strncmp(engine_namespace, engine, length) && engine_namespace[length] == '-')
        snprintf(out, size, ", %.*s", (int)strcspn(name, "-"), name);
}

static void say_engine(struct cli_doctor *doctor, const struct cli_engine *engine, bool wanted)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    const struct cli_engine_type *type = engine->type;
    const char *version = type->loaded_version();
    wasmcache_attachment *attachment;
    char compiler[64];

    options.settings = doctor->cli->config->values[CLI_ENGINE_SETTINGS].text;
    attachment = type->attach(doctor->cache, engine->native, &options);
    wasmcache_attachment_status(attachment, &info);
    compiler_of(compiler, sizeof(compiler), type->name, info.engine_namespace);
    if (info.error && info.error != WASMCACHE_EOFF)
        cli_doctor_say(doctor, wanted ? CLI_BROKEN : CLI_DOUBTFUL, "engine",
                       "until then it compiles each time", "%s %s of %s runs uncached: %s",
                       type->title, version, engine->path, info.message);
    else
        cli_doctor_say(doctor, CLI_FINE, "engine", NULL, "%s %s%s: %s%s%s", type->title, version,
                       compiler, engine->path, doctor->cli->verbose ? ", " : "",
                       doctor->cli->verbose ? info.engine_namespace : "");
    wasmcache_detach(attachment);
}

/* NULL: the one that the settings name by its path. */
static void look_at_engine(struct cli_doctor *doctor, const struct cli_engine_type *type,
                           bool wanted)
{
    struct cli_engine engine = {0};
    char text[2048] = "";
    int status;

    cli_errors_to(text, sizeof(text));
    status = type ? cli_engine_open_type(&engine, type) : cli_engine_open(&engine, doctor->cli);
    cli_errors_to(NULL, 0);
    if (status)
        cli_doctor_say(doctor, wanted ? CLI_BROKEN : CLI_DOUBTFUL, "engine",
                       wanted ? "compile and run do not work without it"
                              : "nothing, if nobody needs that one",
                       "%s", text);
    else
        say_engine(doctor, &engine, wanted);
    cli_engine_close(&engine);
}

void cli_doctor_engines(struct cli_doctor *doctor)
{
    const char *named = doctor->cli->config->values[CLI_ENGINE].text;
    const struct cli_engine_type *const *type;

    if (strchr(named, '/'))
        look_at_engine(doctor, NULL, true);
    for (type = cli_engine_types; *type; type++)
        look_at_engine(doctor, *type, !strcmp(named, (*type)->name));
}

/* ---- the process and the system -------------------------------------------------------------- */

/* `failed`: what getrlimit returned, whose first argument is of another type in each C library. */
static uint64_t limit_of(int failed, const struct rlimit *limit)
{
    return failed || limit->rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit->rlim_cur;
}

enum { FEW_DESCRIPTORS = 64 };

static void look_at_descriptors(struct cli_doctor *doctor)
{
    struct rlimit found;
    const uint64_t limit = limit_of(getrlimit(RLIMIT_NOFILE, &found), &found);

    if (limit < FEW_DESCRIPTORS)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "descriptors", "raise it: ulimit -n 1024",
                       "a process may have %" PRIu64 " only", limit);
    else
        cli_doctor_say(doctor, CLI_FINE, "descriptors", NULL, "a process may have %" PRIu64, limit);
}

static void look_at_memory(struct cli_doctor *doctor)
{
    struct rlimit space, size;
    const uint64_t memory = limit_of(getrlimit(RLIMIT_AS, &space), &space),
                   file = limit_of(getrlimit(RLIMIT_FSIZE, &size), &size);
    char bytes[CLI_TEXT_SIZE];

    if (memory == UINT64_MAX)
        cli_doctor_say(doctor, CLI_FINE, "memory", NULL, "address space is not limited");
    else
        cli_doctor_say(doctor, CLI_DOUBTFUL, "memory",
                       "ulimit -v unlimited: engines reserve far more address space than they use",
                       "address space is limited to %s", cli_doctor_bytes(bytes, memory));
    if (file != UINT64_MAX)
        cli_doctor_say(doctor, CLI_DOUBTFUL, "file size", "ulimit -f unlimited",
                       "no file may have more than %s, so larger entries are not saved",
                       cli_doctor_bytes(bytes, file));
}

static void look_at_system(struct cli_doctor *doctor)
{
    const long all = sysconf(_SC_NPROCESSORS_ONLN);
    struct utsname system;
    cpu_set_t set;
    unsigned major = 0, minor = 0;
    char *end;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set))
        cli_doctor_say(doctor, CLI_FINE, "processors", NULL, "%ld", all);
    else
        cli_doctor_say(doctor, CLI_FINE, "processors", NULL, "%d of %ld", CPU_COUNT(&set), all);
    uname(&system);
    major = (unsigned)strtoul(system.release, &end, 10);
    if (*end == '.')
        minor = (unsigned)strtoul(end + 1, NULL, 10);
    if (major < 5 || (major == 5 && minor < 4))
        cli_doctor_say(doctor, CLI_DOUBTFUL, "system", "use Linux 5.4 or later", "%s %s",
                       system.sysname, system.release);
    else if (access("/proc/thread-self/fd", X_OK) ||
             access("/proc/sys/kernel/random/boot_id", R_OK))
        cli_doctor_say(
            doctor, CLI_DOUBTFUL, "system",
            "mount /proc: without it hits load copies, and nothing is remembered of files",
            "%s %s, and /proc is not all there", system.sysname, system.release);
    else
        cli_doctor_say(doctor, CLI_FINE, "system", NULL, "%s %s, and /proc is there",
                       system.sysname, system.release);
}

void cli_doctor_limits(struct cli_doctor *doctor)
{
    look_at_descriptors(doctor);
    look_at_memory(doctor);
    look_at_system(doctor);
}
