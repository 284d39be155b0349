//! A link as a value: two [`Pipe`]s and the network's side between them and the far end, with a script of changes. Packets
//! and time go in, packets and the next deadline come out; the driver owns devices and the clock.
//!
//! ```text
//! camera - queue, rate, delay, loss (up) ->- network's side ->- far
//! camera -<- queue, rate, delay, loss (down) - network's side -<- far
//! ```
//! At the network's side packets are swallowed, connections are reset, and the camera's address becomes its outside one.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::change::{Change, Setting};
use super::counters::Counters;
use super::flows::{Fate, Flow, Flows, Table, Way};
use super::packet;
use super::pipe::{Path, Pipe};

/// The camera's own address, private (RFC 1918).
pub const NEAR: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 108);
/// The far end's address (RFC 5737); all of 203.0.113.0/24 leads there.
pub const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// The camera's `number`th address outside: 198.51.100.1 (RFC 5737), then the next, in a circle.
pub fn outside(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number % 254 + 1)
}

/// What a link is made of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// From the camera.
    pub up: Path,
    /// To the camera.
    pub down: Path,
    /// The same seed, the same losses, as far as the same packets come.
    pub seed: u64,
    /// Changes, each at its time since the link's beginning.
    pub script: Vec<(Duration, Change)>,
}

impl Setup {
    /// A profile's paths.
    pub fn profile(name: &str) -> Result<Self, String> {
        let super::Profile { up, down, .. } = super::Profile::named(name)?;
        Ok(Self { up, down, ..Self::default() })
    }

    /// Changes a property of one way, or of both.
    pub fn set(&mut self, way: Option<Way>, setting: Setting) {
        if way != Some(Way::Down) {
            setting.apply(&mut self.up);
        }
        if way != Some(Way::Up) {
            setting.apply(&mut self.down);
        }
    }
}

/// The value.
#[derive(Debug)]
pub struct Emulator {
    up: Pipe,
    down: Pipe,
    table: Table,
    /// How often the address changed.
    moves: u8,
    script: VecDeque<(Duration, Change)>,
    out: VecDeque<(Way, Vec<u8>)>,
}

impl Emulator {
    /// A link at time zero.
    pub fn new(setup: Setup) -> Self {
        let Setup { up, down, seed, mut script } = setup;
        script.sort_by_key(|(at, _)| *at);
        Self {
            up: Pipe::new(up, seed),
            down: Pipe::new(down, seed ^ 0x5851_f42d_4c95_7f2d),
            table: Table::new(outside(0)),
            moves: 0,
            script: script.into(),
            out: VecDeque::new(),
        }
    }

