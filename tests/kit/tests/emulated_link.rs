//! The emulated link does what it says, measured with the kernel's own TCP and UDP through its namespaces. Bounds have room
//! for a busy machine: a deadline missed once is not a wrong link.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camagent_testkit::emulator::{
    Change, Existing, FAR, Flow, Flows, Loss, NEAR, Path, Setting, Setup, Uplink, Way, be_prompt, outside,
};

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(20);

/// What measures has the processors for itself, as far as this program goes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn link(up: Path, down: Path) -> Option<Uplink> {
    Uplink::of(Setup { up, down, seed: 1, script: Vec::new() })
}

/// A connection over the link: the camera's end and the server's.
fn connect(uplink: &Uplink) -> (TcpStream, TcpStream) {
    let listener = uplink.far.within(|| TcpListener::bind((FAR, 0))).expect("a free port");
    let camera = uplink.dial(listener.local_addr().unwrap().port()).expect("the far end is reached");
    let (server, _) = listener.accept().expect("it came");
    for socket in [&camera, &server] {
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.set_nodelay(true).unwrap();
    }
    (camera, server)
}

/// Both ends of UDP: the camera's, connected, and the server's.
fn datagrams(uplink: &Uplink) -> (UdpSocket, UdpSocket) {
    let server = uplink.far.within(|| UdpSocket::bind((FAR, 0))).unwrap();
    let camera = uplink.near.within(|| UdpSocket::bind((NEAR, 0))).unwrap();
    camera.connect(server.local_addr().unwrap()).unwrap();
    for socket in [&camera, &server] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    (camera, server)
}

/// Round trips of single datagrams, sorted; measured by a thread that a busy machine does not hold up.
fn round_trips(uplink: &Uplink, count: usize) -> Vec<Duration> {
    std::thread::scope(|scope| scope.spawn(|| measure(uplink, count)).join().expect("datagrams arrive"))
}

fn measure(uplink: &Uplink, count: usize) -> Vec<Duration> {
    be_prompt();
    let (camera, server) = datagrams(uplink);
    let mut trips: Vec<Duration> = (0..count)
        .map(|_| {
            let mut octets = [0; 64];
            let sent = Instant::now();
            camera.send(&octets).unwrap();
            let (length, from) = server.recv_from(&mut octets).expect("it comes");
            server.send_to(&octets[..length], from).unwrap();
            camera.recv(&mut octets).expect("it comes back");
            sent.elapsed()
        })
        .collect();
    trips.sort();
    trips
}

fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"ping").unwrap();
    let mut octets = [0; 4];
    to.read_exact(&mut octets).expect("it arrives");
    assert_eq!(&octets, b"ping");
}

