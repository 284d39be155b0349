/* Eight agents of one process push pictures as fast as the journal takes them, until standard input ends. Signals have their default
   dispositions: a SIGPIPE would kill the process. Prints how often sessions were established.
   Usage: many_agents PORT PIN TOKEN... < pipe, with the tokens of the agents many-0 to many-7 */
#define _POSIX_C_SOURCE 200809L
#include <camagent.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { AGENTS = 8 };

static unsigned char picture[60000] = {0, 0, 0, 1, 0x65, 0x88, 0x84};

int main(int argc, char **argv)
{
    camagent_t *agents[AGENTS];
    camagent_track_t track;
    camagent_stats_t stats;
    struct pollfd input = {0, POLLIN, 0};
    uint64_t sessions = 0;
    int64_t time_us = 0;
    int at;

    if (argc != 3 + AGENTS)
        return 2;
    memset(picture + 7, 0xa5, sizeof picture - 7);
    memset(&track, 0, sizeof track);
    track.struct_size = sizeof track;
    track.codec = CAMAGENT_CODEC_H264;
    track.framing = CAMAGENT_FRAMING_ANNEXB;
    for (at = 0; at < AGENTS; at++) {
        char config[600];
        snprintf(config, sizeof config,
                 "{\"agent\":{\"agent_id\":\"many-%d\",\"cloud_server_url\":\"wss://127.0.0.1:%s/agent\","
                 "\"cloud_server_token\":\"%s\",\"server_pin\":\"%s\"},\"network\":{\"reconnect_interval\":1}}",
                 at, argv[1], argv[3 + at], argv[2]);
        if (camagent_start(config, NULL, &agents[at]) != CAMAGENT_OK ||
            camagent_track_set(agents[at], 0, &track) != CAMAGENT_OK) {
            fprintf(stderr, "%s\n", camagent_last_error());
            return 1;
        }
    }
    while (poll(&input, 1, 5) == 0) {
        for (at = 0; at < AGENTS; at++)
            if (camagent_push_frame(agents[at], 0, time_us, 0, picture, sizeof picture) < 0) {
                fprintf(stderr, "%s\n", camagent_last_error());
                return 1;
            }
        time_us += 5000;
    }
    for (at = 0; at < AGENTS; at++) {
        stats.struct_size = sizeof stats;
        if (camagent_get_stats(agents[at], &stats) == CAMAGENT_OK)
            sessions += stats.reconnections + 1;
        camagent_stop(agents[at], 0, NULL);
    }
    printf("%" PRIu64 " sessions\n", sessions);
    return 0;
}