    /// An end sends a packet: [`Way::Up`] is from the camera. Times never go back.
    pub fn handle_packet(&mut self, way: Way, packet: &[u8], now: Duration) {
        self.handle_timeout(now);
        let pipe = match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        };
        pipe.counters.packets_in += 1;
        pipe.counters.octets_in += packet.len() as u64;
        match way {
            Way::Up => self.up.push(packet.to_vec(), now),
            Way::Down => self.enter(packet.to_vec(), now),
        }
        self.handle_timeout(now);
    }

    /// Time has passed: the script and both ways are carried on to `now`, each event at its own time.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(at) = self.deadline().filter(|at| *at <= now) {
            if self.script.front().is_some_and(|(due, _)| *due <= at) {
                if let Some((due, change)) = self.script.pop_front() {
                    self.apply(change, due);
                }
                continue;
            }
            while let Some((at, packet)) = self.up.pop(at) {
                self.leave(packet, at);
            }
            while let Some((_, packet)) = self.down.pop(at) {
                self.deliver(Way::Down, packet);
            }
        }
    }

    /// The next packet that arrives: [`Way::Down`] at the camera.
    pub fn poll_transmit(&mut self) -> Option<(Way, Vec<u8>)> {
        self.out.pop_front()
    }

    /// When to call [`Self::handle_timeout`], though nothing comes.
    pub fn deadline(&self) -> Option<Duration> {
        let script = self.script.front().map(|(at, _)| *at);
        [script, self.up.deadline(), self.down.deadline()].into_iter().flatten().min()
    }

    /// Changes the link now.
    pub fn change(&mut self, change: Change, now: Duration) {
        self.handle_timeout(now);
        self.apply(change, now);
    }

    /// The address that the far end sees of the camera's new connections.
    pub fn outside(&self) -> Ipv4Addr {
        self.table.outside()
    }

    /// What went through so far.
    pub fn counters(&self, now: Duration) -> Counters {
        Counters { up: self.up.counters.clone(), down: self.down.counters.clone(), elapsed: now }
    }

    fn apply(&mut self, change: Change, now: Duration) {
        match change {
            Change::Set(way, setting) => {
                for (pipe, own) in [(&mut self.up, Way::Up), (&mut self.down, Way::Down)] {
                    if way.is_none_or(|way| way == own) {
                        let mut path = pipe.path().clone();
                        setting.apply(&mut path);
                        pipe.set_path(path, now);
                    }
                }
            }
            Change::BlackHole(flows) => self.table.swallow(flows, now),
            Change::Heal => self.table.heal(),
            Change::Reset(flows) => self.reset(flows, now),
            Change::Address(existing) => {
                self.moves = self.moves.wrapping_add(1);
                self.table.move_to(outside(self.moves), existing);
            }
        }
    }

    /// A packet from the camera has reached the network's side.
    fn leave(&mut self, mut packet: Vec<u8>, now: Duration) {
        let Some(headers) = packet::read(&packet).filter(|headers| *headers.source.ip() == NEAR) else {
            self.up.counters.dropped.other += 1;
            return;
        };
        let flow = Flow { protocol: headers.protocol, near: headers.source, far: headers.destination };
        let dropped = &mut self.up.counters.dropped;
        match self.table.pass(Way::Up, flow, None, headers.tcp, now) {
            Fate::Carried { outside } => {
                packet::set_source(&mut packet, outside);
                self.deliver(Way::Up, packet);
            }
            Fate::Swallowed => dropped.black_hole += 1,
            Fate::Unknown => dropped.address += 1,
            Fate::Reset => {
                dropped.reset += 1;
                self.answer(Way::Down, &headers, now);
            }
        }
    }

    /// A packet from the far end is at the network's side.
    fn enter(&mut self, mut packet: Vec<u8>, now: Duration) {
        let Some(headers) = packet::read(&packet) else {
            self.down.counters.dropped.other += 1;
            return;
        };
        let near = SocketAddrV4::new(NEAR, headers.destination.port());
        let flow = Flow { protocol: headers.protocol, near, far: headers.source };
        let dropped = &mut self.down.counters.dropped;
        match self.table.pass(Way::Down, flow, Some(*headers.destination.ip()), headers.tcp, now) {
            Fate::Carried { .. } => {
                packet::set_destination(&mut packet, NEAR);
                self.down.push(packet, now);
            }
            Fate::Swallowed => dropped.black_hole += 1,
            Fate::Unknown => dropped.address += 1,
            Fate::Reset => {
                dropped.reset += 1;
                self.answer(Way::Up, &headers, now);
            }
        }
    }

    /// Tells the sender of a segment that there is no such connection (RFC 9293, 3.10.7.1).
    fn answer(&mut self, way: Way, headers: &packet::Headers, now: Duration) {
        let Some(segment) = headers.tcp.filter(|segment| !segment.rst) else { return };
        let (sequence, acknowledgement) = match segment.acknowledgement {
            Some(acknowledged) => (acknowledged, None),
            None => (0, Some(segment.end)),
        };
        let reset = packet::forge_reset(headers.destination, headers.source, sequence, acknowledgement);
        self.inject(way, reset, now);
    }

    fn reset(&mut self, flows: Flows, now: Duration) {
        for broken in self.table.reset(flows) {
            let Flow { near, far, .. } = broken.flow;
            if let Some(sequence) = broken.down {
                self.inject(Way::Down, packet::forge_reset(far, near, sequence, broken.up), now);
            }
            if let Some(sequence) = broken.up {
                let near = SocketAddrV4::new(broken.outside, near.port());
                self.inject(Way::Up, packet::forge_reset(near, far, sequence, broken.down), now);
            }
        }
    }

    /// A forged packet leaves the network's side; to the camera it goes the way of all packets.
    fn inject(&mut self, way: Way, packet: Vec<u8>, now: Duration) {
        match way {
            Way::Up => {
                self.up.counters.resets += 1;
                self.out.push_back((Way::Up, packet));
            }
            Way::Down => {
                self.down.counters.resets += 1;
                self.down.push(packet, now);
            }
        }
    }

    fn deliver(&mut self, way: Way, packet: Vec<u8>) {
        let counters = match way {
            Way::Up => &mut self.up.counters,
            Way::Down => &mut self.down.counters,
        };
        counters.packets += 1;
        counters.octets += packet.len() as u64;
        self.out.push_back((way, packet));
    }
}

