/* Every wrong call is an error code: NULL, stale, foreign and forked handles, wrong structures, wrong texts, wrong frames. */
#define _POSIX_C_SOURCE 200809L
#include <camagent.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;
static camagent_result inside = 1;

static void expect(int line, const char *call, camagent_result got, camagent_result wanted)
{
    if (got != wanted) {
        printf("line %d: %s is %d (%s; %s), wanted %d\n", line, call, got, camagent_strerror(got), camagent_last_error(),
               wanted);
        failures++;
    }
}

#define EXPECT(call, wanted) expect(__LINE__, #call, (call), (wanted))

static void expect_words(int line, const char *words)
{
    if (strstr(camagent_last_error(), words) == NULL) {
        printf("line %d: the last error is \"%s\", without \"%s\"\n", line, camagent_last_error(), words);
        failures++;
    }
}

#define EXPECT_WORDS(words) expect_words(__LINE__, (words))

static const char config[] =
    "{\"agent\":{\"agent_id\":\"misuse\",\"cloud_server_url\":\"ws://127.0.0.1:9/agent\",\"cloud_server_token\":\"t\"}}";
static const unsigned char key_frame[] = {0, 0, 0, 1, 0x65, 0x88, 0x84};
static const unsigned char other_frame[] = {0, 0, 0, 1, 0x41, 0x9a, 0x24};

static void stop_inside(void *user, camagent_t *agent, const camagent_event_t *event)
{
    (void)user;
    (void)event;
    inside = camagent_stop(agent, 0, NULL);
}

static void handles(void)
{
    camagent_t *agent = NULL, *stale;
    camagent_stats_t stats;
    camagent_event_t event;
    int local = 0;

    stats.struct_size = sizeof stats;
    event.struct_size = sizeof event;
    EXPECT(camagent_get_stats(NULL, &stats), CAMAGENT_E_HANDLE);
    EXPECT(camagent_push_frame(NULL, 0, 0, 0, key_frame, sizeof key_frame), CAMAGENT_E_HANDLE);
    EXPECT(camagent_poll_event(NULL, &event, 0), CAMAGENT_E_HANDLE);
    EXPECT(camagent_event_fd(NULL), CAMAGENT_E_HANDLE);
    EXPECT(camagent_network_changed(NULL), CAMAGENT_E_HANDLE);
    EXPECT(camagent_command_reply(NULL, 1, NULL, NULL), CAMAGENT_E_HANDLE);
    EXPECT(camagent_track_set(NULL, 0, NULL), CAMAGENT_E_HANDLE);
    EXPECT(camagent_track_remove(NULL, 0), CAMAGENT_E_HANDLE);
    EXPECT(camagent_stop(NULL, 0, NULL), CAMAGENT_E_HANDLE);
    EXPECT(camagent_stop((camagent_t *)&local, 0, NULL), CAMAGENT_E_HANDLE);
    EXPECT_WORDS("not a handle");

    EXPECT(camagent_start(config, NULL, &agent), CAMAGENT_OK);
    stale = agent;
    EXPECT(camagent_stop(agent, 0, NULL), CAMAGENT_OK);
    EXPECT(camagent_stop(stale, 0, NULL), CAMAGENT_E_HANDLE);
    EXPECT(camagent_start(config, NULL, &agent), CAMAGENT_OK);
    if (agent == stale) {
        printf("a stale handle came back to life\n");
        failures++;
    }
    EXPECT(camagent_get_stats(stale, &stats), CAMAGENT_E_HANDLE);
    EXPECT(camagent_get_stats(agent, &stats), CAMAGENT_OK);
    EXPECT(camagent_stop(agent, 0, NULL), CAMAGENT_OK);
}

