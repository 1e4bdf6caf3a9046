/*
 * What nobody should do: every function with NULL for each of its pointers, closed handles, handles freed in any order, numbers that
 * are none, and long random sequences of all that: misuse brigade.toml CATALOG FILE SEED
 */
#include "check.h"

static const char *file;

/* Of a status, a handle's reader, or nothing at all: that NULL is survived, and answered as the header says. */
static void null_handles(void)
{
    bb_error *error = NULL;
    uint64_t number = 7;
    int64_t seconds = 7;
    CHECK(bb_error_status(NULL) == BB_OK && strcmp(bb_error_text(NULL), "no error") == 0);
    CHECK(!bb_error_key(NULL) && !bb_error_path(NULL) && !bb_error_code(NULL) && !bb_error_request_id(NULL));
    CHECK(!bb_error_is_retryable(NULL) && bb_error_attempts(NULL) == 0);
    CHECK(bb_progress_count(NULL, BB_PROGRESS_FILES_DONE) == 0);
    CHECK(bb_report_outcome(NULL) == BB_OUTCOME_NONE && !bb_report_is_complete(NULL) && !bb_report_json(NULL));
    CHECK(bb_report_stop_reason(NULL) == BB_STOP_NONE && bb_report_count(NULL, BB_COUNT_SCANNED) == 0);
    CHECK(bb_report_list_length(NULL, BB_LIST_KEPT) == 0 && !bb_report_item(NULL, BB_LIST_KEPT, 0));
    CHECK(!bb_report_failure(NULL, 0) && !bb_report_outage(NULL) && !bb_report_state(NULL));
    CHECK(bb_state_count(NULL, BB_STATE_EPOCH) == 0 && !bb_state_order(NULL, &number) && !bb_state_json(NULL));
    CHECK(!bb_state_published_by(NULL) && !bb_state_claimed_by(NULL));
    CHECK(bb_pending_count(NULL) == 0 && !bb_pending_key(NULL, 0) && bb_pending_bytes(NULL, 0) == 0);
    CHECK(bb_pending_kind_at(NULL, 0) == BB_PENDING_NONE);
    CHECK(bb_summary_count(NULL, BB_SUMMARY_PENDING) == 0 && !bb_summary_is_synced(NULL) && !bb_summary_destination(NULL));
    CHECK(!bb_resolved_url(NULL) && !bb_resolved_digest(NULL) && !bb_resolved_sha256(NULL));
    CHECK(bb_resolved_state(NULL) == BB_KEY_UNKNOWN);
    CHECK(!bb_resolved_size(NULL, &number) && !bb_resolved_modified(NULL, &seconds) && number == 7 && seconds == 7);
    CHECK(bb_catalog_count(NULL) == 0 && !bb_catalog_is_damaged(NULL) && !bb_iter_key(NULL) && !bb_iter_resolved(NULL));
    CHECK(strcmp(bb_status_name(4711), "unknown status") == 0 && strcmp(bb_outcome_name(4711), "none") == 0);
    bb_string_free(NULL), bb_error_free(NULL), bb_config_free(NULL), bb_site_free(NULL), bb_report_free(NULL);
    bb_state_free(NULL), bb_pending_free(NULL), bb_summary_free(NULL), bb_resolved_free(NULL), bb_catalog_free(NULL);
    bb_iter_free(NULL);
    /* Without a place for the error there is only the status. */
    CHECK(bb_config_new(NULL, NULL) == BB_ERR_ARGUMENT && bb_rescan(NULL, NULL, NULL) == BB_ERR_ARGUMENT);
    CHECK(bb_config_new(NULL, &error) == BB_ERR_ARGUMENT);
    CHECK(strcmp(bb_error_text(error), "configure: argument config: is NULL") == 0 || strstr(bb_error_text(error), "config"));
    bb_error_free(error);
}

#define NULLED(call) FAILS(BB_ERR_ARGUMENT, call)

