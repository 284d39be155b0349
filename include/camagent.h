/*
 * camagent: a camera's frames, events and commands through one outgoing connection.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 * Generated from camagent-ffi by the build: change the Rust sources, never this file.
 */
#ifndef CAMAGENT_H
#define CAMAGENT_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; camagent_version() tells that of the library. */
#define CAMAGENT_VERSION_MAJOR 0
#define CAMAGENT_VERSION_MINOR 1
#define CAMAGENT_VERSION_PATCH 0
#define CAMAGENT_VERSION_STRING "0.1.0"
/** One number to compare: 0xMMmmpp. */
#define CAMAGENT_VERSION_NUMBER 0x000100

/** What stands before each function; define it yourself before the include to change it. */
#ifndef CAMAGENT_API
#if defined(__GNUC__)
#define CAMAGENT_API __attribute__((visibility("default")))
#else
#define CAMAGENT_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A session is established: `text` is its name in the server's logs, `detail` the server's address.
 */
#define CAMAGENT_EVENT_CONNECTED 1

/**
 * The session, or an attempt to get one, has ended: `text` says why, `code` is the WebSocket close code or 0, `retry_ms` the pause before the
 * next attempt.
 */
#define CAMAGENT_EVENT_DISCONNECTED 2

/**
 * The server asks for something: `text` is the action, `detail` its arguments as JSON, `camera` the camera or NULL, `command` the number to
 * give to camagent_command_reply().
 */
#define CAMAGENT_EVENT_COMMAND 3

/**
 * A viewer waits: please let the encoder begin a new GOP on `track`.
 */
#define CAMAGENT_EVENT_KEY_FRAME_WANTED 4

/**
 * Whether frames of `track` are taken now: `wanted` is 1 or 0. The encoder of an unwanted track may rest.
 */
#define CAMAGENT_EVENT_TRACK_WANTED 5

/**
 * Something that the operator should know and that stops nothing: `code` is one of CAMAGENT_WARNING_*, `text` says it in words.
 */
#define CAMAGENT_EVENT_WARNING 6

/**
 * The uplink is short, or wide enough again: the encoder of `track` should produce `bitrate` bits a second from now on, 0 for what it was configured
 * for. Told at most once a second, and never for audio. An encoder that cannot follow loses pictures instead.
 */
#define CAMAGENT_EVENT_TARGET_BITRATE 7

/**
 * The server's URL is ws://: nothing is encrypted.
 */
#define CAMAGENT_WARNING_PLAINTEXT 1

/**
 * The configuration has an unknown key, or still an example's value.
 */
#define CAMAGENT_WARNING_CONFIGURATION 2

/**
 * The journal is full, frames are lost.
 */
#define CAMAGENT_WARNING_JOURNAL_OVERFLOW 3

/**
 * Another agent uses this agent's id.
 */
#define CAMAGENT_WARNING_DUPLICATE_IDENTITY 4

/**
 * The server asked for a service that the configuration does not allow, or for too many at once.
 */
#define CAMAGENT_WARNING_TUNNEL_REFUSED 5

/**
 * A camera that the agent fetches frames from does not answer, refuses the password, or stopped sending. Never told by this library: here the
 * host pushes the frames.
 */
#define CAMAGENT_WARNING_SOURCE 6

/**
 * The data plan's month is used up by 80 % or 100 %, something stops because of it, or goes on with the next month.
 */
#define CAMAGENT_WARNING_DATA_PLAN 7

/**
 * The folder of the journal on flash is not there, is full, can only be read, or has a file that is not understood; live goes on.
 */
#define CAMAGENT_WARNING_STORAGE 8

/**
 * Decoding can start here. Key frames of H.264 and H.265 are seen without it.
 */
#define CAMAGENT_FRAME_KEY 1

/**
 * No other frame refers to this one.
 */
#define CAMAGENT_FRAME_DISPOSABLE 2

/**
 * The camera's clock jumped, or frames were lost before this one.
 */
#define CAMAGENT_FRAME_DISCONTINUITY 4

/**
 * Log level: something does not work.
 */
#define CAMAGENT_LOG_ERROR 1

/**
 * Log level: something works in spite of trouble.
 */
#define CAMAGENT_LOG_WARN 2

/**
 * Log level: what an operator wants to know.
 */
