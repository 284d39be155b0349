/* A camera whose encoder does what the agent's callback says: 25 pictures a second at the bit rate that CAMAGENT_EVENT_TARGET_BITRATE names, a key
   picture every two seconds and whenever CAMAGENT_EVENT_KEY_FRAME_WANTED comes. Prints both events from the callback, and each second how many
   frames were lost, until standard input ends.
   Usage: obedient_encoder CONFIG < pipe */
#define _POSIX_C_SOURCE 200809L
#include <camagent.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { CONFIGURED = 2000000, PICTURES_A_SECOND = 25, KEY_EVERY = 50 };

/* The callback writes them on the agent's thread, the loop reads them. */
static volatile uint32_t bitrate = CONFIGURED;
static volatile uint32_t wanted_keys;

static unsigned char picture[200000] = {0, 0, 0, 1};

static void on_event(void *user, camagent_t *agent, const camagent_event_t *event)
{
    (void)user;
    (void)agent;
    if (event->type == CAMAGENT_EVENT_TARGET_BITRATE) {
        bitrate = event->bitrate ? event->bitrate : CONFIGURED;
        printf("target bitrate of track %" PRIu32 ": %" PRIu32 " bit/s\n", event->track, event->bitrate);
        fflush(stdout);
    } else if (event->type == CAMAGENT_EVENT_KEY_FRAME_WANTED) {
        wanted_keys = wanted_keys + 1;
        printf("key frame wanted on track %" PRIu32 "\n", event->track);
        fflush(stdout);
    }
}

static int push(camagent_t *agent, uint64_t count, int is_key)
{
    /* A key picture is as large as four others. */
    size_t size = (size_t)bitrate / 8 / PICTURES_A_SECOND;
    if (is_key)
        size *= 4;
    if (size < 200)
        size = 200;
    picture[4] = is_key ? 0x65 : 0x41;
    return camagent_push_frame(agent, 0, (int64_t)(count * 1000000 / PICTURES_A_SECOND), 0, picture, size) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    camagent_t *agent;
    camagent_host_t host;
    camagent_track_t track;
    camagent_stats_t stats;
    struct pollfd input = {0, POLLIN, 0};
    uint64_t count = 0, last_key = 0;
    uint32_t given_keys = 0;

    if (argc != 2)
        return 2;
    memset(picture + 5, 0xa5, sizeof picture - 5);
    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    host.on_event = on_event;
    memset(&track, 0, sizeof track);
    track.struct_size = sizeof track;
    track.codec = CAMAGENT_CODEC_H264;
    track.framing = CAMAGENT_FRAMING_ANNEXB;
    if (camagent_start_file(argv[1], &host, &agent) != CAMAGENT_OK ||
        camagent_track_set(agent, 0, &track) != CAMAGENT_OK) {
        fprintf(stderr, "%s\n", camagent_last_error());
        return 1;
    }
    while (poll(&input, 1, 1000 / PICTURES_A_SECOND) == 0) {
        int is_key = count == 0 || count - last_key >= KEY_EVERY || wanted_keys != given_keys;
        if (is_key) {
            last_key = count;
            given_keys = wanted_keys;
        }
        if (push(agent, count, is_key) != 0) {
            fprintf(stderr, "%s\n", camagent_last_error());
            return 1;
        }
        count++;
        stats.struct_size = sizeof stats;
        if (count % PICTURES_A_SECOND == 0 && camagent_get_stats(agent, &stats) == CAMAGENT_OK) {
            printf("lost %" PRIu64 "\n", stats.packets_lost);
            fflush(stdout);
        }
    }
    camagent_stop(agent, 0, NULL);
    return 0;
}
