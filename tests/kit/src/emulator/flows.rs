//! The network's side of the link: which connections there are, where each one's octets stand, and what becomes of it.
//!
//! A connection is known from its first packet on. Its outside address is the one that the camera had then: whoever gets
//! another address keeps or loses its connections by [`Existing`].

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::packet::{Segment, TCP};

/// So many connections are remembered; the one that was silent longest is forgotten.
const MOST: usize = 4_096;

/// The two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the camera.
    Up,
    /// To the camera.
    Down,
}

impl Way {
    /// The other one.
    pub fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// A connection's name: the 5-tuple, as the camera sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// IPv4's number of the protocol: 6 is TCP, 17 UDP.
    pub protocol: u8,
    /// The camera's end, with its own address.
    pub near: SocketAddrV4,
    /// The other end.
    pub far: SocketAddrV4,
}

impl Flow {
    /// A TCP connection by what the camera's socket calls its own address and its peer's. `None` for IPv6.
    pub fn tcp(near: SocketAddr, far: SocketAddr) -> Option<Self> {
        match (near, far) {
            (SocketAddr::V4(near), SocketAddr::V4(far)) => Some(Self { protocol: TCP, near, far }),
            _ => None,
        }
    }
}

/// Some of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// Every one, those to come too.
    All,
    /// Those that are known now. Later ones are not touched.
    Known,
    /// The one that is known longest.
    Oldest,
    /// The one that became known last.
    Newest,
    /// This one.
    One(Flow),
}

/// What becomes of the connections that a camera had under its old address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nobody carries them any more, nobody says so: a mobile network that forgot them.
    Lost,
    /// They leave under the new address: a router that masquerades. The peer knows no such connection and resets it.
    Renumbered,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Carried {
        outside: Ipv4Addr,
    },
    Swallowed,
    /// Its connection was reset, which the sender is told again.
    Reset,
    /// The address leads nowhere.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Swallowed,
    /// Its address is gone; no healing helps.
    Lost,
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mark: Mark,
    outside: Ipv4Addr,
    born: u64,
    used: Duration,
    /// The next sequence number that the far end expects, and the near end.
    expected: [Option<u32>; 2],
}

/// A connection that is being reset: the next number that each end expects, as far as known.
pub(crate) struct Broken {
    pub(crate) flow: Flow,
    pub(crate) outside: Ipv4Addr,
    /// By the far end.
    pub(crate) up: Option<u32>,
    /// By the near end.
    pub(crate) down: Option<u32>,
}

/// The value.
#[derive(Debug)]
pub(crate) struct Table {
    flows: HashMap<Flow, State>,
    next: u64,
    everything_swallowed: bool,
    outside: Ipv4Addr,
}

impl Table {
    pub(crate) fn new(outside: Ipv4Addr) -> Self {
        Self { flows: HashMap::new(), next: 0, everything_swallowed: false, outside }
    }

    /// The address that new connections have outside.
    pub(crate) fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// A packet of `flow` passes the network's side `way`wards; `towards` is the outside address that it came for (down).
    pub(crate) fn pass(
        &mut self,
        way: Way,
        flow: Flow,
        towards: Option<Ipv4Addr>,
        segment: Option<Segment>,
        now: Duration,
    ) -> Fate {
        let outside = self.outside;
        if !self.flows.contains_key(&flow) {
            if towards.is_some_and(|towards| towards != outside) {
                return Fate::Unknown;
            }
            if self.flows.len() >= MOST {
                let silent = self.flows.iter().min_by_key(|(_, state)| state.used).map(|(flow, _)| *flow);
                silent.map(|flow| self.flows.remove(&flow));
            }
            self.add(flow, now);
        }
        let Some(state) = self.flows.get_mut(&flow) else { return Fate::Unknown };
        state.used = now;
        // Ports are used again: who begins anew has nothing to do with the connection that was reset or lost.
        let begins = segment.is_some_and(|segment| segment.syn && segment.acknowledgement.is_none());
        if begins && way == Way::Up && matches!(state.mark, Mark::Reset | Mark::Lost) {
            (state.mark, state.outside, state.expected) = (Mark::None, outside, [None, None]);
        }
        if towards.is_some_and(|towards| towards != state.outside) {
            return Fate::Unknown;
        }
        if let Some(segment) = segment {
            // What one end acknowledges is what it expects, whether the packet goes on or not.
            if let Some(acknowledged) = segment.acknowledgement {
                raise(&mut state.expected[way.back() as usize], acknowledged);
            }
        }
        match state.mark {
            Mark::Lost => Fate::Unknown,
            Mark::Reset => Fate::Reset,
            Mark::Swallowed => Fate::Swallowed,
            Mark::None if self.everything_swallowed => Fate::Swallowed,
            Mark::None => {
                if let Some(segment) = segment {
                    follow(&mut state.expected[way as usize], segment);
                }
                Fate::Carried { outside: state.outside }
            }
        }
    }

