/* A site belongs to the process that opened it; a catalog works in every process: fork brigade.toml CATALOG FILE */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

/* Every function that takes a site, in the child: an error at once. */
static void refused(bb_site *site, const char *file)
{
    bb_report *report = NULL;
    bb_state *state = NULL;
    bb_summary *summary = NULL;
    bb_pending *pending = NULL;
    bb_resolved *found = NULL;
    char *url = NULL;
    uint64_t value = 0;
    FAILS(BB_ERR_FORKED, bb_rescan(site, &report, &error));
    FAILS(BB_ERR_FORKED, bb_plan(site, &report, &error));
    FAILS(BB_ERR_FORKED, bb_pull(site, &state, &error));
    FAILS(BB_ERR_FORKED, bb_upload_file(site, file, "a", 1, &url, &error));
    FAILS(BB_ERR_FORKED, bb_delete_file(site, "a", 1, &error));
    FAILS(BB_ERR_FORKED, bb_url(site, "a", 1, &url, &error));
    FAILS(BB_ERR_FORKED, bb_resolve(site, "a", 1, &found, &error));
    FAILS(BB_ERR_FORKED, bb_site_summary(site, &summary, &error));
    FAILS(BB_ERR_FORKED, bb_site_pending(site, &pending, &error));
    FAILS(BB_ERR_FORKED, bb_site_metric(site, BB_METRIC_REQUESTS, &value, &error));
    FAILS(BB_ERR_FORKED, bb_site_cancel(site, &error));
    FAILS(BB_ERR_FORKED, bb_site_reset_cancel(site, &error));
    FAILS(BB_ERR_FORKED, bb_site_close(site, &error));
    bb_site_free(site);
}

static void looked_up(bb_catalog *catalog)
{
    bb_resolved *found = NULL;
    OK(bb_catalog_get(catalog, "index.html", BB_NUL_TERMINATED, &found, &error));
    bb_resolved_free(found);
    OK(bb_catalog_refresh(catalog, NULL, &error));
}

static void ended_well(pid_t child)
{
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    bb_report *report = NULL;
    bb_catalog *catalog = NULL;
    int go[2];
    CHECK(argc == 4 && pipe(go) == 0);
    bb_site *site = open_site(argv);
    OK(bb_rescan(site, &report, &error));
    CHECK(bb_report_is_complete(report));
    bb_report_free(report);
    OK(bb_catalog_open(argv[2], &catalog, &error));

    const pid_t child = fork();
    if (child == 0) {
        refused(site, argv[3]);
        looked_up(catalog);
        bb_catalog_free(catalog);
        _exit(0);
    }
    ended_well(child);

    /* A child that lives on has inherited the cache's file, and does not keep it locked. */
    const pid_t worker = fork();
    if (worker == 0) {
        char byte;
        close(go[1]);
        CHECK(read(go[0], &byte, 1) == 0);
        looked_up(catalog);
        _exit(0);
    }
    close(go[0]);
    OK(bb_rescan(site, &report, &error));
    bb_report_free(report);
    OK(bb_site_close(site, &error));
    bb_site_free(site);
    site = open_site(argv);
    OK(bb_rescan(site, &report, &error));
    CHECK(bb_report_outcome(report) == BB_OUTCOME_UNCHANGED);
    bb_report_free(report);
    close(go[1]);
    ended_well(worker);
    OK(bb_site_close(site, &error));
    bb_site_free(site);
    bb_catalog_free(catalog);
    return 0;
}
