//! The world of one run: a clock that jumps from event to event, a camera, an agent, a link, a server, and what goes wrong with them.
//!
//! Everything follows from the plan; nothing here reads a clock, a file or a socket, and nothing is decided by the order of a hash map.

use camagent_core::Frame;
use camagent_proto::{mux::NoStreams, session::AgentEvent, time::Duration};

use crate::{
    agent::AgentHost,
    camera,
    card::Card,
    chance::Chance,
    link::{Heard, Pipe},
    log::{Event, Log},
    plan::{Fault, Plan},
    planted::Bug,
    server::{After, Member, ServerHost},
    store::Store,
};

/// The ends get so long to come to rest when nothing goes wrong any more.
const REST_WITHIN: u64 = 1_200_000_000;
/// And so long is looked on when they have, for what still wanders about.
const AFTERMATH: u64 = 40_000_000;
/// Somebody who waits for room in a link looks again after this time.
const LOOK_AGAIN: u64 = 20_000;
/// Octets a second of the link to the agent.
const RATE_DOWN: u64 = 1_000_000;

struct Connection {
    number: u32,
    up: Pipe,
    down: Pipe,
    /// The server's end, as long as there is one.
    member: Option<Member>,
    /// Whether the agent still uses it.
    is_used: bool,
}

/// What the encoder of a track does next.
struct Encoder {
    next_us: u64,
    in_group: u64,
    wants_key: bool,
    count: u64,
}

/// One run.
pub struct World<'a> {
    plan: &'a Plan,
    bug: Option<Bug>,
    now: u64,
    log: Log,
    /// Decides what no plan says, such as how long somebody waits.
    chance: Chance,
    encoders: Vec<Encoder>,
    camera_clock_us: i64,
    rate: u64,
    agent: Option<AgentHost>,
    boots: u32,
    agent_back_us: u64,
    dial_us: u64,
    away_until: u64,
    server: Option<ServerHost>,
    processes: u32,
    server_back_us: u64,
    server_clock_us: i64,
    store: Store,
    card: Card,
    disk: Card,
    /// When the card, and the server's disk, are well again.
    card_well_us: Option<u64>,
    disk_well_us: Option<u64>,
    connections: Vec<Connection>,
    dialled: u32,
    has_lost_store: bool,
    faults: usize,
    data: Vec<u8>,
}

/// Runs a plan, with a bug planted or without; the log of it.
pub fn run(plan: &Plan, bug: Option<Bug>) -> Log {
    let encoders = plan.tracks.iter().map(|_| Encoder { next_us: 0, in_group: 0, wants_key: true, count: 0 });
    let (card, disk) = (Card::new(plan.seed ^ 0xca4d), Card::new(plan.seed ^ 0xd15c));
    card.plant(bug == Some(Bug::CardSyncDoesNothing));
    disk.plant(bug == Some(Bug::SyncDoesNothing));
    let world = World {
        store: Store::new(plan.records.then(|| disk.clone())),
        card,
        disk,
        card_well_us: None,
        disk_well_us: None,
        bug,
        now: 0,
        log: Log::default(),
        chance: Chance::new(plan.seed ^ 0x5eed),
        encoders: encoders.collect(),
        camera_clock_us: plan.camera_clock_us,
        rate: plan.rate,
        agent: None,
        boots: 0,
        agent_back_us: 0,
        dial_us: 0,
        away_until: 0,
        server: None,
        processes: 0,
        server_back_us: 0,
        server_clock_us: 0,
        connections: Vec::new(),
        dialled: 0,
        has_lost_store: false,
        faults: 0,
        data: Vec::new(),
        plan,
    };
    world.go()
}