    fn add(&mut self, flow: Flow, now: Duration) -> &mut State {
        self.next += 1;
        let (born, outside) = (self.next, self.outside);
        let state = State { mark: Mark::None, outside, born, used: now, expected: [None, None] };
        self.flows.entry(flow).or_insert(state)
    }

    /// Swallows; until [`Self::heal`].
    pub(crate) fn swallow(&mut self, which: Flows, now: Duration) {
        match which {
            Flows::All => self.everything_swallowed = true,
            Flows::One(flow) if !self.flows.contains_key(&flow) => self.add(flow, now).mark = Mark::Swallowed,
            _ => self.chosen(which, |_, state| {
                if state.mark == Mark::None {
                    state.mark = Mark::Swallowed;
                }
            }),
        }
    }

    /// Swallows nothing any more.
    pub(crate) fn heal(&mut self) {
        self.everything_swallowed = false;
        for state in self.flows.values_mut().filter(|state| state.mark == Mark::Swallowed) {
            state.mark = Mark::None;
        }
    }

    /// Resets TCP connections that are there; [`Flows::All`] says no more than [`Flows::Known`].
    pub(crate) fn reset(&mut self, which: Flows) -> Vec<Broken> {
        let mut broken = Vec::new();
        self.chosen(which, |flow, state| {
            if flow.protocol == TCP && state.mark != Mark::Lost {
                state.mark = Mark::Reset;
                let [up, down] = state.expected;
                broken.push(Broken { flow: *flow, outside: state.outside, up, down });
            }
        });
        broken
    }

    /// The camera gets another outside address.
    pub(crate) fn move_to(&mut self, outside: Ipv4Addr, existing: Existing) {
        self.outside = outside;
        for state in self.flows.values_mut() {
            match existing {
                Existing::Lost => state.mark = Mark::Lost,
                Existing::Renumbered => state.outside = outside,
            }
        }
    }

    fn chosen(&mut self, which: Flows, mut work: impl FnMut(&Flow, &mut State)) {
        let chosen = match which {
            Flows::All | Flows::Known => return self.flows.iter_mut().for_each(|(flow, state)| work(flow, state)),
            Flows::One(flow) => Some(flow),
            Flows::Oldest => self.flows.iter().min_by_key(|(_, state)| state.born).map(|(flow, _)| *flow),
            Flows::Newest => self.flows.iter().max_by_key(|(_, state)| state.born).map(|(flow, _)| *flow),
        };
        if let Some((flow, state)) = chosen.and_then(|flow| self.flows.get_mut(&flow).map(|state| (flow, state))) {
            work(&flow, state);
        }
    }
}

/// Sequence numbers go in a circle (RFC 9293, 3.4): what is less than half of it ahead is later.
fn is_later(number: u32, than: u32) -> bool {
    let ahead = number.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 31
}

fn raise(expected: &mut Option<u32>, number: u32) {
    if expected.is_none_or(|before| is_later(number, before)) {
        *expected = Some(number);
    }
}

