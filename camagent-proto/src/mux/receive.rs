//! What a mux does with each frame that comes.

use super::{
    StreamEvent,
    multiplexer::Mux,
    stream::{Incoming, Outgoing, Stream},
};
use crate::{
    error::Error,
    frame::{Data, Frame, Open, OpenOutcome, OpenResult, ResetStream, StopSending, StreamError},
    time::Instant,
};
use alloc::{format, string::String};

impl Mux {
    /// Takes a frame; one that is no tunnel's is given back.
    pub fn handle(&mut self, now: Instant, frame: Frame) -> Result<Option<Frame>, Error> {
        if let Some(octets) = size(&frame) {
            self.count_received(octets);
        }
        match frame {
            Frame::Open(open) => self.handle_open(now, open)?,
            Frame::OpenResult(result) => self.handle_result(result)?,
            Frame::Data(data) => self.handle_data(now, data)?,
            Frame::ResetStream(reset) => self.handle_reset(now, &reset)?,
            Frame::StopSending(stop) => self.handle_stop(now, &stop)?,
            Frame::MaxData(max) => {
                if !self.allowance.raise(max.limit) {
                    self.useless(now)?;
                }
            }
            Frame::MaxStreamData(max) => {
                let raised = match self.begun(max.stream, "MAX_STREAM_DATA stream")? {
                    Some(at) => self.streams[at].allowance.raise(max.limit),
                    None => false,
                };
                if !raised {
                    self.useless(now)?;
                }
            }
            Frame::ReturnStreamData(back) => {
                if let Some(at) = self.begun(back.stream, "RETURN_STREAM_DATA stream")? {
                    self.streams[at].take_back(back.octets)?;
                }
                // Rare, and each may make this end give credit anew.
                self.useless(now)?;
            }
            Frame::MaxStreams(max) => {
                if !self.opens {
                    return Err(wrong("MAX_STREAMS", "from an agent", "one from a server".into()));
                }
                if max.limit > self.max_streams {
                    self.max_streams = max.limit;
                } else {
                    self.useless(now)?;
                }
            }
            Frame::Tack(tack) => {
                if !self.handle_tack(&tack)? {
                    self.useless(now)?;
                }
            }
            other => return Ok(Some(other)),
        }
        self.reap();
        Ok(None)
    }

    fn handle_open(&mut self, now: Instant, open: Open) -> Result<(), Error> {
        if self.opens {
            return Err(wrong("OPEN", "from a server", "one from an agent".into()));
        }
        let expected = 4 * self.opened + 1;
        if open.stream != expected {
            return Err(wrong("OPEN stream", "the next number", format!("{} instead of {expected}", open.stream)));
        }
        let opened = self.opened + 1;
        if opened > self.max_streams {
            return Err(Error::Credit { credit: "MAX_STREAMS", allowed: self.max_streams, got: opened });
        }
        let allowed = self.streams_of_ten_seconds(now);
        self.open_pace.count(now, "OPEN in ten seconds", allowed)?;
        self.opened = opened;
        let (sends, takes) = (self.sends.stream_bytes, self.receives.stream_bytes);
        self.streams.push(Stream::new(open.stream, Outgoing::Waiting, sends, takes, now));
        let Open { stream, camera, service, visitor } = open;
        self.events.push_back(StreamEvent::Open { stream, camera, service, visitor });
        Ok(())
    }

    fn handle_result(&mut self, result: OpenResult) -> Result<(), Error> {
        if !self.opens {
            return Err(wrong("OPEN_RESULT", "from an agent", "one from a server".into()));
        }
        let at = self.known(result.stream, "OPEN_RESULT stream")?;
        let Some(at) = at.filter(|&at| self.streams[at].open.is_none() && !self.streams[at].is_answered) else {
            return Err(wrong("OPEN_RESULT", "one for each OPEN", format!("one more for stream {}", result.stream)));
        };
        self.streams[at].is_answered = true;
        if result.outcome == OpenOutcome::Connected {
            self.events.push_back(StreamEvent::Connected(result.stream));
        } else {
            self.streams.remove(at);
            let OpenResult { stream, outcome, detail } = result;
            self.events.push_back(StreamEvent::Refused { stream, outcome, detail });
        }
        Ok(())
    }

    fn handle_data(&mut self, now: Instant, data: Data) -> Result<(), Error> {
        let length = data.octets.len() as u64;
        self.window.receive("MAX_DATA", length)?;
        let Some(at) = self.begun(data.stream, "DATA stream")? else {
            // Sent before the peer heard of the stream's end.
            self.window.consume(length);
            return if length == 0 { self.useless(now) } else { Ok(()) };
        };
        let most_empty = self.tolerance.empty_data;
        let stream = &mut self.streams[at];
        let told = stream.incoming == Incoming::Open;
        let dropped = stream.receive(data.octets, data.fin, most_empty)?;
        self.window.consume(dropped);
        // While the service is being connected nobody can take anything.
        if told && stream.outgoing != Outgoing::Waiting {
            self.events.push_back(StreamEvent::Received(data.stream));
        }
        Ok(())
    }