#define CAMAGENT_LOG_INFO 3

/**
 * Log level: what a developer wants to know.
 */
#define CAMAGENT_LOG_DEBUG 4

/**
 * Log level: everything.
 */
#define CAMAGENT_LOG_TRACE 5

/**
 * The host answers commands: CAMAGENT_EVENT_COMMAND comes for those that the agent does not know itself, and wants camagent_command_reply().
 * Without this flag they are answered with an error at once.
 */
#define CAMAGENT_HOST_ANSWERS_COMMANDS 1

/**
 * Done.
 */
#define CAMAGENT_OK 0

/**
 * Done, and nothing was kept: nobody wants this source now.
 */
#define CAMAGENT_NOT_WANTED 1

/**
 * Done, and nothing was kept: decoding cannot start here, the agent waits for a key frame of this track.
 */
#define CAMAGENT_WAIT_KEY 2

/**
 * Done, the frame is kept; its time went back by more than a second, which is taken as a step of the camera's clock.
 */
#define CAMAGENT_CLOCK_STEPPED 3

/**
 * Done: no event came within the time.
 */
#define CAMAGENT_NO_EVENT 4

/**
 * An argument is wrong: a NULL pointer, an unknown value, a number out of its range.
 */
#define CAMAGENT_E_INVAL (-1)

/**
 * Not allowed now: a stop from a callback, or a frame after the stop began.
 */
#define CAMAGENT_E_STATE (-3)

/**
 * The frame is larger than the journal or the protocol can hold.
 */
#define CAMAGENT_E_TOO_LARGE (-4)

/**
 * No such track or command.
 */
#define CAMAGENT_E_NOENT (-5)

/**
 * The configuration is wrong; camagent_last_error() names the key, its value and what is allowed.
 */
#define CAMAGENT_E_CONFIG (-6)

/**
 * The operating system refused, for example a file that cannot be read.
 */
#define CAMAGENT_E_IO (-7)

/**
 * Certificates are not usable.
 */
#define CAMAGENT_E_TLS (-8)

/**
 * A structure comes from a newer header than this library knows, and uses what is new in it.
 */
#define CAMAGENT_E_VERSION (-12)

/**
 * The agent belongs to the process that this one was forked from.
 */
#define CAMAGENT_E_FORKED (-13)

/**
 * A bug in the agent: its thread has ended, the process is not harmed. Stop the agent and start it again.
 */
#define CAMAGENT_E_FAULT (-15)

/**
 * Not a handle of a running agent: NULL, stopped already, or never one.
 */
#define CAMAGENT_E_HANDLE (-16)

/**
 * The frame's time is before that of the last frame of its track; it was not kept.
 */
#define CAMAGENT_E_ORDER (-17)

/**
 * ITU-T H.264.
 */
#define CAMAGENT_CODEC_H264 1

/**
 * ITU-T H.265.
 */
#define CAMAGENT_CODEC_H265 2

/**
 * MPEG-4 AAC.
 */
#define CAMAGENT_CODEC_AAC 16

/**
 * G.711 A-law.
 */
#define CAMAGENT_CODEC_PCMA 17

/**
 * G.711 mu-law.
 */
#define CAMAGENT_CODEC_PCMU 18

/**
 * NAL units behind start codes (ITU-T H.264 and H.265 Annex B): what encoders give.
 */
#define CAMAGENT_FRAMING_ANNEXB 1

/**
 * NAL units behind lengths of 4 bytes, big endian (ISO/IEC 14496-15).
 */
#define CAMAGENT_FRAMING_LENGTH4 2

/**
 * AAC access units behind ADTS headers.
 */
#define CAMAGENT_FRAMING_ADTS 3

/**
 * G.711 samples, or one AAC access unit without header.
 */
#define CAMAGENT_FRAMING_RAW 4

/**
 * A running agent. Made by camagent_start(), ended by camagent_stop(). It is no address: it is looked up at every call, so that a wrong
 * one is an error code.
 */
typedef struct camagent_t camagent_t;

/**
 * What a call returns: 0 when it is done, more when it is done with a remark, less when it failed.
 */
typedef int32_t camagent_result;

/**
 * Something that happened. Which members count depends on `type`, see CAMAGENT_EVENT_*; texts are never NULL, `camera` may be.
 */
