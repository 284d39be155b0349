/*
 * A camera that plays files: pushes an H.264 or H.265 file (Annex B, no B pictures) and, beside it, an AAC (ADTS) or
 * G.711 file, at real-time pace, over and over. Prints events and statistics on stdout, log messages on stderr.
 *
 * What a firmware would do differently: take pictures and sound from its encoder, let the encoder begin a new GOP when
 * CAMAGENT_EVENT_KEY_FRAME_WANTED comes, and let it produce what CAMAGENT_EVENT_TARGET_BITRATE says.
 */
#define _POSIX_C_SOURCE 200809L
#include <camagent.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VIDEO_TRACK = 0, AUDIO_TRACK = 1, STATISTICS_EVERY_US = 5000000 };

/* A file in memory, and how its frames are found. */
typedef struct media {
    unsigned char *data;
    size_t size;
    size_t at;
    uint32_t codec;
    uint32_t framing;
    uint32_t sample_rate;
    uint32_t channels;
    int64_t next_us;   /* when its next frame is due */
    int64_t played;    /* pictures, or samples, so far */
} media_t;

typedef struct options {
    const char *config, *camera, *source, *video, *audio, *ledger;
    double fps, seconds, linger;
    int once;
} options_t;

static volatile sig_atomic_t stopped;
static FILE *ledger; /* with --ledger */

