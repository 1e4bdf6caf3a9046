/* Uses the whole interface once, on a tree with index.html, maps/a.pak and maps/b.pak: everything brigade.toml CATALOG FILE */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <dirent.h>

/* Returns the number of threads of this process. */
static int threads(void)
{
    int count = -2; /* . and .. */
    DIR *tasks = opendir("/proc/self/task");
    while (tasks != NULL && readdir(tasks) != NULL)
        count++;
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

struct seen {
    unsigned records, ticks;
    unsigned long long files_done;
};

static void on_log(void *user_data, bb_log_level level, const char *message, const char *fields)
{
    struct seen *seen = (struct seen *)user_data;
    CHECK(level >= BB_LOG_ERROR && level <= BB_LOG_INFO);
    CHECK(message[0] != 0 && fields[0] == '{' && strchr(fields, '\n') == NULL);
    __atomic_add_fetch(&seen->records, 1, __ATOMIC_SEQ_CST);
}

static int on_progress(void *user_data, const bb_progress *progress)
{
    struct seen *seen = (struct seen *)user_data;
    seen->ticks++;
    seen->files_done = bb_progress_count(progress, BB_PROGRESS_FILES_DONE);
    CHECK(seen->files_done <= bb_progress_count(progress, BB_PROGRESS_FILES_TOTAL));
    CHECK(bb_progress_count(progress, 4711) == 0);
    return 0;
}

static void configuration(char **argv)
{
    bb_config *config = NULL;
    char *value = NULL;
    OK(bb_config_new(&config, &error));
    OK(bb_config_set(config, "part_size", "32 MiB", &error));
    OK(bb_config_get(config, "part_size", &value, &error));
    CHECK(strcmp(value, "32 MiB") == 0);
    bb_string_free(value);
    OK(bb_config_set_url(config, "s3://releases/game", &error));
    OK(bb_config_get(config, "prefix", &value, &error));
    CHECK(strcmp(value, "game") == 0);
    bb_string_free(value);
    OK(bb_config_set(config, "secret_access_key", "hush", &error));
    OK(bb_config_get(config, "secret_access_key", &value, &error));
    CHECK(value == NULL);
    FAILS(BB_ERR_CONFIG, bb_config_set(config, "part_sise", "1", &error));
    FAILS(BB_ERR_CONFIG, bb_config_set(config, "part_size", "1 byte", &error));
    FAILS(BB_ERR_CONFIG, bb_config_check(config, &error));
    OK(bb_config_proxy_from_env(config, &error));
    bb_config_free(config);

    config = NULL;
    FAILS(BB_ERR_CONFIG, bb_config_load("/nowhere/brigade.toml", NULL, &config, &error));
    FAILS(BB_ERR_CONFIG, bb_config_load(argv[1], "nobody", &config, &error));
    CHECK(config == NULL);
}

static void report(const bb_report *report)
{
    const bb_error *none = bb_report_failure(report, 0);
    CHECK(bb_report_is_complete(report));
    CHECK(bb_report_outcome(report) == BB_OUTCOME_PUBLISHED);
    CHECK(strcmp(bb_outcome_name(bb_report_outcome(report)), "published") == 0);
    CHECK(bb_report_stop_reason(report) == BB_STOP_NONE);
    CHECK(bb_report_count(report, BB_COUNT_SCANNED) == 3 && bb_report_count(report, BB_COUNT_UPLOADED) == 3);
    CHECK(bb_report_count(report, BB_COUNT_FAILED) == 0 && bb_report_count(report, BB_COUNT_PENDING) == 0);
    CHECK(bb_report_count(report, 0) == 0 && bb_report_count(report, 4711) == 0);
    CHECK(bb_report_list_length(report, BB_LIST_UPLOADED) == 3);
    CHECK(bb_report_list_length(report, BB_LIST_DELETED) == 0);
    CHECK(bb_report_list_length(report, 0) == 0 && bb_report_list_length(report, 4711) == 0);
    CHECK(bb_report_item(report, BB_LIST_UPLOADED, 2) != NULL && bb_report_item(report, BB_LIST_UPLOADED, 3) == NULL);
    CHECK(strstr(bb_report_item(report, BB_LIST_UPLOADED_URLS, 0), bb_report_item(report, BB_LIST_UPLOADED, 0)) != NULL);
    CHECK(none == NULL && bb_report_outage(report) == NULL && bb_report_state(report) == NULL);
    CHECK(strstr(bb_report_json(report), "\"outcome\":\"published\"") != NULL);
    CHECK(bb_report_json(report) == bb_report_json(report));
}

static void catalog(const char *path)
{
    bb_catalog *catalog = NULL, *clone = NULL;
    bb_iter *iter = NULL;
    bb_resolved *found = NULL;
    bool changed = true;
    uint64_t size = 0;
    int64_t modified = 0;
    OK(bb_catalog_open(path, &catalog, &error));
    CHECK(bb_catalog_count(catalog) == 3 && !bb_catalog_is_damaged(catalog));
    OK(bb_catalog_get(catalog, "maps/a.pak and more", 10, &found, &error));
    CHECK(strstr(bb_resolved_url(found), "maps/a.pak") != NULL);
    CHECK(bb_resolved_state(found) == BB_KEY_PUBLISHED);
    CHECK(bb_resolved_size(found, &size) && size == 4 && bb_resolved_modified(found, &modified) && modified > 1000000000);
    CHECK(strlen(bb_resolved_sha256(found)) == 64 && strstr(bb_resolved_digest(found), bb_resolved_sha256(found)) != NULL);
    bb_resolved_free(found);
    found = NULL;
    EXPECT(BB_ERR_NOT_FOUND, false, bb_catalog_get(catalog, "maps/c.pak", BB_NUL_TERMINATED, &found, &error));
    EXPECT(BB_ERR_NOT_FOUND, false, bb_catalog_get(catalog, "\xff", 1, &found, &error));
    CHECK(found == NULL);

    OK(bb_catalog_clone(catalog, &clone, &error));
    OK(bb_catalog_iter(clone, "maps/", BB_NUL_TERMINATED, &iter, &error));
    /* The iterator has a share of its own. */
    bb_catalog_free(clone);
    CHECK(bb_iter_key(iter) == NULL && bb_iter_resolved(iter) == NULL);
    OK(bb_iter_next(iter, &error));
    CHECK(strcmp(bb_iter_key(iter), "maps/a.pak") == 0);
    OK(bb_iter_next(iter, &error));
    CHECK(strcmp(bb_iter_key(iter), "maps/b.pak") == 0 && bb_resolved_url(bb_iter_resolved(iter)) != NULL);
    EXPECT(BB_DONE, false, bb_iter_next(iter, &error));
    EXPECT(BB_DONE, false, bb_iter_next(iter, &error));
    CHECK(bb_iter_key(iter) == NULL);
    bb_iter_free(iter);
    OK(bb_catalog_refresh(catalog, &changed, &error));
    CHECK(!changed);
    bb_catalog_free(catalog);
}

static void record(const bb_site *site)
{
    bb_summary *summary = NULL;
    bb_pending *pending = NULL;
    uint64_t requests = 0;
    OK(bb_site_summary(site, &summary, &error));
    CHECK(bb_summary_count(summary, BB_SUMMARY_PUBLISHED) == 3 && bb_summary_count(summary, BB_SUMMARY_PENDING) == 0);
    CHECK(bb_summary_is_synced(summary) && bb_summary_destination(summary) != NULL);
    bb_summary_free(summary);
    OK(bb_site_pending(site, &pending, &error));
    CHECK(bb_pending_count(pending) == 0 && bb_pending_key(pending, 0) == NULL && bb_pending_bytes(pending, 0) == 0);
    CHECK(bb_pending_kind_at(pending, 0) == BB_PENDING_NONE);
    bb_pending_free(pending);
    OK(bb_site_metric(site, BB_METRIC_REQUESTS, &requests, &error));
    CHECK(requests >= 3);
    FAILS(BB_ERR_ARGUMENT, bb_site_metric(site, 4711, &requests, &error));
}

static void objects(const bb_site *site, const char *file)
{
    bb_resolved *found = NULL;
    char *url = NULL;
    OK(bb_url(site, "extra/e.bin", BB_NUL_TERMINATED, &url, &error));
    char *expected = url;
    OK(bb_upload_file(site, file, "extra/e.bin...", 11, &url, &error));
    CHECK(strcmp(url, expected) == 0);
    bb_string_free(url);
    bb_string_free(expected);
    OK(bb_delete_file(site, "extra/e.bin", BB_NUL_TERMINATED, &error));
    OK(bb_delete_file(site, "extra/e.bin", BB_NUL_TERMINATED, &error));
    FAILS(BB_ERR_INVALID_KEY, bb_delete_file(site, "../etc", BB_NUL_TERMINATED, &error));
    FAILS(BB_ERR_INVALID_KEY, bb_url(site, "", 0, &url, &error));
    FAILS(BB_ERR_SOURCE_VANISHED, bb_upload_file(site, "/nowhere", "a", 1, NULL, &error));
    OK(bb_resolve(site, "index.html", BB_NUL_TERMINATED, &found, &error));
    CHECK(bb_resolved_state(found) == BB_KEY_PUBLISHED);
    bb_resolved_free(found);
    found = NULL;
    EXPECT(BB_ERR_NOT_FOUND, false, bb_resolve(site, "nothing", BB_NUL_TERMINATED, &found, &error));
    EXPECT(BB_ERR_NOT_FOUND, false, bb_resolve(site, "\xff", 1, &found, &error));
}

int main(int argc, char **argv)
{
    struct seen seen = {0, 0, 0};
    bb_site *site = NULL;
    bb_report *done = NULL;
    bb_state *state = NULL;
    CHECK(argc == 4 && strcmp(bb_version(), "0.1.0") == 0);
    configuration(argv);

    bb_config *config = load(argv);
    OK(bb_config_check(config, &error));
    FAILS(BB_ERR_ARGUMENT, bb_config_on_log(config, 6, on_log, &seen, &error));
    OK(bb_config_on_log(config, BB_LOG_INFO, on_log, &seen, &error));
    OK(bb_config_on_progress(config, on_progress, &seen, &error));
    OK(bb_site_open(config, &site, &error));
    bb_config_free(config);

    OK(bb_plan(site, &done, &error));
    CHECK(bb_report_count(done, BB_COUNT_UPLOADED) == 3 && strstr(bb_report_json(done), "\"upload_list\"") != NULL);
    bb_report_free(done);
    OK(bb_rescan(site, &done, &error));
    report(done);
    bb_report_free(done);
    CHECK(seen.files_done == 3 && seen.ticks > 0 && seen.records > 3);
    catalog(argv[2]);
    record(site);
    objects(site, argv[3]);
    FAILS(BB_ERR_CONFIG, bb_pull(site, &state, &error));
    CHECK(state == NULL);

    /* A cancelled call says so, and so do later ones until the site is told to go on. */
    OK(bb_site_cancel(site, &error));
    FAILS(BB_ERR_CANCELLED, bb_upload_file(site, argv[3], "extra/e.bin", BB_NUL_TERMINATED, NULL, &error));
    OK(bb_rescan(site, &done, &error));
    CHECK(bb_report_stop_reason(done) == BB_STOP_CANCELLED && !bb_report_is_complete(done));
    bb_report_free(done);
    OK(bb_site_reset_cancel(site, &error));
    OK(bb_rescan(site, &done, &error));
    CHECK(bb_report_outcome(done) == BB_OUTCOME_UNCHANGED);
    bb_report_free(done);

    const int before = threads();
    OK(bb_site_close(site, &error));
    CHECK(before < 0 || (before > 1 && threads() == 1));
    FAILS(BB_ERR_CLOSED, bb_rescan(site, &done, &error));
    bb_site_free(site);
    return 0;
}
