/* What the programs share: a check that ends the program, and the configuration that the test passes by its arguments. */
#ifndef CHECK_H
#define CHECK_H
#include <bucket_brigade.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);         \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* That a call gives this status, and an error exactly if it should. */
#define EXPECT(expected, has_error, call)                                                         \
    do {                                                                                          \
        bb_error *error = NULL;                                                                   \
        const bb_status got = (call);                                                             \
        if (got != (expected) || (error != NULL) != (has_error)) {                                \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, bb_status_name(got),\
                    bb_error_text(error));                                                        \
            exit(1);                                                                              \
        }                                                                                         \
        CHECK(error == NULL || bb_error_status(error) == got);                                    \
        bb_error_free(error);                                                                     \
    } while (0)

#define OK(call) EXPECT(BB_OK, false, call)
#define FAILS(status, call) EXPECT(status, true, call)

static inline bb_config *load(char **argv)
{
    bb_config *config = NULL;
    OK(bb_config_load(argv[1], NULL, &config, &error));
    return config;
}

static inline bb_site *open_site(char **argv)
{
    bb_config *config = load(argv);
    bb_site *site = NULL;
    OK(bb_site_open(config, &site, &error));
    bb_config_free(config);
    return site;
}
#endif