/* Each pointer of each function that can fail, with all others as they should be. */
static void null_arguments(char **argv, bb_config *config, bb_site *site, bb_catalog *catalog)
{
    bb_report *report = NULL;
    bb_summary *summary = NULL;
    bb_pending *pending = NULL;
    bb_resolved *found = NULL;
    bb_catalog *clone = NULL;
    bb_iter *iter = NULL;
    bb_site *other = NULL;
    bb_config *loaded = NULL;
    bb_state *state = NULL;
    char *text = NULL;
    uint64_t number = 0;
    NULLED(bb_config_load(NULL, NULL, &loaded, &error));
    NULLED(bb_config_load(argv[1], NULL, NULL, &error));
    NULLED(bb_config_load(argv[1], "\xff", &loaded, &error));
    NULLED(bb_config_set(NULL, "bucket", "b", &error));
    NULLED(bb_config_set(config, NULL, "b", &error));
    NULLED(bb_config_set(config, "\xff", "b", &error));
    NULLED(bb_config_set(config, "bucket", NULL, &error));
    NULLED(bb_config_set_url(NULL, "s3://b", &error));
    NULLED(bb_config_set_url(config, NULL, &error));
    NULLED(bb_config_get(NULL, "bucket", &text, &error));
    NULLED(bb_config_get(config, NULL, &text, &error));
    NULLED(bb_config_get(config, "bucket", NULL, &error));
    NULLED(bb_config_check(NULL, &error));
    NULLED(bb_config_proxy_from_env(NULL, &error));
    NULLED(bb_config_on_log(NULL, BB_LOG_INFO, NULL, NULL, &error));
    OK(bb_config_on_log(config, 0, NULL, NULL, &error));
    OK(bb_config_on_log(config, BB_LOG_INFO, NULL, NULL, &error));
    NULLED(bb_config_on_progress(NULL, NULL, NULL, &error));
    OK(bb_config_on_progress(config, NULL, NULL, &error));
    NULLED(bb_site_open(NULL, &other, &error));
    NULLED(bb_site_open(config, NULL, &error));
    NULLED(bb_site_cancel(NULL, &error));
    NULLED(bb_site_reset_cancel(NULL, &error));
    NULLED(bb_site_close(NULL, &error));
    NULLED(bb_rescan(NULL, &report, &error));
    NULLED(bb_rescan(site, NULL, &error));
    NULLED(bb_plan(NULL, &report, &error));
    NULLED(bb_plan(site, NULL, &error));
    NULLED(bb_pull(NULL, &state, &error));
    NULLED(bb_upload_file(NULL, file, "a", 1, &text, &error));
    NULLED(bb_upload_file(site, NULL, "a", 1, &text, &error));
    NULLED(bb_upload_file(site, file, NULL, 1, &text, &error));
    NULLED(bb_upload_file(site, file, "\xff", 1, &text, &error));
    NULLED(bb_upload_file(site, file, "a", (size_t)-2, &text, &error));
    NULLED(bb_delete_file(NULL, "a", 1, &error));
    NULLED(bb_delete_file(site, NULL, 1, &error));
    FAILS(BB_ERR_INVALID_KEY, bb_delete_file(site, NULL, 0, &error));
    NULLED(bb_url(NULL, "a", 1, &text, &error));
    NULLED(bb_url(site, NULL, 1, &text, &error));
    NULLED(bb_url(site, "a", 1, NULL, &error));
    NULLED(bb_resolve(NULL, "a", 1, &found, &error));
    NULLED(bb_resolve(site, NULL, 1, &found, &error));
    NULLED(bb_resolve(site, "a", 1, NULL, &error));
    NULLED(bb_site_summary(NULL, &summary, &error));
    NULLED(bb_site_summary(site, NULL, &error));
    NULLED(bb_site_pending(NULL, &pending, &error));
    NULLED(bb_site_pending(site, NULL, &error));
    NULLED(bb_site_metric(NULL, BB_METRIC_REQUESTS, &number, &error));
    NULLED(bb_site_metric(site, BB_METRIC_REQUESTS, NULL, &error));
    NULLED(bb_site_metric(site, 0, &number, &error));
    NULLED(bb_catalog_open(NULL, &clone, &error));
    NULLED(bb_catalog_open(argv[2], NULL, &error));
    NULLED(bb_catalog_clone(NULL, &clone, &error));
    NULLED(bb_catalog_clone(catalog, NULL, &error));
    NULLED(bb_catalog_get(NULL, "a", 1, &found, &error));
    NULLED(bb_catalog_get(catalog, NULL, 1, &found, &error));
    NULLED(bb_catalog_get(catalog, "a", 1, NULL, &error));
    NULLED(bb_catalog_refresh(NULL, NULL, &error));
    NULLED(bb_catalog_iter(NULL, "", 0, &iter, &error));
    NULLED(bb_catalog_iter(catalog, NULL, 1, &iter, &error));
    OK(bb_catalog_iter(catalog, NULL, 0, &iter, &error));
    bb_iter_free(iter), iter = NULL;
    NULLED(bb_catalog_iter(catalog, "", 0, NULL, &error));
    NULLED(bb_iter_next(NULL, &error));
    /* Nothing was written. */
    CHECK(!report && !summary && !pending && !found && !clone && !iter && !other && !loaded && !state && !text);
}