typedef struct camagent_event_t {
    /**
     * Set it to sizeof(camagent_event_t) before camagent_poll_event(); tells how much was filled.
     */
    uint32_t struct_size;
    /**
     * One of CAMAGENT_EVENT_*. Pass over numbers that you do not know.
     */
    uint32_t type;
    /**
     * The command to answer.
     */
    uint64_t command;
    /**
     * The track.
     */
    uint32_t track;
    /**
     * 1 or 0.
     */
    uint32_t wanted;
    /**
     * A WebSocket close code, or one of CAMAGENT_WARNING_*.
     */
    uint32_t code;
    /**
     * Milliseconds until the next attempt.
     */
    uint32_t retry_ms;
    /**
     * See the event's type.
     */
    const char *text;
    /**
     * See the event's type.
     */
    const char *detail;
    /**
     * The camera of a command, or NULL.
     */
    const char *camera;
    /**
     * Bits a second.
     */
    uint32_t bitrate;
} camagent_event_t;

/**
 * Hears an event, on the agent's thread, one at a time, with no lock held. The event and its texts are valid during the call. It must return
 * soon: meanwhile nothing is sent. It may call everything but camagent_stop(), which answers CAMAGENT_E_STATE there.
 */
typedef void (*camagent_event_fn)(void *user, struct camagent_t *agent, const struct camagent_event_t *event);

/**
 * Hears a log message, mostly on the agent's thread. `level` is one of CAMAGENT_LOG_*, `message` is valid during the call. How much comes is
 * decided by agent.log_level of the configuration.
 */
typedef void (*camagent_log_fn)(void *user, int32_t level, const char *message);

/**
 * What the host gives to its agent. Set everything to 0 first, then struct_size.
 */
typedef struct camagent_host_t {
    /**
     * Set it to sizeof(camagent_host_t).
     */
    uint32_t struct_size;
    /**
     * CAMAGENT_HOST_ANSWERS_COMMANDS or 0.
     */
    uint32_t flags;
    /**
     * Handed to both functions. It must stay valid until camagent_stop() has returned.
     */
    void *user;
    /**
     * Hears events; NULL to fetch them by camagent_poll_event().
     */
    camagent_event_fn on_event;
    /**
     * Hears log messages; NULL for none.
     */
    camagent_log_fn on_log;
} camagent_host_t;

/**
 * What a stop left behind.
 */
typedef struct camagent_left_t {
    /**
     * Set it to sizeof(camagent_left_t); tells how much was filled.
     */
    uint32_t struct_size;
    /**
     * 1 when the agent's thread has ended; 0 when it hangs in a function of the host, which must then stay valid.
     */
    uint32_t has_ended;
    /**
     * Frames that the server had not acknowledged.
     */
    uint64_t frames;
    /**
     * Their bytes.
     */
    uint64_t bytes;
} camagent_left_t;

/**
 * How an agent fares. Counters begin at 0 with the agent.
 */
typedef struct camagent_stats_t {
    /**
     * Set it to sizeof(camagent_stats_t); tells how much was filled.
     */
    uint32_t struct_size;
    /**
     * 1 while a session is established, else 0.
     */
    uint32_t connected;
    /**
     * Bytes written to the server, TLS and WebSocket included.
     */
    uint64_t bytes_sent;
    /**
     * Bytes read from the server.
     */
    uint64_t bytes_received;
    /**
     * Frames that were kept and never reached the server; each was told to it.
     */
    uint64_t packets_lost;
    /**
     * How often a session was established again.
     */
    uint64_t reconnections;
    /**
     * Seconds since the start.
     */
    uint64_t uptime;
    /**
     * Bytes that the journal holds now.
     */
    uint64_t buffer_size;
    /**
     * Frames that were kept.
     */
    uint64_t frames_accepted;
    /**
     * Frames that were sent, repeats included.
     */
    uint64_t frames_sent;
    /**
     * Frames that were not kept: not wanted, waiting for a key frame, or refused.
     */
    uint64_t frames_dropped;
    /**
     * Last round trip in microseconds; 0 before the first.
     */
    uint64_t round_trip_us;
    /**
     * Bits a second that the uplink was seen to deliver at its best lately: no more than it was given. 0 without a session.
     */
    uint64_t uplink_bits_per_second;
    /**
     * Microseconds that the newest bytes waited in front of the uplink.
     */
    uint64_t uplink_queue_us;
} camagent_stats_t;

