/* Publishes the tree that a configuration file describes: publish brigade.toml [DESTINATION] */
#include <bucket_brigade.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    bb_config *config = NULL;
    bb_site *site = NULL;
    bb_report *report = NULL;
    bb_error *error = NULL;

    if (argc < 2)
        return fprintf(stderr, "usage: publish brigade.toml [DESTINATION]\n"), 2;
    if (bb_config_load(argv[1], argv[2], &config, &error) || bb_site_open(config, &site, &error) ||
        bb_rescan(site, &report, &error) || bb_site_close(site, &error))
        fprintf(stderr, "%s\n", bb_error_text(error));
    if (report)
        puts(bb_report_json(report));
    const int done = error == NULL && bb_report_is_complete(report);
    bb_error_free(error);
    bb_report_free(report);
    bb_site_free(site);
    bb_config_free(config);
    return done ? 0 : 1;
}