/// A segment without a hole before it moves what is expected; one after a hole waits for the acknowledgement.
fn follow(expected: &mut Option<u32>, segment: Segment) {
    if segment.syn || expected.is_none_or(|before| !is_later(segment.sequence, before)) {
        raise(expected, segment.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const LATER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    fn flow(port: u16) -> Flow {
        let near = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 108), port);
        Flow { protocol: TCP, near, far: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 2), 443) }
    }

    fn data(sequence: u32, length: u32, acknowledgement: u32) -> Option<Segment> {
        let end = sequence.wrapping_add(length);
        Some(Segment { sequence, acknowledgement: Some(acknowledgement), syn: false, rst: false, end })
    }

    fn syn(sequence: u32) -> Option<Segment> {
        let end = sequence.wrapping_add(1);
        Some(Segment { sequence, acknowledgement: None, syn: true, rst: false, end })
    }

    fn up(table: &mut Table, port: u16, segment: Option<Segment>) -> Fate {
        table.pass(Way::Up, flow(port), None, segment, Duration::ZERO)
    }

    fn down(table: &mut Table, port: u16, towards: Ipv4Addr, segment: Option<Segment>) -> Fate {
        table.pass(Way::Down, flow(port), Some(towards), segment, Duration::ZERO)
    }

    const CARRIED: Fate = Fate::Carried { outside: OUTSIDE };

    #[test]
    fn a_reset_stands_where_the_receiver_waits() {
        let mut table = Table::new(OUTSIDE);
        up(&mut table, 1, data(u32::MAX - 9, 20, 500));
        up(&mut table, 1, data(110, 10, 500));
        down(&mut table, 1, OUTSIDE, data(500, 100, 10));
        let broken = table.reset(Flows::Known);
        assert_eq!(broken.len(), 1);
        assert_eq!((broken[0].up, broken[0].down), (Some(10), Some(600)), "after a hole nothing is expected");
        assert_eq!(up(&mut table, 1, data(120, 1, 600)), Fate::Reset);
        assert_eq!(up(&mut table, 1, syn(7)), CARRIED, "the port is used again");
    }

    #[test]
    fn one_connection_is_swallowed_and_no_other() {
        let mut table = Table::new(OUTSIDE);
        table.swallow(Flows::One(flow(1)), Duration::ZERO);
        assert_eq!(up(&mut table, 1, syn(0)), Fate::Swallowed);
        assert_eq!(down(&mut table, 1, OUTSIDE, None), Fate::Swallowed);
        assert_eq!(up(&mut table, 2, syn(0)), CARRIED);
        table.swallow(Flows::Newest, Duration::ZERO);
        assert_eq!((up(&mut table, 2, None), up(&mut table, 3, None)), (Fate::Swallowed, CARRIED));
        table.heal();
        assert_eq!((up(&mut table, 1, None), up(&mut table, 2, None)), (CARRIED, CARRIED));
        table.swallow(Flows::All, Duration::ZERO);
        assert_eq!(up(&mut table, 4, syn(0)), Fate::Swallowed, "those to come too");
    }

    #[test]
    fn an_old_address_leads_nowhere() {
        let mut table = Table::new(OUTSIDE);
        assert_eq!(up(&mut table, 1, syn(0)), CARRIED);
        table.move_to(LATER, Existing::Lost);
        assert_eq!(up(&mut table, 1, data(1, 1, 1)), Fate::Unknown);
        assert_eq!(down(&mut table, 1, OUTSIDE, None), Fate::Unknown);
        assert_eq!(down(&mut table, 2, OUTSIDE, None), Fate::Unknown, "nor for somebody else");
        assert_eq!(up(&mut table, 3, syn(0)), Fate::Carried { outside: LATER });
        assert_eq!(down(&mut table, 3, LATER, None), Fate::Carried { outside: LATER });
        assert_eq!(up(&mut table, 1, syn(9)), Fate::Carried { outside: LATER }, "begun anew");
    }

    #[test]
    fn a_router_renumbers() {
        let mut table = Table::new(OUTSIDE);
        up(&mut table, 1, syn(0));
        table.move_to(LATER, Existing::Renumbered);
        assert_eq!(up(&mut table, 1, data(1, 1, 1)), Fate::Carried { outside: LATER });
        assert_eq!(down(&mut table, 1, OUTSIDE, None), Fate::Unknown);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Table::new(OUTSIDE);
        for port in 0..=u16::MAX {
            table.pass(Way::Up, flow(port), None, None, Duration::from_millis(port.into()));
            if port == 5_000 {
                break;
            }
        }
        assert_eq!(table.flows.len(), MOST);
        assert!(table.flows.contains_key(&flow(5_000)) && !table.flows.contains_key(&flow(0)));
    }
}