static void starts(void)
{
    camagent_t *agent = NULL;
    camagent_host_t host;
    struct {
        camagent_host_t host;
        char newer[16];
    } longer;

    EXPECT(camagent_start(NULL, NULL, &agent), CAMAGENT_E_INVAL);
    EXPECT_WORDS("config_json is NULL");
    EXPECT(camagent_start(config, NULL, NULL), CAMAGENT_E_INVAL);
    EXPECT(camagent_start("{", NULL, &agent), CAMAGENT_E_CONFIG);
    EXPECT(camagent_start("{\"agent\":{\"agent_id\":7}}", NULL, &agent), CAMAGENT_E_CONFIG);
    EXPECT_WORDS("agent.agent_id is 7");
    EXPECT(camagent_start("\xff", NULL, &agent), CAMAGENT_E_INVAL);
    EXPECT(camagent_start_file("/nowhere/config.json", NULL, &agent), CAMAGENT_E_IO);
    EXPECT_WORDS("/nowhere/config.json");
    EXPECT(camagent_start("{\"agent\":{\"agent_id\":\"a\",\"cloud_server_url\":\"wss://h\",\"cloud_server_token\":\"t\","
                          "\"ca_file\":\"/nowhere/ca.pem\"}}", NULL, &agent), CAMAGENT_E_IO);

    memset(&host, 0, sizeof host);
    EXPECT(camagent_start(config, &host, &agent), CAMAGENT_E_INVAL);
    EXPECT_WORDS("camagent_host_t.struct_size is 0");
    host.struct_size = sizeof host;
    host.flags = 0x80;
    EXPECT(camagent_start(config, &host, &agent), CAMAGENT_E_INVAL);
    memset(&longer, 0, sizeof longer);
    longer.host.struct_size = sizeof longer;
    longer.newer[8] = 1;
    EXPECT(camagent_start(config, &longer.host, &agent), CAMAGENT_E_VERSION);
    if (agent != NULL) {
        printf("a failed start has written its handle\n");
        failures++;
    }
    longer.newer[8] = 0;
    EXPECT(camagent_start(config, &longer.host, &agent), CAMAGENT_OK);
    EXPECT(camagent_stop(agent, 0, NULL), CAMAGENT_OK);
}

static void tracks_and_frames(void)
{
    camagent_t *agent = NULL;
    camagent_track_t track;
    camagent_left_t left;
    static unsigned char large[3 << 20];

    EXPECT(camagent_start(config, NULL, &agent), CAMAGENT_OK);
    memset(&track, 0, sizeof track);
    EXPECT(camagent_track_set(agent, 0, NULL), CAMAGENT_E_INVAL);
    EXPECT(camagent_track_set(agent, 0, &track), CAMAGENT_E_INVAL);
    track.struct_size = sizeof track;
    EXPECT(camagent_track_set(agent, 0, &track), CAMAGENT_E_INVAL);
    EXPECT_WORDS("codec is 0");
    track.codec = CAMAGENT_CODEC_H264;
    track.framing = CAMAGENT_FRAMING_ADTS;
    EXPECT(camagent_track_set(agent, 0, &track), CAMAGENT_E_INVAL);
    track.framing = CAMAGENT_FRAMING_ANNEXB;
    track.source = "../etc";
    EXPECT(camagent_track_set(agent, 0, &track), CAMAGENT_E_INVAL);
    track.source = NULL;
    track.config_size = 5;
    EXPECT(camagent_track_set(agent, 0, &track), CAMAGENT_E_INVAL);
    track.config_size = 0;
    EXPECT(camagent_track_set(agent, 128, &track), CAMAGENT_E_INVAL);
    EXPECT(camagent_track_set(agent, 0, &track), CAMAGENT_OK);
    EXPECT(camagent_track_remove(agent, 5), CAMAGENT_E_NOENT);

    EXPECT(camagent_push_frame(agent, 1, 0, 0, key_frame, sizeof key_frame), CAMAGENT_E_NOENT);
    EXPECT(camagent_push_frame(agent, 0, 0, 0, NULL, 4), CAMAGENT_E_INVAL);
    EXPECT(camagent_push_frame(agent, 0, 0, 0, key_frame, 0), CAMAGENT_E_INVAL);
    EXPECT(camagent_push_frame(agent, 0, 0, 0, key_frame, (size_t)-1), CAMAGENT_E_INVAL);
    EXPECT(camagent_push_frame(agent, 0, 0, 0x100, key_frame, sizeof key_frame), CAMAGENT_E_INVAL);
    EXPECT(camagent_push_frame(agent, 0, 0, 0, large, sizeof large), CAMAGENT_E_TOO_LARGE);
    EXPECT_WORDS("buffer_size");
    EXPECT(camagent_push_frame(agent, 0, 0, 0, other_frame, sizeof other_frame), CAMAGENT_WAIT_KEY);
    EXPECT(camagent_push_frame(agent, 0, 9000000, 0, key_frame, sizeof key_frame), CAMAGENT_OK);
    EXPECT(camagent_push_frame(agent, 0, 8900000, 0, other_frame, sizeof other_frame), CAMAGENT_E_ORDER);
    EXPECT(camagent_push_frame(agent, 0, 9040000, 0, other_frame, sizeof other_frame), CAMAGENT_WAIT_KEY);
    EXPECT(camagent_push_frame(agent, 0, 9080000, 0, key_frame, sizeof key_frame), CAMAGENT_OK);
    EXPECT(camagent_push_frame(agent, 0, 0, 0, other_frame, sizeof other_frame), CAMAGENT_CLOCK_STEPPED);
    EXPECT(camagent_command_reply(agent, 77, NULL, "{}"), CAMAGENT_E_NOENT);
    EXPECT(camagent_command_reply(agent, 77, NULL, "no json"), CAMAGENT_E_INVAL);
    left.struct_size = sizeof left;
    EXPECT(camagent_stop(agent, 0, &left), CAMAGENT_OK);
    if (left.frames != 3 || left.bytes != 21 || left.has_ended != 1) {
        printf("left are %lu frames with %lu bytes\n", (unsigned long)left.frames, (unsigned long)left.bytes);
        failures++;
    }
}