fn is_reset(socket: &mut TcpStream) {
    let mut octets = vec![0; 65_536];
    let error = loop {
        match socket.read(&mut octets) {
            Ok(0) => panic!("it ended in order"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn is_silent(socket: &mut TcpStream) {
    socket.set_read_timeout(Some(300 * MS)).unwrap();
    let error = socket.read(&mut [0; 16]).expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "and nobody is told");
    socket.set_read_timeout(Some(SOON)).unwrap();
}

/// What TCP brings up the link, in bits a second of IP packets, from the time on when it is in full swing.
#[allow(clippy::print_stderr, reason = "a measurement shows its number")]
fn measured_rate(rate: u64, warm_up: usize, octets: usize) -> Option<f64> {
    let path = Path { rate: Some(rate), delay: 5 * MS, queue: rate as usize / 8 / 5, ..Path::default() };
    let uplink = link(path.clone(), path)?;
    let (mut camera, mut server) = connect(&uplink);
    let sender = std::thread::spawn(move || {
        camera.write_all(&vec![7; warm_up + octets]).unwrap();
        camera
    });
    let mut read = |mut left: usize| {
        let mut buffer = vec![0; 65_536];
        while left > 0 {
            let most = left.min(buffer.len());
            left -= server.read(&mut buffer[..most]).expect("it comes");
        }
    };
    read(warm_up);
    let begun = Instant::now();
    read(octets);
    // 1448 octets of payload are a packet of 1500 with TCP's timestamps.
    let measured = octets as f64 * 8.0 * 1_500.0 / 1_448.0 / begun.elapsed().as_secs_f64();
    sender.join().unwrap();
    eprintln!("{:.3} Mbit/s of {:.3}: {:.2} %", measured / 1e6, rate as f64 / 1e6, measured / rate as f64 * 100.0);
    Some(measured / rate as f64)
}

#[test]
fn the_rate_is_what_was_asked() {
    let _alone = alone();
    for (rate, warm_up, octets) in [(2_000_000, 50_000, 500_000), (20_000_000, 1_000_000, 5_000_000)] {
        let Some(ratio) = measured_rate(rate, warm_up, octets) else { return };
        assert!((0.95..=1.05).contains(&ratio), "{ratio} of {rate}");
    }
}

#[test]
fn a_hundred_megabits_are_carried() {
    let _alone = alone();
    let Some(ratio) = measured_rate(100_000_000, 10_000_000, 25_000_000) else { return };
    assert!((0.8..=1.05).contains(&ratio), "{ratio}: unoptimised, and the machine may be busy");
}

#[test]
#[allow(clippy::print_stderr, reason = "a measurement shows its number")]
fn the_delay_is_what_was_asked() {
    let _alone = alone();
    let delay = |delay, jitter| Path { delay, jitter, ..Path::default() };
    let Some(uplink) = link(delay(30 * MS, Duration::ZERO), delay(20 * MS, Duration::ZERO)) else { return };
    let trips = round_trips(&uplink, 41);
    eprintln!("50 ms: {:?} {:?} {:?}", trips[0], trips[20], trips[40]);
    // On a busy machine most trips wait for a processor besides.
    assert!(trips[0] >= 50 * MS && trips[10] <= 52 * MS, "{trips:?}");
    let mut shaken = Setup::default();
    shaken.set(None, Setting::Delay(20 * MS));
    shaken.set(None, Setting::Jitter(15 * MS));
    uplink.restart(shaken);
    let trips = round_trips(&uplink, 61);
    eprintln!("40 to 70 ms: {:?} {:?} {:?}", trips[0], trips[30], trips[60]);
    assert!(trips[0] >= 40 * MS && trips[48] <= 72 * MS, "{trips:?}");
    assert!(trips[48] - trips[12] > 5 * MS, "it does shake: {trips:?}");
}

#[test]
#[allow(clippy::print_stderr, reason = "a measurement shows its number")]
fn losses_come_as_often_as_asked_and_are_counted() {
    const COUNT: u64 = 4_000;
    for loss in [Loss::Single(0.03), Loss::bursts(0.03, 4.0)] {
        let Some(uplink) = link(Path { loss, ..Path::default() }, Path::default()) else { return };
        let (camera, server) = datagrams(&uplink);
        let mut arrived = 0;
        // In small groups, each waited for, so that no buffer of a kernel adds losses of its own.
        for group in 1..=COUNT / 20 {
            (0..20).for_each(|_| assert_eq!(camera.send(&[1; 100]).unwrap(), 100));
            let begun = Instant::now();
            let counters = loop {
                let counters = uplink.counters();
                if counters.up.packets_in == group * 20 {
                    break counters;
                }
                assert!(begun.elapsed() < SOON, "the link takes what is sent: {counters:?}");
            };
            while arrived < counters.up.packets {
                server.recv(&mut [0; 128]).expect("what came out arrives");
                arrived += 1;
            }
        }
        let counters = uplink.counters();
        eprintln!("{loss:?}: {} of {COUNT}", counters.up.dropped.loss);
        assert_eq!(arrived + counters.up.dropped.loss, COUNT);
        assert!((60..=180).contains(&counters.up.dropped.loss), "{loss:?}: {counters}");
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a measurement shows its number")]
fn a_saturated_queue_of_a_second_delays_by_a_second() {
    let _alone = alone();
    let Some(uplink) = Uplink::of(Setup::profile("dsl-2m-bloat").unwrap()) else { return };
    let (mut camera, mut server) = connect(&uplink);
    let sender = std::thread::spawn(move || while camera.write_all(&[7; 65_536]).is_ok() {});
    let reader = std::thread::spawn(move || while server.read(&mut [0; 65_536]).is_ok_and(|length| length > 0) {});
    let begun = Instant::now();
    while uplink.counters().up.dropped.queue == 0 {
        assert!(begun.elapsed() < SOON, "cubic fills any queue");
        std::thread::yield_now();
    }
    let trips = round_trips(&uplink, 9);
    let counters = uplink.counters();
    eprintln!("{:?} {:?} {:?}\n{counters}", trips[0], trips[4], trips[8]);
    // Cubic takes back three tenths after a loss, and grows again.
    assert!((600 * MS..1_200 * MS).contains(&trips[4]), "{trips:?}");
    assert!((950 * MS..1_010 * MS).contains(&counters.up.waited.most()), "{counters}");
    assert!(counters.up.queued_most <= 250_000);
    uplink.change(Change::Reset(Flows::Known));
    sender.join().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_reset_ends_connections_at_rest_and_at_full_speed() {
    let path = Path { rate: Some(5_000_000), delay: 20 * MS, loss: Loss::Single(0.02), ..Path::default() };
    let Some(uplink) = link(path.clone(), path) else { return };
    let (mut camera, mut server) = connect(&uplink);
    passes(&mut camera, &mut server);
    let (mut busy, mut sink) = connect(&uplink);
    let source = busy.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let mut source = source;
        while source.write_all(&[7; 65_536]).is_ok() {}
    });
    sink.read_exact(&mut vec![0; 300_000]).expect("it is in full swing");
    uplink.change(Change::Reset(Flows::Known));
    [&mut camera, &mut server, &mut sink].into_iter().for_each(is_reset);
    sender.join().expect("its writing ends");
    // The sender has been told by its write.
    assert!(busy.write_all(&[1]).is_err());
    let counters = uplink.counters();
    assert!(counters.up.resets >= 2 && counters.down.resets >= 2, "{counters}");
    let (mut camera, mut server) = connect(&uplink);
    passes(&mut camera, &mut server);
}

#[test]
fn a_black_hole_swallows_one_connection_and_no_other() {
    let Some(uplink) = link(Path::default(), Path::default()) else { return };
    let (mut camera, mut server) = connect(&uplink);
    let (mut other, mut peer) = connect(&uplink);
    let flow = Flow::tcp(camera.local_addr().unwrap(), camera.peer_addr().unwrap()).unwrap();
    uplink.change(Change::BlackHole(Flows::One(flow)));
    camera.write_all(b"ping").unwrap();
    passes(&mut other, &mut peer);
    passes(&mut peer, &mut other);
    is_silent(&mut server);
    server.write_all(b"pong").unwrap();
    is_silent(&mut camera);
    uplink.change(Change::Heal);
    // The kernels repeat what was swallowed.
    let mut octets = [0; 4];
    server.read_exact(&mut octets).expect("it lives on");
    camera.read_exact(&mut octets).expect("both ways");
    uplink.change(Change::BlackHole(Flows::All));
    other.write_all(b"ping").unwrap();
    is_silent(&mut peer);
    assert!(uplink.counters().up.dropped.black_hole > 1);
}

#[test]
fn an_address_changes() {
    for existing in [Existing::Lost, Existing::Renumbered] {
        let Some(uplink) = link(Path::default(), Path::default()) else { return };
        let (mut camera, mut server) = connect(&uplink);
        passes(&mut camera, &mut server);
        assert_eq!(server.peer_addr().unwrap().ip(), outside(0));
        uplink.change(Change::Address(existing));
        camera.write_all(b"ping").unwrap();
        is_silent(&mut server);
        match existing {
            Existing::Lost => is_silent(&mut camera),
            // The far kernel knows no connection from there.
            Existing::Renumbered => is_reset(&mut camera),
        }
        server.write_all(b"pong").unwrap();
        assert_eq!(uplink.outside(), outside(1));
        let (mut camera, mut server) = connect(&uplink);
        passes(&mut camera, &mut server);
        passes(&mut server, &mut camera);
        assert_eq!(server.peer_addr().unwrap().ip(), outside(1));
        assert!(uplink.counters().down.dropped.address > 0);
    }
}

#[test]
fn a_script_changes_the_link_while_it_runs() {
    let mut setup = Setup::default();
    setup.set(Some(Way::Up), Setting::Rate(Some(0)));
    setup.script = vec![(600 * MS, Change::read("rate-up=none").unwrap())];
    let Some(uplink) = Uplink::of(setup) else { return };
    let trips = round_trips(&uplink, 3);
    assert!(trips[2] > 200 * MS, "the first stood in the queue: {trips:?}");
    assert!(trips[0] < 100 * MS, "the others did not: {trips:?}");
}

#[test]
fn all_of_the_far_block_is_the_far_end_and_cubic_cannot_be_refused() {
    let Some(uplink) = link(Path::default(), Path::default()) else { return };
    let second = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 77), 443));
    let server = uplink.far.within(|| TcpListener::bind(second)).expect("the block is local");
    let camera = uplink.near.within(|| TcpStream::connect_timeout(&second, SOON)).expect("and reached");
    server.accept().expect("it came");
    let reno = b"reno";
    // SAFETY: the kernel reads the four octets, which live for ever.
    let outcome = unsafe {
        libc::setsockopt(camera.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, reno.as_ptr().cast(), 4)
    };
    assert_eq!(outcome, -1, "the route's algorithm is locked");
}
