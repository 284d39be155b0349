/* The shortest camera: reads one H.264 picture after another from your encoder and pushes it.
   Usage: minimal CONFIG.json < pictures, each behind its size as 4 bytes, big endian. */
#include <camagent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    camagent_t *agent = NULL;
    camagent_track_t track;
    unsigned char size[4];
    int64_t time_us = 0;

    if (argc != 2 || camagent_start_file(argv[1], NULL, &agent) != CAMAGENT_OK) {
        fprintf(stderr, "minimal: %s\n", argc == 2 ? camagent_last_error() : "usage: minimal CONFIG.json");
        return 1;
    }
    memset(&track, 0, sizeof track);
    track.struct_size = sizeof track;
    track.codec = CAMAGENT_CODEC_H264;
    track.framing = CAMAGENT_FRAMING_ANNEXB;
    camagent_track_set(agent, 0, &track);

    while (fread(size, 1, 4, stdin) == 4) {
        size_t length = (size_t)size[0] << 24 | (size_t)size[1] << 16 | (size_t)size[2] << 8 | size[3];
        unsigned char *picture = malloc(length ? length : 1);
        if (picture == NULL || fread(picture, 1, length, stdin) != length) {
            free(picture);
            break;
        }
        if (camagent_push_frame(agent, 0, time_us, 0, picture, length) < 0)
            fprintf(stderr, "minimal: %s\n", camagent_last_error());
        free(picture); /* it was copied */
        time_us += 40000;
    }
    return camagent_stop(agent, 5000, NULL) == CAMAGENT_OK ? 0 : 1;
}
