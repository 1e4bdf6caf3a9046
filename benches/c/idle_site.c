/* Shows memory and threads of a site that is open and idle: idle_site brigade.toml */
#include "memory.h"

int main(int argc, char **argv)
{
    bb_config *config = NULL;
    bb_site *site = NULL;
    bb_error *error = NULL;

    print_memory("before");
    if (argc < 2 || bb_config_load(argv[1], NULL, &config, &error) || bb_site_open(config, &site, &error))
        return fprintf(stderr, "%s\n", error ? bb_error_text(error) : "usage: idle_site brigade.toml"), 1;
    print_memory("site, open and idle");
    if (bb_site_close(site, &error))
        return fprintf(stderr, "%s\n", bb_error_text(error)), 1;
    print_memory("site, closed");
    bb_site_free(site);
    bb_config_free(config);
    return 0;
}