impl World<'_> {
    fn go(mut self) -> Log {
        let mut rest_us = None;
        let deadline = self.plan.length_us + REST_WITHIN;
        loop {
            self.turn();
            if rest_us.is_none() && self.is_at_rest() {
                self.log.note(self.now, Event::Settled);
                rest_us = Some(self.now + AFTERMATH);
            }
            let last = rest_us.unwrap_or(deadline);
            match self.next_due() {
                Some(at) if at < last => self.now = at.max(self.now + 1),
                _ => break,
            }
        }
        if rest_us.is_none() {
            self.note_unrest();
            self.log.note(self.now, Event::NotSettled);
        }
        self.store.list(self.now, &mut self.log);
        self.log
    }

    fn is_at_rest(&mut self) -> bool {
        let is_healed = self.card_well_us.is_none() && self.disk_well_us.is_none();
        if self.now < self.plan.length_us || self.server.is_none() || !is_healed {
            return false;
        }
        let Some(agent) = &mut self.agent else { return false };
        let (session, mut journal) = agent.parts(self.now, None, &mut self.log);
        let is_settled = session.is_established() && session.is_settled(&mut journal);
        is_settled && agent.is_card_empty() && self.store.is_idle()
    }

    /// Writes down who has something left to do.
    fn note_unrest(&mut self) {
        if !self.store.is_idle() {
            self.log.note(self.now, Event::Fault("the server waits for something to store"));
        }
        let Some(agent) = &mut self.agent else { return };
        if !agent.is_card_empty() {
            self.log.note(self.now, Event::Fault("the agent's card holds something for the server"));
        }
        let (session, mut journal) = agent.parts(self.now, None, &mut self.log);
        if !session.is_established() || !session.is_settled(&mut journal) {
            self.log.note(self.now, Event::Fault("the agent has something to send, or no session"));
        }
    }

    /// Everything that is due now.
    fn turn(&mut self) {
        while let Some(&(at, fault)) = self.plan.faults.get(self.faults)
            && at <= self.now
        {
            self.faults += 1;
            self.apply(fault);
        }
        if self.card_well_us.take_if(|at| *at <= self.now).is_some() {
            self.card.set_away(false);
            self.card.set_read_only(false);
            self.card.set_capacity(u64::MAX);
            self.log.note(self.now, Event::CardWell(true));
        }
        if self.disk_well_us.take_if(|at| *at <= self.now).is_some() {
            self.disk.set_capacity(u64::MAX);
            self.log.note(self.now, Event::Fault("the server's disk has room again"));
        }
        if self.server.is_none() && self.server_back_us <= self.now {
            self.start_server();
        }
        if self.agent.is_none() && self.agent_back_us <= self.now {
            self.boots += 1;
            self.agent = Some(AgentHost::start(self.plan, self.boots, &self.card, self.now, &mut self.log));
            self.dial_us = self.now + self.chance.below(200_000);
            self.encoders.iter_mut().for_each(|encoder| encoder.wants_key = true);
        }
        for track in 0..self.encoders.len() {
            // What refers to pictures that only the lost store had waits for a key frame, also of a camera that has pushed all it had to.
            let is_asked = self.has_lost_store && self.encoders[track].wants_key && self.now > self.plan.length_us;
            if is_asked && self.plan.tracks[track].is_video {
                self.encode(track);
            }
            while self.encoders[track].next_us <= self.now.min(self.plan.length_us) {
                self.encode(track);
            }
        }
        self.disk_turns();
        self.dial();
        while self.exchange() {}
        if self.store.is_dead() {
            self.server_power(self.now + 200_000);
        }
        if self.card.is_dead() {
            self.agent_power(self.now + 200_000);
        }
        self.connections.retain(|connection| connection.is_used || connection.member.is_some());
    }

    fn start_server(&mut self) {
        self.processes += 1;
        let mut server = ServerHost::start(self.processes, self.now, &mut self.log);
        server.utc_offset_us += self.server_clock_us;
        let utc_us = server.utc_us(self.now);
        self.server = Some(server);
        if !self.store.open(self.processes, utc_us, self.now, &mut self.log) {
            // Its disk is full, or died again: it ends, and is tried again.
            match self.store.is_dead() {
                true => self.server_power(self.now + 500_000),
                false => self.kill_server(self.now + 500_000),
            }
        }
    }

    /// What the disk threads of both ends have to do.
    fn disk_turns(&mut self) {
        if let Some(agent) = self.agent.as_mut().filter(|agent| agent.disk_due_us.is_some_and(|at| at <= self.now)) {
            agent.disk_turn(self.now);
        }
        if let Some(server) = &self.server {
            if self.store.due().is_some_and(|at| at <= self.now) {
                self.store.turn(self.now, &mut self.log);
            }
            if std::mem::take(&mut self.store.has_news) {
                let now = server.clock(self.now);
                let members = self.connections.iter_mut().filter_map(|connection| connection.member.as_mut());
                members.for_each(|member| member.tell(now, &self.store));
            }
            if std::mem::take(&mut self.store.wants_again) {
                self.log.note(self.now, Event::Fault("the server wants again what it could not store"));
                self.connections
                    .iter_mut()
                    .filter_map(|connection| connection.member.as_mut())
                    .for_each(Member::ask_again);
            }
        }
    }

    fn agent_power(&mut self, back_us: u64) {
        self.card.cut_power();
        let Some(agent) = self.agent.take() else { return };
        self.log.note(self.now, Event::AgentPowerCut { boot: agent.boot });
        self.agent_gone(back_us, None);
    }

    /// The agent runs no more. Its connection ends, or the server has to find out.
    fn agent_gone(&mut self, back_us: u64, server_sees: Option<u64>) {
        self.agent = None;
        self.agent_back_us = back_us.max(self.agent_back_us);
        let keep = self.chance.below(257);
        for connection in self.connections.iter_mut().filter(|connection| connection.is_used) {
            connection.is_used = false;
            connection.up.cut(self.now, keep, server_sees);
        }
    }

    fn server_power(&mut self, back_us: u64) {
        self.store.close();
        self.disk.cut_power();
        let Some(server) = self.server.take() else { return };
        self.log.note(self.now, Event::ServerPowerCut { process: server.process });
        self.server_gone(back_us, None);
    }

    fn server_gone(&mut self, back_us: u64, agent_sees: Option<u64>) {
        self.server_back_us = back_us.max(self.server_back_us);
        for connection in self.connections.iter_mut().filter(|connection| connection.member.is_some()) {
            connection.member = None;
            let keep = self.chance.below(257);
            connection.down.cut(self.now, keep, agent_sees);
        }
    }

    fn encode(&mut self, track: usize) {
        let plan = &self.plan.tracks[track];
        let encoder = &mut self.encoders[track];
        let jitter = self.chance.below(plan.every_us / 4 + 1);
        encoder.next_us += plan.every_us * 7 / 8 + jitter;
        let Some(agent) = &mut self.agent else {
            encoder.in_group = 0;
            return;
        };
        encoder.count += 1;
        let key = plan.is_video && (encoder.wants_key || encoder.in_group >= plan.group);
        if key {
            (encoder.in_group, encoder.wants_key) = (0, false);
        }
        encoder.in_group += 1;
        let octets = plan.octets * if key { plan.key_factor } else { 1 };
        let octets = self.chance.between(octets / 2 + 1, octets + octets / 2 + 1) as usize;
        let salt = (track as u64) << 48 | encoder.count;
        match plan.is_video {
            true => camera::picture(salt, key, octets, &mut self.data),
            false => camera::sound(salt, octets, &mut self.data),
        }
        let pts_us = self.camera_clock_us + self.now as i64;
        let disposable = plan.has_disposable && !key && encoder.count.is_multiple_of(2);
        let frame = Frame { pts_us, dts_us: pts_us, key, disposable, data: &self.data, ..Frame::default() };
        if agent.push(self.now, track as u32, frame, &mut self.log) {
            encoder.wants_key = true;
        }
        for asked in agent.take_key_requests() {
            if let Some(encoder) = self.encoders.get_mut(asked as usize) {
                encoder.wants_key = true;
            }
        }
    }

    fn dial(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if agent.connection.is_some() || self.dial_us > self.now {
            return;
        }
        let is_away = self.away_until > self.now;
        let Some(server) = self.server.as_ref().filter(|_| !is_away) else {
            self.dial_us = self.now + self.chance.between(100_000, 2_000_000);
            return;
        };
        self.dialled += 1;
        let number = self.dialled;
        let (latency, window) = (self.plan.latency_us, self.plan.window);
        let connection = Connection {
            number,
            up: Pipe::new(self.rate, latency, window),
            down: Pipe::new(RATE_DOWN, latency, 64 << 10),
            member: Some(server.admit(self.now, number)),
            is_used: true,
        };
        self.log.note(self.now, Event::Connected { connection: number });
        let now = agent.clock(self.now);
        agent.session.connected(now, now + Duration::from_secs(30));
        agent.connection = Some(number);
        self.connections.push(connection);
    }

    /// Moves what can be moved; whether there was something.
    fn exchange(&mut self) -> bool {
        let mut is_busy = false;
        for index in 0..self.connections.len() {
            is_busy |= self.server_turn(index);
            is_busy |= self.agent_turn(index);
        }
        is_busy
    }

    fn server_turn(&mut self, index: usize) -> bool {
        let mut is_busy = false;
        let mut after = After::Well;
        let connection = &mut self.connections[index];
        if let (Some(server), Some(member)) = (&mut self.server, &mut connection.member) {
            let now = server.clock(self.now);
            if member.session.poll_timeout().is_some_and(|at| at <= now) {
                member.session.handle_timeout(now);
            }
            let mut is_over = false;
            while let Some(heard) = connection.up.read(self.now) {
                is_busy = true;
                is_over |= matches!(heard, Heard::Close | Heard::End);
                after = server.hear(self.now, member, heard, &mut self.store, self.bug, &mut self.log);
                if after != After::Well {
                    break;
                }
            }
            while after != After::Killed
                && !is_over
                && connection.down.takes()
                && let Some(transmit) = member.transmit(now, self.now, &mut self.log)
            {
                is_busy = true;
                is_over = matches!(transmit, camagent_proto::session::Transmit::Close(..));
                connection.down.write(self.now, transmit);
            }
            if is_over {
                connection.down.finish(self.now);
                connection.member = None;
                self.log.note(self.now, Event::Broken { connection: connection.number, why: "the server lets go" });
            }
        }
        match after {
            After::Well => {}
            After::TookOver if self.bug == Some(Bug::NoFencing) => {}
            After::TookOver => {
                let others = self.connections.iter_mut().enumerate().filter(|(other, _)| *other != index);
                others.filter_map(|(_, other)| other.member.as_mut()).for_each(Member::leave);
            }
            After::Killed if self.store.is_dead() => self.server_power(self.now + 300_000),
            After::Killed => self.kill_server(self.now + 300_000),
        }
        is_busy
    }

    fn agent_turn(&mut self, index: usize) -> bool {
        let connection = &mut self.connections[index];
        let Some(agent) = self.agent.as_mut().filter(|_| connection.is_used) else { return false };
        let mut is_busy = false;
        let mut over = None;
        let (bug, now_us) = (self.bug, self.now);
        let now = agent.clock(now_us);
        let boot = agent.boot;
        if agent.session.poll_timeout().is_some_and(|at| at <= now) {
            agent.session.handle_timeout(now);
        }
        while over.is_none()
            && let Some(heard) = connection.down.read(now_us)
        {
            is_busy = true;
            let (session, mut journal) = agent.parts(now_us, bug, &mut self.log);
            match heard {
                Heard::Text(text) => session.handle_text(now, &text, &mut journal),
                Heard::Binary(record) => session.handle_binary(now, record, &mut journal),
                Heard::Close => over = Some("the server closed it"),
                Heard::End => over = Some("it broke"),
            }
        }
        while let Some(event) = agent.session.poll_event() {
            match event {
                AgentEvent::Registered(registered) => {
                    self.log.note(now_us, Event::Session { boot });
                    agent.welcomed(now_us, registered.server_time_ms);
                }
                AgentEvent::KeyFrameNeeded(track) => {
                    if let Some(encoder) = self.encoders.get_mut(track as usize) {
                        encoder.wants_key = true;
                    }
                }
                AgentEvent::Failed(_) => over = over.or(Some("the agent gives it up")),
                _ => {}
            }
        }
        while connection.up.takes()
            && over != Some("it broke")
            && let Some(transmit) = {
                let (session, mut journal) = agent.parts(now_us, bug, &mut self.log);
                session.poll_transmit(now, &mut journal, &mut NoStreams, usize::MAX)
            }
        {
            is_busy = true;
            connection.up.write(now_us, transmit);
        }
        if let Some(why) = over {
            agent.left(now_us);
            connection.is_used = false;
            self.log.note(now_us, Event::SessionOver { boot });
            connection.up.finish(now_us);
            self.log.note(now_us, Event::Broken { connection: connection.number, why });
            self.dial_us = now_us + self.chance.about(10_000, 2_000_000);
        }
        is_busy
    }

    fn next_due(&self) -> Option<u64> {
        let mut next = self.plan.faults.get(self.faults).map(|(at, _)| *at);
        let mut add = |at: u64| next = Some(next.map_or(at, |next: u64| next.min(at)));
        match self.server {
            None => add(self.server_back_us),
            Some(_) => self.store.due().into_iter().for_each(&mut add),
        }
        self.card_well_us.into_iter().chain(self.disk_well_us).for_each(&mut add);
        match &self.agent {
            None => add(self.agent_back_us),
            Some(agent) => {
                agent.due().into_iter().chain(agent.disk_due_us).for_each(&mut add);
                if agent.connection.is_none() {
                    add(self.dial_us);
                }
            }
        }
        for encoder in &self.encoders {
            if encoder.next_us <= self.plan.length_us {
                add(encoder.next_us);
            }
        }
        for connection in &self.connections {
            if let (Some(server), Some(member)) = (&self.server, &connection.member) {
                connection.up.due().into_iter().for_each(&mut add);
                if let Some(at) = member.session.poll_timeout() {
                    // Who waits for room looks again by and by.
                    let least = if connection.down.takes() { 0 } else { self.now + LOOK_AGAIN };
                    add(server.world(at).max(least));
                }
            }
            if connection.is_used && self.agent.is_some() {
                connection.down.due().into_iter().for_each(&mut add);
            }
        }
        next
    }

    fn apply(&mut self, fault: Fault) {
        self.log.note(self.now, Event::Fault(fault.name()));
        match fault {
            Fault::Cut(up, down) => self.cut(up, down, Some(0), Some(0)),
            Fault::HalfCut(up, down) => self.cut(up, down, None, Some(0)),
            Fault::BlackHole => self.cut(256, 256, None, None),
            Fault::Away(for_us) => {
                self.away_until = self.now + for_us;
                self.cut(256, 0, None, Some(for_us.min(3_000_000)));
            }
            Fault::AgentPower(for_us) => self.agent_power(self.now + for_us),
            Fault::AgentPowerIn(calls, for_us) => {
                if self.agent.is_some() && self.plan.card.is_some() {
                    self.card.die_in(calls);
                    self.agent_back_us = self.now + for_us;
                }
            }
            Fault::AgentKill(for_us) => {
                let Some(agent) = self.agent.take() else { return };
                self.log.note(self.now, Event::AgentKilled { boot: agent.boot });
                self.card.revive();
                self.agent_gone(self.now + for_us, Some(10_000));
            }
            Fault::AgentStop(for_us) => {
                let Some(mut agent) = self.agent.take() else { return };
                agent.left(self.now);
                agent.stop(self.now);
                if self.card.is_dead() {
                    self.agent = Some(agent);
                    return self.agent_power(self.now + for_us);
                }
                self.log.note(self.now, Event::AgentStopped { boot: agent.boot });
                self.agent_gone(self.now + for_us, Some(10_000));
            }
            Fault::CardAway(for_us) => self.card_fails(for_us, |card| card.set_away(true)),
            Fault::CardReadOnly(for_us) => self.card_fails(for_us, |card| card.set_read_only(true)),
            Fault::CardFull(for_us) => {
                self.card_fails(for_us, |card| card.set_capacity(card.used()));
                if self.plan.card.is_some() {
                    self.log.note(self.now, Event::CardFull);
                }
            }
            Fault::ServerPower(for_us) => self.server_power(self.now + for_us),
            Fault::ServerPowerIn(calls, for_us) => {
                if self.server.is_some() && self.plan.records {
                    self.disk.die_in(calls);
                    self.server_back_us = self.now + for_us;
                }
            }
            Fault::StoreLost(for_us) => {
                self.kill_server(self.now + for_us);
                self.disk.wipe();
                self.has_lost_store = true;
                self.log.note(self.now, Event::StoreLost);
            }
            Fault::ServerFull(for_us) => {
                self.disk.set_capacity(self.disk.used());
                self.disk_well_us = Some(self.now + for_us);
            }
            Fault::Restart => {
                if let Some(agent) = &mut self.agent {
                    agent.restart();
                }
            }
            Fault::ServerKill(for_us) => self.kill_server(self.now + for_us),
            Fault::ServerKillBetween(frames, for_us) => {
                if let Some(server) = &mut self.server {
                    server.killed_behind = Some(frames);
                    self.server_back_us = self.now + for_us;
                }
            }
            Fault::CameraClock(step_us) => self.camera_clock_us += step_us,
            Fault::ServerClock(step_us) => {
                self.server_clock_us += step_us;
                if let Some(server) = &mut self.server {
                    server.utc_offset_us += step_us;
                }
            }
            Fault::Slow(times) => self.rate = (self.rate / times).max(2_000),
        }
    }

    fn cut(&mut self, up: u64, down: u64, server_sees: Option<u64>, agent_sees: Option<u64>) {
        let number = self.agent.as_ref().and_then(|agent| agent.connection);
        for connection in self.connections.iter_mut().filter(|connection| Some(connection.number) == number) {
            connection.up.cut(self.now, up, server_sees);
            connection.down.cut(self.now, down, agent_sees);
        }
    }

    fn kill_server(&mut self, back_us: u64) {
        let Some(server) = self.server.take() else { return };
        self.log.note(self.now, Event::ServerKilled { process: server.process });
        self.store.close();
        self.disk.revive();
        self.server_gone(back_us, Some(10_000));
    }

    fn card_fails(&mut self, for_us: u64, how: impl FnOnce(&Card)) {
        if self.plan.card.is_some() {
            how(&self.card);
            self.log.note(self.now, Event::CardWell(false));
            self.card_well_us = Some(self.card_well_us.map_or(0, |at| at).max(self.now + for_us));
        }
    }
}