/**
 * A track: one flow of coded pictures or audio units. Set everything to 0 first, then struct_size.
 */
typedef struct camagent_track_t {
    /**
     * Set it to sizeof(camagent_track_t).
     */
    uint32_t struct_size;
    /**
     * One of CAMAGENT_CODEC_*.
     */
    uint32_t codec;
    /**
     * One of CAMAGENT_FRAMING_*.
     */
    uint32_t framing;
    /**
     * Samples per second of audio; 0 for video.
     */
    uint32_t sample_rate;
    /**
     * Channels of audio; 0 for video.
     */
    uint32_t channels;
    /**
     * Bytes at `config`, at most 2 048.
     */
    uint32_t config_size;
    /**
     * The source: "main", "sub" ... Its tracks are on one clock and are played together. NULL for "main".
     */
    const char *source;
    /**
     * The camera; NULL for the first one of the configuration.
     */
    const char *camera;
    /**
     * Parameter sets (Annex B) or AudioSpecificConfig. NULL when they come in band, as they mostly do.
     */
    const void *config;
} camagent_track_t;

/**
 * Starts an agent from a configuration in JSON (sdk-docs/reference/configuration.md). It takes its memory, reads certificates and starts one
 * thread; nothing is dialled before the call returns. Start it after fork() or daemon(), never before.
 *
 * @param config_json  the configuration; copied
 * @param host         how events and log messages are heard; copied; NULL for neither
 * @param out_agent    gets the handle; untouched when the call fails
 * @return CAMAGENT_OK, CAMAGENT_E_CONFIG, CAMAGENT_E_TLS, CAMAGENT_E_IO, CAMAGENT_E_INVAL, CAMAGENT_E_VERSION, CAMAGENT_E_STATE (64 agents run),
 *         CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_start(const char *config_json,
                               const struct camagent_host_t *host,
                               struct camagent_t **out_agent);

/**
 * Starts an agent from a configuration file; see camagent_start().
 *
 * @param path       the file
 * @param host       how events and log messages are heard; copied; NULL for neither
 * @param out_agent  gets the handle; untouched when the call fails
 * @return as camagent_start(); CAMAGENT_E_IO when the file cannot be read
 */
CAMAGENT_API
camagent_result camagent_start_file(const char *path,
                                    const struct camagent_host_t *host,
                                    struct camagent_t **out_agent);