static void on_signal(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static void on_log(void *user, int32_t level, const char *message)
{
    static const char *const names[] = {"", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"};
    (void)user;
    fprintf(stderr, "%-5s %s\n", level >= 1 && level <= 5 ? names[level] : "?", message);
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), of_end = strlen(end);
    return length >= of_end && strcmp(text + length - of_end, end) == 0;
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static int load(const char *path, media_t *media)
{
    FILE *file = fopen(path, "rb");
    long size;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0) {
        fprintf(stderr, "push_file: cannot read %s: %s\n", path, strerror(errno));
        if (file != NULL)
            fclose(file);
        return -1;
    }
    media->size = (size_t)size;
    media->data = malloc(media->size + 1);
    if (media->data == NULL || fread(media->data, 1, media->size, file) != media->size || media->size == 0) {
        fprintf(stderr, "push_file: cannot read %s: %s\n", path, media->size == 0 ? "it is empty" : "out of memory?");
        fclose(file);
        return -1;
    }
    fclose(file);
    return 0;
}

/* The start code at or behind `at`: where the NAL unit's first byte is, or the file's size. */
static size_t after_start_code(const media_t *media, size_t at)
{
    for (; at + 3 < media->size; at++)
        if (media->data[at] == 0 && media->data[at + 1] == 0 && media->data[at + 2] == 1)
            return at + 3;
    return media->size;
}

/* What a NAL unit means for the borders between pictures. */
enum nal { FIRST_SLICE, OTHER_SLICE, BEFORE_A_PICTURE, AFTER_A_SLICE };

static enum nal kind_of_nal(const media_t *media, size_t at)
{
    const unsigned char *nal = media->data + at;
    size_t left = media->size - at;
    if (media->codec == CAMAGENT_CODEC_H264) {
        unsigned type = nal[0] & 0x1f;
        if (type == 1 || type == 5) /* first_mb_in_slice is 0 when its code begins with a 1 bit */
            return left > 1 && (nal[1] & 0x80) != 0 ? FIRST_SLICE : OTHER_SLICE;
        return (type >= 6 && type <= 9) || (type >= 14 && type <= 18) ? BEFORE_A_PICTURE : AFTER_A_SLICE;
    } else {
        unsigned type = (nal[0] >> 1) & 0x3f;
        if (type < 32) /* first_slice_segment_in_pic_flag */
            return left > 2 && (nal[2] & 0x80) != 0 ? FIRST_SLICE : OTHER_SLICE;
        return (type >= 32 && type <= 35) || type == 39 || (type >= 41 && type <= 44) ? BEFORE_A_PICTURE : AFTER_A_SLICE;
    }
}

/* The bytes of the next picture with everything that belongs to it; begins anew at the end of the file. */
static size_t next_picture(media_t *media, const unsigned char **picture)
{
    size_t start = media->at, nal = after_start_code(media, start);
    int has_slice = 0;
    *picture = media->data + start;
    while (nal < media->size) {
        enum nal kind = kind_of_nal(media, nal);
        if (has_slice && (kind == FIRST_SLICE || kind == BEFORE_A_PICTURE)) {
            size_t border = nal - 3;
            if (border > start && media->data[border - 1] == 0)
                border--; /* start codes may have four bytes */
            media->at = border;
            return border - start;
        }
        has_slice = has_slice || kind == FIRST_SLICE;
        nal = after_start_code(media, nal);
    }
    media->at = media->size;
    return media->size - start;
}

/* The bytes of the next audio unit, and how many samples it has; 0 when the file is broken. */
static size_t next_audio(media_t *media, const unsigned char **unit, int64_t *samples)
{
    const unsigned char *at = media->data + media->at;
    size_t left = media->size - media->at, size;
    *unit = at;
    if (media->codec == CAMAGENT_CODEC_AAC) {
        if (left < 7 || at[0] != 0xff || (at[1] & 0xf0) != 0xf0)
            return 0;
        size = (size_t)(at[3] & 3) << 11 | (size_t)at[4] << 3 | at[5] >> 5;
        *samples = 1024;
    } else {
        size = left < 160 ? left : 160; /* 20 ms at 8000 samples per second */
        *samples = (int64_t)size;
    }
    if (size == 0 || size > left)
        return 0;
    media->at += size;
    return size;
}

static int open_video(const char *path, media_t *media)
{
    if (ends_with(path, ".h264") || ends_with(path, ".264")) {
        media->codec = CAMAGENT_CODEC_H264;
    } else if (ends_with(path, ".h265") || ends_with(path, ".265") || ends_with(path, ".hevc")) {
        media->codec = CAMAGENT_CODEC_H265;
    } else {
        fprintf(stderr, "push_file: %s: the name has to end with .h264 or .h265\n", path);
        return -1;
    }
    media->framing = CAMAGENT_FRAMING_ANNEXB;
    if (load(path, media) != 0)
        return -1;
    if (after_start_code(media, 0) == media->size) {
        fprintf(stderr, "push_file: %s has no start code: Annex B is expected\n", path);
        return -1;
    }
    return 0;
}

static int open_audio(const char *path, media_t *media)
{
    static const uint32_t rates[] = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350};
    if (load(path, media) != 0)
        return -1;
    media->framing = CAMAGENT_FRAMING_RAW;
    media->sample_rate = 8000;
    media->channels = 1;
    if (ends_with(path, ".alaw")) {
        media->codec = CAMAGENT_CODEC_PCMA;
    } else if (ends_with(path, ".ulaw")) {
        media->codec = CAMAGENT_CODEC_PCMU;
    } else if (ends_with(path, ".aac")) {
        unsigned rate = media->size > 7 ? (media->data[2] >> 2) & 15u : 15u;
        media->codec = CAMAGENT_CODEC_AAC;
        media->framing = CAMAGENT_FRAMING_ADTS;
        if (rate >= sizeof rates / sizeof rates[0] || media->data[0] != 0xff || (media->data[1] & 0xf0) != 0xf0) {
            fprintf(stderr, "push_file: %s does not begin with an ADTS header\n", path);
            return -1;
        }
        media->sample_rate = rates[rate];
        media->channels = (uint32_t)(media->data[2] & 1) << 2 | media->data[3] >> 6;
    } else {
        fprintf(stderr, "push_file: %s: the name has to end with .aac, .alaw or .ulaw\n", path);
        return -1;
    }
    return 0;
}

/* ---- the agent ------------------------------------------------------------------------------------------------ */