#[cfg(test)]
mod tests {
    use super::super::flows::Existing;
    use super::super::packet::samples;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const CAMERA: SocketAddrV4 = SocketAddrV4::new(NEAR, 40_000);
    const SERVER: SocketAddrV4 = SocketAddrV4::new(FAR, 443);

    fn outside_of(camera: SocketAddrV4, number: u8) -> SocketAddrV4 {
        SocketAddrV4::new(outside(number), camera.port())
    }

    /// Everything that arrives until `now`.
    fn arrived(link: &mut Emulator, now: Duration) -> Vec<(Way, packet::Headers)> {
        link.handle_timeout(now);
        let out: Vec<_> = std::iter::from_fn(|| link.poll_transmit()).collect();
        out.iter().for_each(|(_, packet)| assert!(samples::is_intact(packet)));
        out.iter().map(|(way, packet)| (*way, packet::read(packet).unwrap())).collect()
    }

    /// A connection after its handshake: the camera at 1001, the server at 2001.
    fn connected(setup: Setup) -> Emulator {
        let mut link = Emulator::new(setup);
        let public = outside_of(CAMERA, 0);
        link.handle_packet(Way::Up, &samples::tcp(CAMERA, SERVER, 1_000, 0, "S", 0), Duration::ZERO);
        link.handle_timeout(1_000 * MS);
        link.handle_packet(Way::Down, &samples::tcp(SERVER, public, 2_000, 1_001, "SA", 0), 1_000 * MS);
        link.handle_timeout(2_000 * MS);
        link.handle_packet(Way::Up, &samples::tcp(CAMERA, SERVER, 1_001, 2_001, "A", 0), 2_000 * MS);
        assert_eq!(arrived(&mut link, 3_000 * MS).len(), 3);
        link
    }

    #[test]
    fn the_far_end_sees_the_outside_address() {
        let mut link = Emulator::new(Setup::default());
        link.handle_packet(Way::Up, &samples::udp(CAMERA, SERVER, 100), MS);
        let out = arrived(&mut link, MS);
        assert_eq!((out[0].0, out[0].1.source), (Way::Up, outside_of(CAMERA, 0)));
        link.handle_packet(Way::Down, &samples::udp(SERVER, outside_of(CAMERA, 0), 100), MS);
        assert_eq!(arrived(&mut link, MS)[0].1.destination, CAMERA);
        link.handle_packet(Way::Down, &samples::udp(SERVER, outside_of(CAMERA, 7), 100), MS);
        link.handle_packet(Way::Up, &[0x60; 48], MS);
        assert!(arrived(&mut link, MS).is_empty());
        let counters = link.counters(MS);
        assert_eq!((counters.down.dropped.address, counters.up.dropped.other), (1, 1));
    }