/**
 * Fetches the oldest event that waits. For hosts that gave no `on_event`; one thread at a time. At most 256 events wait, then the oldest goes.
 *
 * @param agent       the agent
 * @param event       is filled; its texts are valid until the next call for this agent, or until it is stopped. Set struct_size before
 * @param timeout_ms  how long to wait for one; 0 to look only
 * @return CAMAGENT_OK, CAMAGENT_NO_EVENT, CAMAGENT_E_HANDLE, CAMAGENT_E_INVAL, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_poll_event(struct camagent_t *agent,
                                    struct camagent_event_t *event,
                                    uint32_t timeout_ms);

/**
 * A file descriptor that is readable while events wait, for the host's own poll() loop. It belongs to the agent: do not read it or close it.
 *
 * @param agent  the agent
 * @return the descriptor, which is never negative, or CAMAGENT_E_HANDLE, CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_event_fd(struct camagent_t *agent);

/**
 * Tells that the machine is in another network, or has other addresses there: the agent looks at once whether its connection is alive, dials a
 * second one beside it, and cuts a pause between attempts short. Never waits. Not needed where the agent may open a netlink socket: then the
 * kernel tells of addresses and routes. Needed for what the kernel does not see, a modem that dialled in anew behind the same address for one.
 *
 * @param agent  the agent
 * @return CAMAGENT_OK, CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_network_changed(struct camagent_t *agent);

/**
 * Answers a command, once. Never waits. A command that nobody answers in time is answered with an error by the agent.
 *
 * @param agent       the agent
 * @param command     `command` of the event
 * @param error_code  NULL when the command was done, else a word for machines such as "failed" or "unsupported"
 * @param text        what came of it: JSON (or NULL) when it was done, words for people when it was not; copied
 * @return CAMAGENT_OK, CAMAGENT_E_NOENT (unknown, answered, or too late), CAMAGENT_E_INVAL (no JSON), CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT,
 *         CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_command_reply(struct camagent_t *agent,
                                       uint64_t command,
                                       const char *error_code,
                                       const char *text);

/**
 * Ends an agent: takes no more frames, sends what the journal holds as long as the time allows (dialling again if need be), and ends the thread. The handle is dead
 * afterwards, whatever is returned, except for CAMAGENT_E_STATE: from a callback an agent cannot be stopped. After CAMAGENT_OK no function of the
 * host is called any more, unless `left` says that the thread hangs in one.
 *
 * @param agent       the agent
 * @param timeout_ms  how long frames may still be sent; 0 to drop them. The call takes at most 2 s longer
 * @param left        gets what was left; NULL if you do not want to know. Set struct_size before
 * @return CAMAGENT_OK, CAMAGENT_E_HANDLE, CAMAGENT_E_STATE, CAMAGENT_E_INVAL, CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_stop(struct camagent_t *agent,
                              uint32_t timeout_ms,
                              struct camagent_left_t *left);

/**
 * Copies a frame into the journal, which the agent sends it from. It never waits for network or disk, and allocates nothing. Any thread may call it; frames of
 * one track have to be pushed in their order, by one thread at a time.
 *
 * @param agent   the agent
 * @param track   the track's number
 * @param pts_us  presentation time in microseconds of a steady clock, any zero; tracks of one source share the clock. Frames are pushed in decoding
 *                order, so a stream with B pictures cannot be pushed by this call
 * @param flags   CAMAGENT_FRAME_* or 0
 * @param data    one whole picture, or one or more audio units, laid out as the track's framing says
 * @param size    its bytes, 1 to 4 MiB and no more than streaming.buffer_size
 * @return CAMAGENT_OK, CAMAGENT_NOT_WANTED, CAMAGENT_WAIT_KEY, CAMAGENT_CLOCK_STEPPED, CAMAGENT_E_ORDER, CAMAGENT_E_TOO_LARGE, CAMAGENT_E_NOENT (no such
 *         track), CAMAGENT_E_INVAL, CAMAGENT_E_STATE (being stopped), CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_push_frame(struct camagent_t *agent,
                                    uint32_t track,
                                    int64_t pts_us,
                                    uint32_t flags,
                                    const void *data,
                                    size_t size);

/**
 * Fills in how the agent fares. Never waits.
 *
 * @param agent  the agent
 * @param stats  is filled; set struct_size before
 * @return CAMAGENT_OK, CAMAGENT_E_INVAL, CAMAGENT_E_HANDLE, CAMAGENT_E_FORKED
 */
CAMAGENT_API camagent_result camagent_get_stats(struct camagent_t *agent, struct camagent_stats_t *stats);

/**
 * Adds a track, or changes it: frames from now on are of the new kind. At any time, from any thread; never waits.
 *
 * @param agent   the agent
 * @param number  0 to 127, your choice: frames are pushed under it
 * @param track   what it is; copied
 * @return CAMAGENT_OK, CAMAGENT_E_INVAL, CAMAGENT_E_VERSION, CAMAGENT_E_STATE (256 changes wait for the agent's thread: try again later),
 *         CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
 */
CAMAGENT_API
camagent_result camagent_track_set(struct camagent_t *agent,
                                   uint32_t number,
                                   const struct camagent_track_t *track);

/**
 * Ends a track. What the journal holds of it is still sent; viewers see no end of it, only no more frames.
 *
 * @param agent   the agent
 * @param number  the track
 * @return CAMAGENT_OK, CAMAGENT_E_NOENT, CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
 */
CAMAGENT_API camagent_result camagent_track_remove(struct camagent_t *agent, uint32_t number);

/**
 * The version of the library, for example "0.1.0". Static.
 *
 * @return never NULL
 */
CAMAGENT_API const char *camagent_version(void);

/**
 * What a result means, in general words. Static.
 *
 * @param result  what a call returned
 * @return never NULL
 */
CAMAGENT_API const char *camagent_strerror(camagent_result result);

/**
 * What was wrong with the last failed call of this thread, in words that name the cause.
 *
 * @return never NULL, empty before the first failure; valid until this thread's next failing call
 */
CAMAGENT_API const char *camagent_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* CAMAGENT_H */
