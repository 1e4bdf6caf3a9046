/* A publisher whose state lies in the bucket, and a machine that only reads: pull brigade.toml CATALOG reader.toml */
#include "check.h"

static void published(char **argv)
{
    bb_report *report = NULL;
    bb_site *site = open_site(argv);
    OK(bb_rescan(site, &report, &error));
    CHECK(bb_report_is_complete(report));
    const bb_state *state = bb_report_state(report);
    uint64_t order = 0;
    CHECK(bb_state_count(state, BB_STATE_GENERATION) == 1 && bb_state_count(state, BB_STATE_IN_DOUBT) == 0);
    CHECK(bb_state_order(state, &order) && order == 7);
    CHECK(strstr(bb_state_json(state), "\"generation\":1") != NULL);
    bb_report_free(report);
    OK(bb_site_close(site, &error));
    bb_site_free(site);
}

int main(int argc, char **argv)
{
    bb_config *config = NULL;
    bb_site *reader = NULL;
    bb_report *report = NULL;
    bb_state *state = NULL;
    bb_catalog *catalog = NULL;
    CHECK(argc == 4);
    OK(bb_config_load(argv[3], "live", &config, &error));
    OK(bb_site_open(config, &reader, &error));
    bb_config_free(config);
    FAILS(BB_ERR_NOT_FOUND, bb_pull(reader, &state, &error));
    published(argv);

    OK(bb_pull(reader, &state, &error));
    CHECK(bb_state_count(state, BB_STATE_GENERATION) == 1 && bb_state_count(state, BB_STATE_EPOCH) == 1);
    CHECK(bb_state_count(state, BB_STATE_PULLED) == 3 && bb_state_count(state, 4711) == 0);
    CHECK(strstr(bb_state_published_by(state), "the publisher") != NULL && bb_state_claimed_by(state) == NULL);
    bb_state_free(state);
    OK(bb_pull(reader, NULL, &error));
    /* It has no tree. */
    FAILS(BB_ERR_CONFIG, bb_rescan(reader, &report, &error));
    OK(bb_catalog_open(argv[2], &catalog, &error));
    CHECK(bb_catalog_count(catalog) == 3);
    bb_catalog_free(catalog);
    OK(bb_site_close(reader, &error));
    bb_site_free(reader);
    return 0;
}