static int set_track(camagent_t *agent, uint32_t number, const media_t *media, const options_t *options)
{
    camagent_track_t track;
    memset(&track, 0, sizeof track);
    track.struct_size = sizeof track;
    track.codec = media->codec;
    track.framing = media->framing;
    track.sample_rate = media->sample_rate;
    track.channels = media->channels;
    track.source = options->source;
    track.camera = options->camera;
    if (camagent_track_set(agent, number, &track) == CAMAGENT_OK)
        return 0;
    fprintf(stderr, "push_file: track %" PRIu32 ": %s\n", number, camagent_last_error());
    return -1;
}

static void answer(camagent_t *agent, const camagent_event_t *event)
{
    char json[80];
    camagent_stats_t stats;
    stats.struct_size = sizeof stats;
    if (strcmp(event->text, "status") == 0 && camagent_get_stats(agent, &stats) == CAMAGENT_OK) {
        snprintf(json, sizeof json, "{\"frames\":%" PRIu64 ",\"uptime\":%" PRIu64 "}", stats.frames_accepted, stats.uptime);
        camagent_command_reply(agent, event->command, NULL, json);
    } else {
        camagent_command_reply(agent, event->command, "unsupported", "a file player knows the command status only");
    }
}

static void print_events(camagent_t *agent)
{
    camagent_event_t event;
    event.struct_size = sizeof event;
    while (camagent_poll_event(agent, &event, 0) == CAMAGENT_OK) {
        switch (event.type) {
        case CAMAGENT_EVENT_CONNECTED:
            printf("connected to %s, session %s\n", event.detail, event.text);
            break;
        case CAMAGENT_EVENT_DISCONNECTED:
            printf("disconnected: %s; next attempt in %" PRIu32 " ms\n", event.text, event.retry_ms);
            break;
        case CAMAGENT_EVENT_COMMAND:
            printf("command %s %s\n", event.text, event.detail);
            answer(agent, &event);
            break;
        case CAMAGENT_EVENT_KEY_FRAME_WANTED:
            printf("key frame wanted on track %" PRIu32 "\n", event.track);
            break;
        case CAMAGENT_EVENT_TARGET_BITRATE:
            /* A firmware gives it to its encoder: encoder_set_bitrate(event.track, event.bitrate ? event.bitrate : CONFIGURED). */
            printf("target bitrate of track %" PRIu32 ": %" PRIu32 " bit/s\n", event.track, event.bitrate);
            break;
        case CAMAGENT_EVENT_TRACK_WANTED:
            printf("track %" PRIu32 " %s\n", event.track, event.wanted ? "wanted" : "not wanted");
            break;
        case CAMAGENT_EVENT_WARNING:
            printf("warning: %s\n", event.text);
            break;
        default:
            break;
        }
        event.struct_size = sizeof event;
    }
}

static void print_statistics(camagent_t *agent)
{
    camagent_stats_t stats;
    stats.struct_size = sizeof stats;
    if (camagent_get_stats(agent, &stats) == CAMAGENT_OK)
        printf("statistics: %s, %" PRIu64 " frames, %" PRIu64 " bytes sent, %" PRIu64 " in the journal, %" PRIu64
               " lost, %" PRIu64 " reconnections\n",
               stats.connected ? "connected" : "not connected", stats.frames_accepted, stats.bytes_sent,
               stats.buffer_size, stats.packets_lost, stats.reconnections);
}

/* Written down before the agent has the frame, so that nothing arrives that the ledger does not know, even after a kill. */
static void push(camagent_t *agent, uint32_t track, int64_t pts_us, const media_t *media, const unsigned char *data,
                 size_t size)
{
    camagent_result result;
    if (ledger != NULL)
        fprintf(ledger, "frame %" PRIu32 " %" PRId64 " %lu %lu\n", track, pts_us, (unsigned long)(data - media->data),
                (unsigned long)size);
    result = camagent_push_frame(agent, track, pts_us, 0, data, size);
    if (result < 0)
        fprintf(stderr, "push_file: %s\n", camagent_last_error());
    if (ledger != NULL && result != CAMAGENT_OK && result != CAMAGENT_CLOCK_STEPPED)
        fprintf(ledger, "left %" PRIu32 " %" PRId64 "\n", track, pts_us);
}

