//! A peer that sends what no tunnel's rules allow loses its session, with the code and the words for it; what only crosses on the way does not.

use camagent_proto::{
    CloseCode, Duration, Error, Instant,
    frame::{
        Data, Frame, MAX_RECORD, MaxData, MaxStreamData, MaxStreams, Open, OpenOutcome, OpenResult, RecordReader,
        RecordWriter, ResetStream, Space, StopSending, StreamError,
    },
    message::TunnelLimits,
    mux::{Mux, NoStreams, NotOpened, Read, StreamEvent, Streams},
};

const AGENT: TunnelLimits =
    TunnelLimits { streams: 8, stream_bytes: 1_000, bytes: 8_000, opens_per_second: 5, resume_bytes: 0 };
const SERVER: TunnelLimits =
    TunnelLimits { streams: 0, stream_bytes: 1_000, bytes: 8_000, opens_per_second: 0, resume_bytes: 0 };
const NOW: Instant = Instant::from_micros(3_600_000_000);

fn agent() -> Mux {
    Mux::acceptor(AGENT, SERVER, NOW)
}

/// A server's end with so many streams, whose OPENs are written.
fn server(streams: u64) -> Mux {
    let mut mux = Mux::opener(SERVER, AGENT, NOW);
    for stream in 0..streams {
        assert_eq!(mux.open(NOW, "gate", "rtsp", "me"), Ok(4 * stream + 1));
    }
    assert_eq!(written(&mut mux).len() as u64, streams);
    mux
}

fn open(number: u64) -> Frame {
    Frame::Open(Open { stream: 4 * number + 1, camera: "gate".into(), service: "rtsp".into(), visitor: "me".into() })
}

fn result(stream: u64, outcome: OpenOutcome) -> Frame {
    Frame::OpenResult(OpenResult { stream, outcome, detail: String::new() })
}

fn data(stream: u64, length: usize, fin: bool) -> Frame {
    Frame::Data(Data { stream, fin, octets: vec![7; length].into() })
}

fn reset(stream: u64, final_size: u64) -> Frame {
    Frame::ResetStream(ResetStream { stream, error: StreamError::Broken, final_size })
}

fn stop(stream: u64) -> Frame {
    Frame::StopSending(StopSending { stream, error: StreamError::Cancelled })
}