static void descriptor(void)
{
    camagent_t *agent = NULL;
    camagent_event_t event;
    struct pollfd waiting;

    EXPECT(camagent_start(config, NULL, &agent), CAMAGENT_OK);
    waiting.fd = camagent_event_fd(agent);
    waiting.events = POLLIN;
    event.struct_size = 3;
    if (poll(&waiting, 1, 10000) != 1) {
        printf("the descriptor is not readable, though ws:// is worth a warning\n");
        failures++;
    }
    EXPECT(camagent_poll_event(agent, &event, 0), CAMAGENT_E_INVAL);
    EXPECT(camagent_poll_event(agent, NULL, 0), CAMAGENT_E_INVAL);
    event.struct_size = sizeof event;
    EXPECT(camagent_poll_event(agent, &event, 0), CAMAGENT_OK);
    if (event.type != CAMAGENT_EVENT_WARNING || event.code != CAMAGENT_WARNING_PLAINTEXT || event.camera != NULL ||
        strstr(event.text, "ws://127.0.0.1:9/agent") == NULL) {
        printf("the first event is %u, %u, \"%s\"\n", (unsigned)event.type, (unsigned)event.code, event.text);
        failures++;
    }
    EXPECT(camagent_stop(agent, 0, NULL), CAMAGENT_OK);
}

static void callbacks_and_fork(int forks)
{
    camagent_t *agent = NULL;
    camagent_host_t host;
    camagent_stats_t stats;
    struct timespec moment = {0, 10000000};
    int status = 0, turns;
    pid_t child;

    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    host.on_event = stop_inside;
    EXPECT(camagent_start(config, &host, &agent), CAMAGENT_OK);
    for (turns = 0; inside == 1 && turns < 1000; turns++)
        nanosleep(&moment, NULL);
    EXPECT(inside, CAMAGENT_E_STATE);

    fflush(stdout);
    child = forks ? fork() : -1;
    if (child == 0) {
        stats.struct_size = sizeof stats;
        _exit(camagent_get_stats(agent, &stats) == CAMAGENT_E_FORKED &&
              camagent_start(config, NULL, &agent) == CAMAGENT_E_FORKED ? 0 : 1);
    }
    if (forks && (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        printf("a forked child may use its parent's agent\n");
        failures++;
    }
    EXPECT(camagent_stop(agent, 0, NULL), CAMAGENT_OK);
}

/* "no-fork": a memory checker would call what the child inherited, and never frees, a leak. */
int main(int argc, char **argv)
{
    if (strcmp(camagent_version(), CAMAGENT_VERSION_STRING) != 0) {
        printf("the library is %s, the header %s\n", camagent_version(), CAMAGENT_VERSION_STRING);
        failures++;
    }
    handles();
    starts();
    tracks_and_frames();
    descriptor();
    callbacks_and_fork(!(argc > 1 && strcmp(argv[1], "no-fork") == 0));
    printf("%d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