/* Every function on a site that was closed. */
static void closed_site(bb_site *site)
{
    bb_report *report = NULL;
    bb_summary *summary = NULL;
    bb_pending *pending = NULL;
    bb_resolved *found = NULL;
    bb_state *state = NULL;
    char *text = NULL;
    uint64_t number = 0;
    FAILS(BB_ERR_CLOSED, bb_site_close(site, &error));
    FAILS(BB_ERR_CLOSED, bb_rescan(site, &report, &error));
    FAILS(BB_ERR_CLOSED, bb_plan(site, &report, &error));
    FAILS(BB_ERR_CLOSED, bb_pull(site, &state, &error));
    FAILS(BB_ERR_CLOSED, bb_upload_file(site, file, "a", 1, &text, &error));
    FAILS(BB_ERR_CLOSED, bb_delete_file(site, "a", 1, &error));
    FAILS(BB_ERR_CLOSED, bb_url(site, "a", 1, &text, &error));
    FAILS(BB_ERR_CLOSED, bb_resolve(site, "a", 1, &found, &error));
    FAILS(BB_ERR_CLOSED, bb_site_summary(site, &summary, &error));
    FAILS(BB_ERR_CLOSED, bb_site_pending(site, &pending, &error));
    FAILS(BB_ERR_CLOSED, bb_site_metric(site, BB_METRIC_REQUESTS, &number, &error));
    OK(bb_site_cancel(site, &error));
    OK(bb_site_reset_cancel(site, &error));
}

static uint64_t state;

static unsigned below(unsigned most)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (unsigned)(state % most);
}