/* One frame of the medium that is due first; 0 when the files are at their end, -1 when one is broken. */
static int push_next(camagent_t *agent, media_t *video, media_t *audio, int64_t start_us, const options_t *options)
{
    const unsigned char *data;
    media_t *due = audio->data != NULL && audio->next_us < video->next_us ? audio : video;
    int64_t samples = 0;
    if (due->at >= due->size) {
        if (options->once)
            return 0;
        due->at = 0;
    }
    if (due == video) {
        size_t size = next_picture(video, &data);
        push(agent, VIDEO_TRACK, start_us + video->next_us, video, data, size);
        video->played++;
        video->next_us = (int64_t)((double)video->played * 1e6 / options->fps);
    } else {
        size_t size = next_audio(audio, &data, &samples);
        if (size == 0) {
            fprintf(stderr, "push_file: %s is broken at byte %lu\n", options->audio, (unsigned long)audio->at);
            return -1;
        }
        push(agent, AUDIO_TRACK, start_us + audio->next_us, audio, data, size);
        audio->played += samples;
        audio->next_us = audio->played * 1000000 / (int64_t)audio->sample_rate;
    }
    return 1;
}

static int play(camagent_t *agent, media_t *video, media_t *audio, const options_t *options)
{
    int64_t start_us = now_us(), statistics_us = start_us + STATISTICS_EVERY_US;
    int result = 1;
    while (!stopped && result > 0) {
        int64_t due_us = audio->data != NULL && audio->next_us < video->next_us ? audio->next_us : video->next_us;
        int64_t wait_us = start_us + due_us - now_us();
        if (options->seconds > 0 && (double)due_us > options->seconds * 1e6)
            break;
        if (wait_us > 0) {
            struct timespec wait;
            wait.tv_sec = (time_t)(wait_us / 1000000);
            wait.tv_nsec = (long)(wait_us % 1000000) * 1000;
            nanosleep(&wait, NULL); /* a signal ends it early, which is right */
            if (stopped)
                break;
        }
        print_events(agent);
        if (now_us() >= statistics_us) {
            print_statistics(agent);
            statistics_us += STATISTICS_EVERY_US;
        }
        fflush(stdout);
        result = push_next(agent, video, audio, start_us, options);
    }
    return result < 0 ? -1 : 0;
}