    fn handle_reset(&mut self, now: Instant, reset: &ResetStream) -> Result<(), Error> {
        self.count_reset(now)?;
        let Some(at) = self.begun(reset.stream, "RESET_STREAM stream")? else { return Ok(()) };
        let stream = &mut self.streams[at];
        if reset.final_size != stream.window.received() {
            let got = format!("{} after {} octets", reset.final_size, stream.window.received());
            return Err(wrong("RESET_STREAM final size", "what was sent", got));
        }
        if matches!(stream.incoming, Incoming::Ending | Incoming::Ended) {
            return Err(wrong("RESET_STREAM", "a direction that has not ended", format!("stream {}", stream.id)));
        }
        let told = stream.incoming == Incoming::Open;
        stream.incoming = Incoming::Ended;
        stream.stop = None;
        let dropped = stream.drop_waiting();
        self.window.consume(dropped);
        if told {
            self.events.push_back(StreamEvent::Broken(reset.stream, reset.error));
        }
        Ok(())
    }

    fn handle_stop(&mut self, now: Instant, stop: &StopSending) -> Result<(), Error> {
        self.count_reset(now)?;
        let Some(at) = self.begun(stop.stream, "STOP_SENDING stream")? else { return Ok(()) };
        let stream = &mut self.streams[at];
        match stream.outgoing {
            Outgoing::Ended => return Ok(()),
            Outgoing::Waiting => {
                // The visitor has gone before its service was reached.
                let dropped = stream.refuse(OpenOutcome::Unreachable, "the visitor has gone".into());
                self.window.consume(dropped);
            }
            Outgoing::Open if stream.reset.is_some() => return Ok(()),
            Outgoing::Open => stream.reset = Some(StreamError::Cancelled),
        }
        self.events.push_back(StreamEvent::Stopped(stop.stream, stop.error));
        Ok(())
    }

    fn count_reset(&mut self, now: Instant) -> Result<(), Error> {
        // A stream has at most one of each.
        let allowed = self.streams_of_ten_seconds(now).saturating_mul(2).max(self.tolerance.resets);
        self.reset_pace.count(now, "RESET_STREAM and STOP_SENDING in ten seconds", allowed)
    }

    /// Streams that there may have been in ten seconds. A link that was stuck delivers what was sent in time all at once: twice as much passes.
    fn streams_of_ten_seconds(&mut self, now: Instant) -> u64 {
        if self.opens {
            // Those that were opened, not those that the peer says it would take.
            return self.open_pace.lately(now).saturating_add(self.most()).saturating_mul(2);
        }
        self.receives.opens_per_second.max(1).saturating_mul(20)
    }

    fn useless(&mut self, now: Instant) -> Result<(), Error> {
        let allowed = self.streams_of_ten_seconds(now).max(self.tolerance.useless);
        self.useless_pace.count(now, "frames of tunnels without effect in ten seconds", allowed)
    }

    /// Where a stream is of which the peer may speak: the agent has to answer an OPEN before it says anything else.
    fn begun(&self, stream: u64, place: &'static str) -> Result<Option<usize>, Error> {
        let at = self.known(stream, place)?;
        match at {
            Some(at) if self.opens && !self.streams[at].is_answered => {
                Err(wrong(place, "an OPEN_RESULT before it", format!("{stream}")))
            }
            at => Ok(at),
        }
    }

    /// Where a stream is; `None` when it is over, an error when it never was.
    fn known(&self, stream: u64, place: &'static str) -> Result<Option<usize>, Error> {
        if stream % 4 != 1 || stream / 4 >= self.opened {
            return Err(wrong(place, "a stream that was opened", format!("{stream}")));
        }
        Ok(self.find(stream))
    }
}

/// About how many octets a frame of a tunnel has; none that is not to be counted.
fn size(frame: &Frame) -> Option<usize> {
    const HEAD: usize = 24;
    match frame {
        Frame::Data(data) => Some(HEAD + data.octets.len()),
        Frame::Open(open) => Some(HEAD + open.camera.len() + open.service.len() + open.visitor.len()),
        Frame::OpenResult(result) => Some(HEAD + result.detail.len()),
        Frame::ResetStream(_)
        | Frame::StopSending(_)
        | Frame::MaxData(_)
        | Frame::MaxStreamData(_)
        | Frame::MaxStreams(_)
        | Frame::ReturnStreamData(_) => Some(HEAD),
        _ => None,
    }
}

fn wrong(place: &'static str, expected: &'static str, got: String) -> Error {
    Error::Violation { place, expected, got }
}