/* Uses handles that may be NULL, closed, or older than what they came from. */
static void random_sequence(char **argv, unsigned steps)
{
    enum { SLOTS = 3 };
    bb_config *configs[SLOTS] = {NULL, NULL, NULL};
    bb_site *sites[SLOTS] = {NULL, NULL, NULL};
    bb_catalog *catalogs[SLOTS] = {NULL, NULL, NULL};
    bb_iter *iters[SLOTS] = {NULL, NULL, NULL};
    bb_resolved *answers[SLOTS] = {NULL, NULL, NULL};
    bb_error *errors[SLOTS] = {NULL, NULL, NULL};
    const char *keys[] = {"index.html", "maps/a.pak", "", "nothing", "\xff", NULL};
    for (unsigned step = 0; step < steps; step++) {
        const unsigned a = below(SLOTS), b = below(SLOTS);
        const char *key = keys[below(6)];
        bb_error **error = below(4) ? &errors[a] : NULL;
        if (error != NULL)
            bb_error_free(*error), *error = NULL;
        switch (below(20)) {
        case 0: bb_config_free(configs[a]), configs[a] = NULL, bb_config_load(argv[1], NULL, &configs[a], error); break;
        case 1: bb_config_free(configs[a]), configs[a] = NULL; break;
        case 2: bb_config_set(configs[a], key, key, error); break;
        case 3:
            /* Another site may have the cache: then this one is an error. */
            bb_site_free(sites[a]), sites[a] = NULL, bb_site_open(configs[b], &sites[a], error);
            break;
        case 4: bb_site_close(sites[a], error); break;
        case 5: bb_site_free(sites[a]), sites[a] = NULL; break;
        case 6: bb_resolved_free(answers[b]), answers[b] = NULL, bb_resolve(sites[a], key, BB_NUL_TERMINATED, &answers[b], error); break;
        case 7: bb_catalog_free(catalogs[a]), catalogs[a] = NULL, bb_catalog_open(argv[2], &catalogs[a], error); break;
        case 8: bb_catalog_free(catalogs[a]), catalogs[a] = NULL; break;
        case 9:
            if (a != b)
                bb_catalog_free(catalogs[b]), catalogs[b] = NULL, bb_catalog_clone(catalogs[a], &catalogs[b], error);
            break;
        case 10: bb_catalog_refresh(catalogs[a], NULL, error); break;
        case 11: bb_resolved_free(answers[b]), answers[b] = NULL, bb_catalog_get(catalogs[a], key, BB_NUL_TERMINATED, &answers[b], error); break;
        case 12: bb_iter_free(iters[b]), iters[b] = NULL, bb_catalog_iter(catalogs[a], key, key ? strlen(key) : 3, &iters[b], error); break;
        case 13: bb_iter_next(iters[a], error); break;
        case 14: CHECK((bb_iter_key(iters[a]) == NULL) == (bb_resolved_url(bb_iter_resolved(iters[a])) == NULL)); break;
        case 15: bb_iter_free(iters[a]), iters[a] = NULL; break;
        case 16: CHECK((bb_resolved_digest(answers[a]) == NULL) == (answers[a] == NULL)); break;
        case 17: bb_resolved_free(answers[a]), answers[a] = NULL; break;
        case 18: CHECK(strlen(bb_error_text(errors[a])) > 0 && bb_error_attempts(errors[a]) == 0); break;
        default: bb_config_check(configs[a], error); break;
        }
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        bb_config_free(configs[slot]), bb_catalog_free(catalogs[slot]), bb_site_free(sites[slot]);
        bb_iter_free(iters[slot]), bb_error_free(errors[slot]), bb_resolved_free(answers[slot]);
    }
}

int main(int argc, char **argv)
{
    bb_site *site = NULL, *second = NULL;
    bb_catalog *catalog = NULL;
    bb_report *report = NULL;
    CHECK(argc == 6);
    file = argv[3];
    state = strtoull(argv[4], NULL, 10) * 2 + 1;
    null_handles();

    bb_config *config = load(argv);
    OK(bb_site_open(config, &site, &error));
    FAILS(BB_ERR_CACHE_LOCKED, bb_site_open(config, &second, &error));
    CHECK(second == NULL);
    OK(bb_rescan(site, &report, &error));
    CHECK(bb_report_is_complete(report));
    OK(bb_catalog_open(argv[2], &catalog, &error));
    null_arguments(argv, config, site, catalog);
    bb_config_free(config);
    OK(bb_site_close(site, &error));
    closed_site(site);
    bb_site_free(site);
    /* What came from the site goes on without it. */
    CHECK(bb_report_json(report) != NULL && bb_report_item(report, BB_LIST_UPLOADED, 0) != NULL);
    bb_report_free(report);
    bb_catalog_free(catalog);
    random_sequence(argv, (unsigned)strtoul(argv[5], NULL, 10));
    return 0;
}
