# SPDX-License-Identifier: Apache-2.0
"""Bugs to plant, each with the tests that are to catch it: rows of the torture table ("row 12") and tests of the suite
("unit publish", "fuzz trailer"). `named`: the kinds that must be caught, all of them."""


class Bug:
    def __init__(self, name, file, old, new, *killers, named=False):
        self.name = name
        self.file = "src/" + file
        self.old = old
        self.new = new
        self.killers = killers
        self.named = named


BUGS = [
    # ---- what gets to the disk ----
    Bug("drop fdatasync", "publish.c",
        "    if (t->store->flags & WASMCACHE_DURABLE) {\n        rc = wc_os_sync_data(t->fd);",
        "    if (0) {\n        rc = wc_os_sync_data(t->fd);", "row 12", "row 10", named=True),
    Bug("drop the folder's fsync", "publish.c",
        "*result == WC_PUBLISHED_NEW && (t->store->flags & WASMCACHE_DURABLE)) {\n        rc = wc_os_sync_dir",
        "*result == WC_PUBLISHED_NEW && 0) {\n        rc = wc_os_sync_dir", "row 12", "row 10", named=True),
    Bug("a replaced entry is not synced", "publish.c",
        "int rc = t->store->flags & WASMCACHE_DURABLE ? 0 : wc_os_sync_data(t->fd);",
        "int rc = 0;", "unit publish", "row 10"),
    Bug("a failed fdatasync is no failure", "publish.c",
        "        if (rc < 0)\n            return system_failure(err, t, rc, \"fdatasync\");\n    }",
        "        (void)rc;\n    }", "row 12"),
    Bug("the error of the last close is dropped", "publish.c",
        "    return rc < 0 ? system_failure(err, t, rc, \"close\") : 0;", "    return 0;", "unit publish"),
    Bug("a short write is taken for all", "os/posix.c",
        "        size_t want = size - done < IO_PIECE ? size - done : IO_PIECE;\n        ssize_t n = write(fd, (const char *)bytes + done, want);",
        "        size_t want = size - done < IO_PIECE ? size - done : IO_PIECE;\n        ssize_t n = write(fd, (const char *)bytes + done, want);\n        if (n > 0)\n            return 0;",
        "row 5"),
    Bug("an interrupted write fails", "os/posix.c",
        "        ssize_t n = write(fd, (const char *)bytes + done, want);\n        if (n < 0 && errno == EINTR)\n            continue;",
        "        ssize_t n = write(fd, (const char *)bytes + done, want);", "row 1"),
    Bug("a write is not checked", "publish.c",
        "        rc = wc_os_write(t->fd, artifact, piece);\n        if (rc < 0) {",
        "        rc = wc_os_write(t->fd, artifact, piece);\n        if (0) {", "row 1", "row 7"),
    # ---- names ----
    Bug("a fixed name for temporary files", "namespace.c",
        "    int rc = wc_os_random(random, sizeof(random));",
        "    int rc = 0;\n    memset(random, 7, sizeof(random));", "unit namespace", "row 14", "row 4", named=True),
    Bug("temporary files are named as entries are", "namespace.c",
        "    if (of)\n        snprintf(out", "    if (1)\n        snprintf(out", "unit namespace"),
    Bug("a living writer's file is cleaned away", "remove.c",
        "        rc = wc_os_try_lock(fd);\n        if (rc == 0)\n            rc = wc_os_fstat(fd, &st);\n        if (rc == 0 && st.type",
        "        rc = wc_os_fstat(fd, &st);\n        if (rc == 0 && st.type", "row 21", "unit publish"),
    Bug("left-over files stay", "remove.c",
        "        if (!wc_private_name_parse(of, name))\n            continue;", "        if (wc_private_name_parse(of, name) >= 0)\n            continue;",
        "row 4", named=True),
    Bug("unlink by name", "remove.c",
        "    if (looked == 0 && same_file(&want, &got)) {", "    if (looked == 0) {", "row 18", named=True),
    Bug("what was replaced meanwhile is not put back", "remove.c",
        "    rc = put_back(ns_fd, private, name);\n    if (rc < 0 && rc != -ENOENT)", "    rc = wc_os_unlink(ns_fd, private);\n    if (rc < 0 && rc != -ENOENT)",
        "row 18"),
    Bug("the last wins", "publish.c",
        "            *result = t->flags & WC_PUBLISH_REPLACE ? WC_PUBLISHED_NEW : WC_PUBLISHED_KEPT;\n            return t->flags & WC_PUBLISH_REPLACE ? replace(t, err) : 0;",
        "            *result = WC_PUBLISHED_NEW;\n            return replace(t, err);", "row 14", "unit publish"),
    Bug("a bad entry is kept", "publish.c", "    if (rc == 0 && !replace)\n        rc = wc_entry_file_verify(file, err);",
        "", "row 22", "unit publish"),
    Bug("names may lead up", "namespace.c", " || strstr(name, \"..\"))", ")", "unit namespace", "fuzz namespace"),
    Bug("names may have slashes", "namespace.c", "!strchr(\"._+-\", name[i])", "!strchr(\"._+-/\", name[i])", "unit namespace", "row 28", named=True),
    # ---- what is checked ----
    Bug("the digest is of the head only", "store_dir.c",
        "    const uint64_t size = file->trailer.artifact_bytes;\n    struct wc_digest_state",
        "    const uint64_t size = file->trailer.artifact_bytes < 4096 ? file->trailer.artifact_bytes : 4096;\n    struct wc_digest_state",
        "row 22", "unit publish", named=True),
    Bug("no digest is compared", "store_dir.c",
        "        if (memcmp(digest.bytes, file->trailer.digest.bytes, sizeof(digest.bytes)) != 0)", "        if (0)", "row 22", "row 23", "row 2", named=True),
    Bug("the engine before the check", "load.c",
        "    int rc = file->has_trailer ? check_artifact(call, store, folder, file, &stamp, err) : 0;\n    if (rc < 0)\n        return rc;",
        "    int rc = 0;\n    (void)check_artifact;\n    (void)store;\n    (void)folder;", "row 22", "row 2", named=True),
    Bug("the key is not compared", "store_dir.c", "    if (!wasmcache_key_equal(&trailer->key, expect->key))", "    if (0)", "row 24", named=True),
    Bug("the fingerprint is not compared", "store_dir.c", "    else if (expect->fingerprint && memcmp(trailer->fingerprint, expect->fingerprint, 32) != 0)", "    else if (0)",
        "unit entries", "unit publish", "unit get", "unit attacks"),
    Bug("the kind is not compared", "store_dir.c", "    else if (expect->kind && trailer->kind != expect->kind)", "    else if (0)", "unit get", "unit publish", "unit entries"),
    Bug("the trailer's check is not compared", "entry.c",
        "    if (wc_get_number(t + AT_CHECK, 8) != XXH3_64bits(t + 8, (size_t)length - 8))", "    if (0)", "unit entry", "row 22"),
    Bug("padding is not looked at", "entry.c", "    if (!all_zero(t - padding, padding))", "    if (0)", "unit entry", "row 22"),
    Bug("the file may be longer than the trailer says", "entry.c",
        "        out->artifact_bytes + padding + length != file_bytes)", "        out->artifact_bytes + padding + length > file_bytes)", "unit entry", "row 23"),
    Bug("a later format is damage", "entry.c", "        return wc_fail(err, WASMCACHE_ENEWER,", "        return wc_fail(err, WASMCACHE_ECORRUPT,", "unit entry", "unit publish"),
    Bug("a stamp is good for any size and time", "hint.c",
        "                                st->size,\n                                (uint64_t)st->mtime_ns,\n                                (uint64_t)st->ctime_ns};",
        "                                0,\n                                0,\n                                0};", "row 22", "unit stamps", named=True),
    Bug("a stamp is taken at once", "hint.c", "    return age > 0 && st->ctime_ns <= now - age && st->mtime_ns <= now;", "    return age > 0 && now > 0;", "unit stamps", "unit hint"),
    Bug("a slot's check is not compared", "hint.c", "    return check == slot_check(slot, owner);", "    (void)owner;\n    return check || !check;", "unit hint", "fuzz hint", "row 42"),
    Bug("no last look before the engine", "load.c", "    if (rc > 0 && file->checked)", "    if (0)", "unit attacks", "unit stamps", "row 32"),
    Bug("what cannot be read is damaged", "store_dir.c",
        "            rc = wc_fail(err, wc_error_of_errno((int)n), (int)n, \"pread\", file->path,\n                         \"Cannot read %s\", file->path);",
        "            rc = wc_fail(err, WASMCACHE_ECORRUPT, (int)n, \"pread\", file->path,\n                         \"Cannot read %s\", file->path);", "row 2", "unit faults"),
    # ---- whom to trust ----
    Bug("links are followed", "os/posix.c", "return wc_os_openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK", "return wc_os_openat(at, name, O_RDONLY | O_NONBLOCK", "unit planted", "unit gate", named=True),
    Bug("entries of others are trusted", "store_dir.c", "    if (!wc_gate_trusts(&store->gate, &out->st))", "    if (0)", "unit gate", named=True),
    Bug("a folder that all may write is trusted", "gate.c", "    if (!wc_gate_trusts(gate, &st)) {\n        wc_os_close(fd);\n        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,\n                       \"%s/%s is not to be trusted",
        "    if (0) {\n        wc_os_close(fd);\n        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,\n                       \"%s/%s is not to be trusted", "unit gate"),
    Bug("modes by the umask", "publish.c", "    rc = wc_os_chmod(t->fd, wc_gate_file_mode(&t->store->gate));\n    if (rc < 0)", "    if (rc < 0)", "unit umask", "unit publish"),
    # ---- one compile ----
    Bug("a lock without a deadline", "flight.c", "    if (now < flight->until)\n        return flight->until - now;", "    if (now)\n        return 1000000000;", "row 15", "unit flight", "unit waits", named=True),
    Bug("no lock between processes", "lock.c", "    if (lock->fd < 0)\n        return WC_LOCK_NONE;", "    if (lock->fd < 0 || lock->fd >= 0)\n        return WC_LOCK_NONE;", "row 15", "unit flight"),
    Bug("unlocked by closing alone", "lock.c", "        if (lock->held)\n            wc_os_unlock_byte", "        if (0)\n            wc_os_unlock_byte", "unit flight"),
    Bug("who waited compiles again", "flight.c", "    if (flight->looks < LOOKS && entry_changed(flight, &folder)) {", "    if (0) {", "row 15", "unit flight"),
    Bug("a lock that may not be had is another's", "os/locks.c",
        "    return wc_os_result(rc);\n}\n\nint wc_os_try_lock_byte", "    return rc < 0 && errno == EACCES ? -EWOULDBLOCK : wc_os_result(rc);\n}\n\nint wc_os_try_lock_byte", "row 1"),
    # ---- limits ----
    Bug("SIGXFSZ reaches the host", "os/posix.c", "    if (offset + size > wc_os_file_size_limit())\n        return -EFBIG;", "", "row 8", "unit flight"),
    Bug("pinned entries are evicted", "evict.c", "    return !w->pins || !wc_is_pinned(&w->folder, f->name);", "    return 1;", "unit evict"),
    Bug("everything is evicted", "evict.c", "    return value > limit ? value - limit : 0;", "    return value > limit ? value : 0;", "unit evict", "row 21"),
    Bug("a descriptor leaks at a miss", "store_dir.c", "    wc_os_close(file->fd);\n    file->fd = -1;", "    if (file->has_trailer)\n        wc_os_close(file->fd);\n    file->fd = -1;", "row 2", "unit faults"),
    Bug("memory leaks when a digest fails", "store_dir.c", "    else\n        wc_digest_free(state);", "", "row 6", "unit allocations"),
    Bug("no memory ends the host", "remove.c", "    if (!walk)\n        return wc_fail", "    if (0)\n        return wc_fail", "row 6", "unit faults", "row 3"),
    # ---- keys ----
    Bug("filed under what the source was, not what was compiled", "get.c",
        "        rc = wc_input_unchanged(&get->input, &get->content, &err);\n    if (rc == 0 && wc_later_save", "        rc = 0;\n    if (rc == 0 && wc_later_save", "unit source", "unit get", "unit attacks"),
    Bug("a salt is ignored", "get.c", "    if (get->salt_length)\n", "    if (0)\n", "unit kept", "unit get"),
]
