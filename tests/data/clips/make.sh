#!/bin/sh
# Makes the clips of this folder from ffmpeg's own test sources, so that nothing in them belongs to anybody.
# Needs ffmpeg with libx264 and libx265. Another encoder version gives other bytes: commit the result, and only when it must change.
set -eu
cd "$(dirname "$0")"

SECONDS_LONG=8
RATE=25
GOP=50
ff() { ffmpeg -hide_banner -loglevel error -y "$@"; }

picture="testsrc2=size=640x360:rate=$RATE:duration=$SECONDS_LONG"
tone="sine=frequency=440:beep_factor=4:sample_rate=48000:duration=$SECONDS_LONG"
voice="sine=frequency=300:beep_factor=4:sample_rate=8000:duration=$SECONDS_LONG"

# The first camera: H.264 and AAC.
ff -f lavfi -i "$picture" -pix_fmt yuv420p -c:v libx264 -preset slow -bf 0 -g $GOP -keyint_min $GOP -sc_threshold 0 \
   -b:v 300k -maxrate 360k -bufsize 600k -threads 1 -f h264 main.h264
ff -f lavfi -i "$tone" -ac 1 -c:a aac -b:a 48k -f adts main.aac

# The second camera: H.265 and G.711, in both laws.
ff -f lavfi -i "$picture" -pix_fmt yuv420p -c:v libx265 -preset medium -b:v 300k -maxrate 360k -bufsize 600k \
   -x265-params "bframes=0:keyint=$GOP:min-keyint=$GOP:scenecut=0:open-gop=0:repeat-headers=1:pools=1:frame-threads=1:log-level=error" \
   -f hevc second.h265
ff -f lavfi -i "$voice" -ac 1 -c:a pcm_alaw -f alaw second.alaw
ff -f lavfi -i "$voice" -ac 1 -c:a pcm_mulaw -f mulaw second.ulaw

# What a camera answers when it is asked for a picture.
ff -f lavfi -i "testsrc2=size=320x180:rate=1:duration=1" -frames:v 1 -q:v 8 snapshot.jpg

ls -l -- *.h264 *.h265 *.aac *.alaw *.ulaw *.jpg