/* Stays for a while behind the last frame: a server that records says some half a second later that it has stored it. */
static void linger(camagent_t *agent, double seconds)
{
    int64_t until_us = now_us() + (int64_t)(seconds * 1e6);
    struct timespec pause = {0, 20000000};
    camagent_stats_t stats;
    stats.struct_size = sizeof stats;
    while (now_us() < until_us && camagent_get_stats(agent, &stats) == CAMAGENT_OK && stats.buffer_size > 0) {
        print_events(agent);
        nanosleep(&pause, NULL);
        stats.struct_size = sizeof stats;
    }
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

static const char usage[] =
    "Usage: push_file --config FILE --video FILE [options]\n"
    "Plays files through camagent as if they came from a camera, at real-time pace, over and over.\n\n"
    "  --config FILE   the agent's configuration (JSON)\n"
    "  --video FILE    H.264 (.h264) or H.265 (.h265), Annex B, without B pictures\n"
    "  --audio FILE    AAC with ADTS headers (.aac), or G.711 at 8000 Hz mono (.alaw, .ulaw)\n"
    "  --camera ID     the camera; the first one of the configuration when left out\n"
    "  --source NAME   the source: main (default), sub ...\n"
    "  --fps N         pictures per second, 25 when left out\n"
    "  --seconds N     end after so many seconds\n"
    "  --once          end at the end of the first file\n"
    "  --linger N      at the end wait for up to so many seconds until the server needs nothing of the journal any more\n"
    "  --ledger FILE   append a line for each frame: track, time, place in its file, bytes; and one when it was not kept\n";

static int parse(int argc, char **argv, options_t *options)
{
    int at;
    for (at = 1; at < argc; at++) {
        const char *name = argv[at], *value = at + 1 < argc ? argv[at + 1] : NULL;
        if (strcmp(name, "--once") == 0) {
            options->once = 1;
            continue;
        }
        if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        if (value == NULL) {
            fprintf(stderr, "push_file: %s is unknown or lacks its value\n\n%s", name, usage);
            return -1;
        }
        at++;
        if (strcmp(name, "--config") == 0)
            options->config = value;
        else if (strcmp(name, "--video") == 0)
            options->video = value;
        else if (strcmp(name, "--audio") == 0)
            options->audio = value;
        else if (strcmp(name, "--camera") == 0)
            options->camera = value;
        else if (strcmp(name, "--source") == 0)
            options->source = value;
        else if (strcmp(name, "--linger") == 0)
            options->linger = atof(value);
        else if (strcmp(name, "--ledger") == 0)
            options->ledger = value;
        else if (strcmp(name, "--fps") == 0)
            options->fps = atof(value);
        else if (strcmp(name, "--seconds") == 0)
            options->seconds = atof(value);
        else {
            fprintf(stderr, "push_file: %s is unknown\n\n%s", name, usage);
            return -1;
        }
    }
    if (options->config == NULL || options->video == NULL || !(options->fps >= 1 && options->fps <= 240)) {
        fprintf(stderr, "push_file: --config and --video are needed, and --fps from 1 to 240\n\n%s", usage);
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    options_t options = {NULL, NULL, "main", NULL, NULL, NULL, 25, 0, 0, 0};
    media_t video, audio;
    camagent_host_t host;
    camagent_left_t left;
    camagent_t *agent = NULL;
    struct sigaction action;
    int failed;

    if (parse(argc, argv, &options) != 0)
        return 2;
    memset(&video, 0, sizeof video);
    memset(&audio, 0, sizeof audio);
    if (open_video(options.video, &video) != 0 || (options.audio != NULL && open_audio(options.audio, &audio) != 0)) {
        free(video.data);
        free(audio.data);
        return 1;
    }
    if (options.ledger != NULL && (ledger = fopen(options.ledger, "a")) == NULL) {
        fprintf(stderr, "push_file: cannot write %s: %s\n", options.ledger, strerror(errno));
        free(video.data);
        free(audio.data);
        return 1;
    }
    if (ledger != NULL)
        setvbuf(ledger, NULL, _IOLBF, BUFSIZ); /* a line is in the file when it is written, whoever kills us */
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    host.flags = CAMAGENT_HOST_ANSWERS_COMMANDS;
    host.on_log = on_log;
    failed = camagent_start_file(options.config, &host, &agent) != CAMAGENT_OK;
    if (failed) {
        fprintf(stderr, "push_file: %s\n", camagent_last_error());
    } else {
        failed = set_track(agent, VIDEO_TRACK, &video, &options) != 0 ||
                 (audio.data != NULL && set_track(agent, AUDIO_TRACK, &audio, &options) != 0) ||
                 play(agent, &video, &audio, &options) != 0;
        linger(agent, options.linger);
        print_events(agent);
        print_statistics(agent);
        left.struct_size = sizeof left;
        if (camagent_stop(agent, 5000, &left) == CAMAGENT_OK)
            printf("stopped, %" PRIu64 " frames were left\n", left.frames);
    }
    if (ledger != NULL)
        fclose(ledger);
    free(video.data);
    free(audio.data);
    return failed ? 1 : 0;
}