/// What a mux writes of its own.
fn written(mux: &mut Mux) -> Vec<Frame> {
    let mut record = RecordWriter::new(MAX_RECORD);
    mux.fill_control(NOW, &mut record);
    mux.fill(&mut record, &mut NoStreams);
    let mut reader = RecordReader::new(record.finish()).unwrap();
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

fn hear(mux: &mut Mux, frames: impl IntoIterator<Item = Frame>) -> Result<(), Error> {
    frames.into_iter().try_for_each(|frame| mux.handle(NOW, frame).map(|other| assert_eq!(other, None)))
}

fn refuses(mut mux: Mux, frames: impl IntoIterator<Item = Frame>, code: CloseCode, words: &str) {
    let mut frames = frames.into_iter().collect::<Vec<_>>();
    let last = frames.pop().expect("a frame that is wrong");
    hear(&mut mux, frames).expect("what comes before is right");
    let error = hear(&mut mux, [last]).expect_err(words);
    assert_eq!(error.close_code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error} should say {words:?}");
}

#[test]
fn streams_beyond_the_credit_close_with_flow_control() {
    refuses(agent(), (0..9).map(open), CloseCode::FlowControl, "MAX_STREAMS");
}

#[test]
fn opens_that_come_too_fast_close_with_limit_exceeded() {
    let mut mux = agent();
    for number in 0..100 {
        hear(&mut mux, [open(number)]).expect("twice the pace passes: a link may have been stuck");
        mux.answer(4 * number + 1, OpenOutcome::NotAllowed, "");
        written(&mut mux);
    }
    let error = hear(&mut mux, [open(100)]).unwrap_err();
    assert_eq!(error.close_code(), CloseCode::LimitExceeded, "{error}");

    let mut mux = server(0);
    for number in 0..50 {
        let stream = mux.open(NOW, "gate", "rtsp", "me").expect("within the pace");
        written(&mut mux);
        hear(&mut mux, [result(stream, OpenOutcome::Busy), Frame::MaxStreams(MaxStreams { limit: 9 + number })])
            .unwrap();
    }
    let Err(NotOpened::TooFast(until)) = mux.open(NOW, "gate", "rtsp", "me") else {
        panic!("the server keeps the pace")
    };
    assert!(mux.open(until, "gate", "rtsp", "me").is_ok() && until <= NOW + Duration::from_secs(10));
}

#[test]
fn floods_of_what_costs_nothing_close_with_limit_exceeded() {
    let flood = |frame: Frame, most: usize| {
        let mut mux = agent();
        hear(&mut mux, [open(0)]).unwrap();
        mux.answer(1, OpenOutcome::NotAllowed, "");
        written(&mut mux);
        hear(&mut mux, vec![frame.clone(); most]).unwrap_or_else(|error| panic!("{most} pass: {error}"));
        let error = hear(&mut mux, vec![frame; 10 * most]).expect_err("a flood");
        assert_eq!(error.close_code(), CloseCode::LimitExceeded, "{error}");
        let mut events = 0;
        while mux.poll_event().is_some() {
            events += 1;
        }
        assert!(events < 5, "{events} events");
    };
    flood(reset(1, 0), 100);
    flood(stop(1), 100);
    flood(data(1, 0, false), 500);
    flood(Frame::MaxData(MaxData { limit: 1 }), 500);
    flood(Frame::MaxStreamData(MaxStreamData { stream: 1, limit: 1 }), 500);

    let mut frames = vec![open(0)];
    frames.extend(vec![data(1, 0, false); 17]);
    refuses(agent(), frames, CloseCode::LimitExceeded, "empty DATA");
}

#[test]
fn credit_that_is_overdrawn_closes_with_flow_control() {
    refuses(agent(), [open(0), data(1, 1_000, false), data(1, 1, false)], CloseCode::FlowControl, "MAX_STREAM_DATA");
    let narrow = Mux::acceptor(TunnelLimits { bytes: 1_500, ..AGENT }, SERVER, NOW);
    let frames = [open(0), open(1), data(1, 1_000, false), data(5, 501, false)];
    refuses(narrow, frames, CloseCode::FlowControl, "MAX_DATA");
    // What is dropped counts all the same.
    let mut mux = agent();
    hear(&mut mux, [open(0), data(1, 600, false)]).unwrap();
    mux.answer(1, OpenOutcome::Connected, "");
    mux.abandon(1, StreamError::Broken);
    refuses(mux, [data(1, 400, false), data(1, 1, false)], CloseCode::FlowControl, "MAX_STREAM_DATA");
}

#[test]
fn credit_of_streams_that_are_over_comes_back() {
    let mut mux = agent();
    for number in 0..40 {
        let stream = 4 * number + 1;
        hear(&mut mux, [open(number), data(stream, 900, false)]).unwrap_or_else(|error| panic!("{number}: {error}"));
        match number % 3 {
            0 => mux.answer(stream, OpenOutcome::NotAllowed, ""),
            1 => mux.answer(stream, OpenOutcome::Connected, ""),
            _ => hear(&mut mux, [stop(stream)]).unwrap(),
        }
        // More of it is under way when the stream ends.
        hear(&mut mux, [data(stream, 50, false)]).unwrap();
        written(&mut mux);
        hear(&mut mux, [data(stream, 50, false), reset(stream, 1_000)]).unwrap();
        mux.abandon(stream, StreamError::Cancelled);
        written(&mut mux);
    }
    assert_eq!((mux.open_streams(), mux.waiting_octets()), (0, 0));
}

#[test]
fn frames_out_of_place_close_with_protocol_error() {
    let wrong = |mux, frames: Vec<Frame>, words| refuses(mux, frames, CloseCode::ProtocolError, words);
    for frame in [data(1, 1, false), reset(1, 0), stop(1), Frame::MaxStreamData(MaxStreamData { stream: 1, limit: 1 })]
    {
        wrong(agent(), vec![frame.clone()], "a stream that was opened");
        // The agent says what became of an OPEN before it says anything else of the stream.
        wrong(server(1), vec![frame], "OPEN_RESULT");
    }
    for stream in [0, 2, 3, 4, 5, u64::MAX >> 2] {
        wrong(agent(), vec![open(0), data(stream, 1, false)], "a stream that was opened");
    }
    wrong(agent(), vec![open(1)], "the next number");
    wrong(agent(), vec![open(0), open(0)], "the next number");
    wrong(agent(), vec![result(1, OpenOutcome::Connected)], "from an agent");
    wrong(agent(), vec![Frame::MaxStreams(MaxStreams { limit: 99 })], "from an agent");
    wrong(server(1), vec![open(0)], "from a server");
    wrong(server(1), vec![result(5, OpenOutcome::Connected)], "a stream that was opened");
    wrong(server(1), vec![result(1, OpenOutcome::Connected), result(1, OpenOutcome::Connected)], "one for each OPEN");
    wrong(server(1), vec![result(1, OpenOutcome::Busy), result(1, OpenOutcome::Busy)], "one for each OPEN");
    wrong(agent(), vec![open(0), data(1, 1, true), data(1, 1, false)], "nothing after the end");
    wrong(agent(), vec![open(0), data(1, 1, true), reset(1, 1)], "a direction that has not ended");
    wrong(agent(), vec![open(0), data(1, 5, false), reset(1, 4)], "what was sent");
    wrong(agent(), vec![open(0), reset(1, 0), data(1, 1, false)], "nothing after the end");
}

#[test]
fn what_crosses_on_the_way_is_no_error() {
    // Frames of a stream that this end has forgotten.
    let mut mux = server(1);
    hear(&mut mux, [result(1, OpenOutcome::Connected), data(1, 10, true)]).unwrap();
    mux.consumed(1, 10);
    mux.abandon(1, StreamError::Cancelled);
    assert_eq!(written(&mut mux), [reset_of(1, StreamError::Cancelled, 0)]);
    assert_eq!(mux.open_streams(), 0);
    hear(&mut mux, [stop(1), Frame::MaxStreamData(MaxStreamData { stream: 1, limit: 5_000 })]).unwrap();

    // A visitor that goes before the agent has answered: STOP_SENDING and RESET_STREAM come in one record.
    let mut mux = agent();
    hear(&mut mux, [open(0), data(1, 10, false), stop(1), reset(1, 10)]).unwrap();
    mux.answer(1, OpenOutcome::Connected, "too late");
    let [Frame::OpenResult(OpenResult { stream: 1, outcome: OpenOutcome::Unreachable, .. })] = &written(&mut mux)[..]
    else {
        panic!("refused")
    };
    assert_eq!((mux.open_streams(), mux.waiting_octets()), (0, 0));

    // A refusal that is not written yet, and octets that come meanwhile.
    let mut mux = agent();
    hear(&mut mux, [open(0)]).unwrap();
    mux.answer(1, OpenOutcome::NotAllowed, "no");
    hear(&mut mux, [data(1, 10, false), data(1, 10, true)]).unwrap();
    assert_eq!(
        written(&mut mux),
        [Frame::OpenResult(OpenResult { stream: 1, outcome: OpenOutcome::NotAllowed, detail: "no".into() })]
    );
    assert_eq!(mux.open_streams(), 0);
}

fn reset_of(stream: u64, error: StreamError, final_size: u64) -> Frame {
    Frame::ResetStream(ResetStream { stream, error, final_size })
}

#[test]
fn what_came_before_the_service_was_reached_is_told_when_it_is() {
    let mut mux = agent();
    hear(&mut mux, [open(0), data(1, 10, true)]).unwrap();
    let StreamEvent::Open { stream: 1, .. } = mux.poll_event().unwrap() else { panic!("an OPEN") };
    assert_eq!(mux.poll_event(), None);
    mux.answer(1, OpenOutcome::Connected, "");
    assert_eq!(mux.poll_event(), Some(StreamEvent::Received(1)));
    assert_eq!(mux.received(1).map(<[u8]>::len).sum::<usize>(), 10);
    assert!(!mux.is_ended(1));
    mux.consumed(1, 10);
    assert!(mux.is_ended(1) && !mux.has_ended_sending(1));
}

/// A local side whose connection broke.
struct Torn;

impl Streams for Torn {
    fn read(&mut self, _: u64, _: &mut Space<'_>, _: usize) -> Read {
        Read::Broken
    }
}

#[test]
fn a_local_side_that_broke_is_told_in_the_record_that_found_it() {
    let mut mux = agent();
    hear(&mut mux, [open(0)]).unwrap();
    mux.answer(1, OpenOutcome::Connected, "");
    written(&mut mux);
    mux.look_again();
    let mut record = RecordWriter::new(MAX_RECORD);
    mux.fill_control(NOW, &mut record);
    mux.fill(&mut record, &mut Torn);
    let mut reader = RecordReader::new(record.finish()).unwrap();
    let told: Vec<Frame> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    let stop = Frame::StopSending(StopSending { stream: 1, error: StreamError::Broken });
    assert_eq!(told, [stop, reset_of(1, StreamError::Broken, 0)], "there may be no other record to tell it in");
}

#[test]
fn a_server_never_promises_more_than_it_has() {
    let takes = TunnelLimits { bytes: 3_500, ..SERVER };
    let mut mux = Mux::opener(takes, AGENT, NOW);
    (0..3).for_each(|_| _ = mux.open(NOW, "gate", "rtsp", "me").expect("a window for each"));
    assert_eq!(mux.open(NOW, "gate", "rtsp", "me"), Err(NotOpened::TooMany));
}

#[test]
fn credit_is_given_back_when_nobody_wants_to_send_and_not_when_nobody_can() {
    struct Endless(bool);
    impl Streams for Endless {
        fn read(&mut self, _: u64, into: &mut Space<'_>, _: usize) -> Read {
            if self.0 { Read::Octets(into.len()) } else { Read::Pending }
        }
    }
    /// What is returned at that second; the transport takes DATA then, or nothing but what is urgent.
    fn returned(mux: &mut Mux, second: u64, takes: Option<bool>) -> Option<u64> {
        let mut record = RecordWriter::new(MAX_RECORD);
        mux.fill_control(NOW + Duration::from_secs(second), &mut record);
        if let Some(is_there) = takes {
            mux.look_again();
            mux.fill(&mut record, &mut Endless(is_there));
        }
        let mut reader = RecordReader::new(record.finish()).unwrap();
        std::iter::from_fn(|| reader.next_frame().unwrap()).find_map(|frame| match frame {
            Frame::ReturnStreamData(back) => Some(back.octets),
            _ => None,
        })
    }
    let mut mux = server(1);
    let more = Frame::MaxStreamData(MaxStreamData { stream: 1, limit: 1 << 20 });
    hear(&mut mux, [result(1, OpenOutcome::Connected), Frame::MaxData(MaxData { limit: 1 << 20 }), more]).unwrap();
    assert_eq!(returned(&mut mux, 0, Some(true)), None);
    let sent = (0..60).filter_map(|second| returned(&mut mux, second, None)).sum::<u64>();
    assert_eq!(sent, 0, "it wants to go on as soon as it can");
    assert_eq!(returned(&mut mux, 60, Some(false)), None);
    // It has sent less than a record.
    let unused = returned(&mut mux, 61, None).expect("it had nothing to say");
    let kept = (1 << 20) - unused - AGENT.stream_bytes;
    assert!((1..=MAX_RECORD as u64).contains(&kept), "{kept} were sent");
    assert!((62..90).all(|second| returned(&mut mux, second, Some(false)).is_none()), "once is enough");
}