    #[test]
    fn a_reset_reaches_both_ends_at_the_numbers_that_they_wait_for() {
        let mut setup = Setup::default();
        setup.down.delay = 20 * MS;
        let mut link = connected(setup);
        let data = samples::tcp(CAMERA, SERVER, 1_001, 2_001, "A", 100);
        link.handle_packet(Way::Up, &data, 3_000 * MS);
        arrived(&mut link, 3_000 * MS);
        link.change(Change::Reset(Flows::Known), 3_001 * MS);
        let out = arrived(&mut link, 3_100 * MS);
        let told: Vec<_> = out.iter().map(|(way, headers)| (*way, headers.tcp.unwrap())).collect();
        assert!(told.iter().all(|(_, segment)| segment.rst));
        assert_eq!((told[0].0, told[0].1.sequence), (Way::Up, 1_101));
        assert_eq!((told[1].0, told[1].1.sequence), (Way::Down, 2_001));
        assert_eq!(out[0].1.source, outside_of(CAMERA, 0));
        // Whoever did not hear it is told again, at the number that it names.
        link.handle_packet(Way::Up, &samples::tcp(CAMERA, SERVER, 1_101, 2_777, "A", 0), 3_200 * MS);
        let out = arrived(&mut link, 3_300 * MS);
        assert_eq!((out.len(), out[0].0, out[0].1.tcp.unwrap().sequence), (1, Way::Down, 2_777));
        assert_eq!(link.counters(MS).up.dropped.reset, 1);
    }

    #[test]
    fn the_script_runs_at_its_times_however_late_it_is_asked() {
        let mut setup = Setup { seed: 3, ..Setup::default() };
        setup.up.rate = Some(1_000_000);
        setup.script = vec![
            (40 * MS, Change::read("rate-up=2M").unwrap()),
            (8 * MS, Change::read("black-hole=all").unwrap()),
            (24 * MS, Change::Heal),
        ];
        let mut link = Emulator::new(setup);
        // 1000 octets each: 8 ms, from 40 ms on 4 ms. They leave at 8, 16, 24, 32, 40, 44 ms.
        (0..6).for_each(|_| link.handle_packet(Way::Up, &samples::udp(CAMERA, SERVER, 1_000), Duration::ZERO));
        assert_eq!(link.deadline(), Some(8 * MS));
        assert_eq!(arrived(&mut link, 43 * MS).len(), 3, "those of 24, 32 and 40 ms");
        assert_eq!(arrived(&mut link, 44 * MS).len(), 1);
        assert_eq!(link.counters(MS).up.dropped.black_hole, 2);
        assert_eq!(link.deadline(), None);
    }

    #[test]
    fn an_address_goes_and_the_next_one_works() {
        for existing in [Existing::Lost, Existing::Renumbered] {
            let mut link = connected(Setup::default());
            link.change(Change::Address(existing), 4_000 * MS);
            assert_eq!(link.outside(), outside(1));
            link.handle_packet(Way::Up, &samples::tcp(CAMERA, SERVER, 1_001, 2_001, "A", 9), 4_000 * MS);
            link.handle_packet(
                Way::Down,
                &samples::tcp(SERVER, outside_of(CAMERA, 0), 2_001, 1_001, "A", 9),
                4_000 * MS,
            );
            let out = arrived(&mut link, 4_000 * MS);
            match existing {
                Existing::Lost => assert!(out.is_empty()),
                Existing::Renumbered => {
                    assert_eq!((out.len(), out[0].1.source), (1, outside_of(CAMERA, 1)));
                }
            }
            let other = SocketAddrV4::new(NEAR, 40_001);
            link.handle_packet(Way::Up, &samples::tcp(other, SERVER, 1, 0, "S", 0), 4_000 * MS);
            assert_eq!(arrived(&mut link, 4_000 * MS)[0].1.source, outside_of(other, 1));
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let run = |seed| {
            let mut setup = Setup::profile("wifi-bad").unwrap();
            setup.seed = seed;
            let mut link = Emulator::new(setup);
            let mut names = Vec::new();
            for name in 0..2_000u16 {
                let from = SocketAddrV4::new(NEAR, name);
                link.handle_packet(Way::Up, &samples::udp(from, SERVER, 500), MS * u32::from(name));
                names.extend(arrived(&mut link, MS * u32::from(name)).iter().map(|(_, headers)| headers.source.port()));
            }
            names
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
