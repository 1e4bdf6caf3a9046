/* Many threads use one site and one catalog: threads brigade.toml CATALOG FILE */
#include "check.h"
#include <pthread.h>

enum { READERS = 4, ROUNDS = 200 };

static bb_site *site;
static bb_catalog *catalog;

static void *read_catalog(void *own)
{
    /* Half of them share one handle, the others refresh their own. */
    bb_catalog *mine = NULL;
    if (own != NULL)
        OK(bb_catalog_clone(catalog, &mine, &error));
    for (int round = 0; round < ROUNDS; round++) {
        bb_resolved *found = NULL;
        OK(bb_catalog_get(own ? mine : catalog, "index.html", BB_NUL_TERMINATED, &found, &error));
        CHECK(bb_resolved_digest(found) != NULL);
        bb_resolved_free(found);
        if (own != NULL)
            OK(bb_catalog_refresh(mine, NULL, &error));
    }
    bb_catalog_free(mine);
    return NULL;
}

static void *ask_site(void *unused)
{
    for (int round = 0; round < ROUNDS; round++) {
        bb_summary *summary = NULL;
        bb_resolved *found = NULL;
        uint64_t value = 0;
        OK(bb_site_metric(site, BB_METRIC_COMMITS, &value, &error));
        OK(bb_site_summary(site, &summary, &error));
        OK(bb_resolve(site, "index.html", BB_NUL_TERMINATED, &found, &error));
        bb_summary_free(summary);
        bb_resolved_free(found);
    }
    return unused;
}

static void *rescan(void *unused)
{
    bb_error *error = NULL;
    bb_report *report = NULL;
    const bb_status status = bb_rescan(site, &report, &error);
    /* One at a time: whoever comes second is told so. */
    CHECK(status == BB_OK || status == BB_ERR_CACHE_LOCKED);
    CHECK(status != BB_OK || bb_report_json(report) != NULL);
    bb_report_free(report);
    bb_error_free(error);
    return unused;
}

/* The log's callback: cancels from the thread that calls it, and sees that nobody can close the site meanwhile. */
static void cancel(void *user_data, bb_log_level level, const char *message, const char *fields)
{
    int *upload_started = (int *)user_data;
    if (strcmp(message, "upload started") == 0 && __atomic_exchange_n(upload_started, 1, __ATOMIC_SEQ_CST) == 0) {
        FAILS(BB_ERR_BUSY, bb_site_close(site, &error));
        OK(bb_site_cancel(site, &error));
    }
    CHECK(level <= BB_LOG_INFO && fields != NULL);
}

static void cancelled(char **argv)
{
    int upload_started = 0;
    bb_report *report = NULL;
    bb_config *config = load(argv);
    OK(bb_config_on_log(config, BB_LOG_INFO, cancel, &upload_started, &error));
    OK(bb_config_set(config, "force", "true", &error));
    OK(bb_site_open(config, &site, &error));
    bb_config_free(config);
    OK(bb_rescan(site, &report, &error));
    CHECK(__atomic_load_n(&upload_started, __ATOMIC_SEQ_CST) == 1 && bb_report_stop_reason(report) == BB_STOP_CANCELLED);
    bb_report_free(report);
    OK(bb_site_close(site, &error));
    bb_site_free(site);
}

int main(int argc, char **argv)
{
    pthread_t threads[3 * READERS];
    bb_report *report = NULL;
    bool mine = true;
    CHECK(argc == 4);
    site = open_site(argv);
    OK(bb_rescan(site, &report, &error));
    CHECK(bb_report_is_complete(report));
    bb_report_free(report);
    OK(bb_catalog_open(argv[2], &catalog, &error));
    for (int number = 0; number < READERS; number++) {
        CHECK(pthread_create(&threads[3 * number], NULL, read_catalog, number % 2 ? &mine : NULL) == 0);
        CHECK(pthread_create(&threads[3 * number + 1], NULL, ask_site, NULL) == 0);
        CHECK(pthread_create(&threads[3 * number + 2], NULL, rescan, NULL) == 0);
    }
    for (int number = 0; number < 3 * READERS; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
    OK(bb_site_close(site, &error));
    bb_site_free(site);
    bb_catalog_free(catalog);
    cancelled(argv);
    return 0;
}
