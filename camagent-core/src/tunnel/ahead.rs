//! What was read from one service beyond the record at hand: a burst leaves in several records and is read in one system call, each part of it
//! into the memory of its record.
//!
//! This serves all streams, and only while the uplink is fast: on a slow one each record is read when it is sent.

use std::{
    array,
    collections::VecDeque,
    io::{self, IoSliceMut},
    task::Poll,
};

use camagent_proto::frame::{MAX_RECORD, Space};

use crate::burst::MAX_BURST;

/// Records of the largest burst.
const RECORDS: usize = MAX_BURST.div_ceil(MAX_RECORD);

/// A record in which octets stand, from one place up to another, and nothing before them yet.
#[derive(Debug)]
struct Part {
    record: Vec<u8>,
    from: usize,
    to: usize,
}

/// Octets of one stream that wait for the next records.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    stream: u64,
    parts: VecDeque<Part>,
    /// Memory for the next records, [`MAX_RECORD`] octets each.
    free: Vec<Vec<u8>>,
}

impl Ahead {
    /// Moves what waits of `stream` into a record, which becomes the one in which it stands where that fits.
    pub(super) fn take(&mut self, stream: u64, into: &mut Space<'_>) -> Option<usize> {
        let part = self.parts.front_mut().filter(|_| self.stream == stream)?;
        let count = into.len().min(part.to - part.from);
        if count == part.to - part.from && part.from == into.place() {
            let record = std::mem::take(&mut part.record);
            self.parts.pop_front();
            self.give_back(into.exchange(record));
            return Some(count);
        }
        into[..count].copy_from_slice(&part.record[part.from..part.from + count]);
        part.from += count;
        if let Some(part) = self.parts.pop_front_if(|part| part.from == part.to) {
            self.give_back(part.record);
        }
        Some(count)
    }

    /// Whether the next burst may be read now, because bursts have more than one record and nothing waits. The memory goes when they have not.
    pub(super) fn takes(&mut self, burst: usize) -> bool {
        if !self.parts.is_empty() {
            return false;
        }
        if burst < MAX_BURST {
            self.free = Vec::new();
            return false;
        }
        true
    }

    /// Lets a burst of `stream` be read: the first octets go into the record at hand, and how many is returned; what is read beyond waits. More than the
    /// stream's `credit` is not read: what cannot leave would keep all other streams waiting.
    pub(super) fn fill(
        &mut self,
        stream: u64,
        into: &mut Space<'_>,
        credit: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let (place, most) = (into.place_in_empty(), into.most_in_empty());
        let first = into.len().min(credit);
        // What a burst has beside the octets, one more of a record's length included.
        let burst = MAX_BURST - RECORDS * (place + 1);
        let mut left = credit.min(burst).saturating_sub(first);
        self.stream = stream;
        while left > 0 && self.parts.len() + 1 < RECORDS {
            let record = self.free.pop().unwrap_or_else(|| vec![0; MAX_RECORD]);
            let to = place + most.min(left);
            left -= to - place;
            self.parts.push_back(Part { record, from: place, to });
        }
        let count = 1 + self.parts.len();
        let mut slices: [IoSliceMut<'_>; RECORDS] = array::from_fn(|_| IoSliceMut::new(&mut []));
        slices[0] = IoSliceMut::new(&mut into[..first]);
        for (slice, part) in slices[1..].iter_mut().zip(&mut self.parts) {
            *slice = IoSliceMut::new(&mut part.record[part.from..part.to]);
        }
        let read = read(&mut slices[..count]);
        let beyond = match read {
            Poll::Ready(Ok(read)) => read.saturating_sub(first),
            _ => 0,
        };
        self.keep(beyond);
        read.map_ok(|read| read.min(first))
    }

    /// Only so many octets have come of those that there was room for.
    fn keep(&mut self, mut octets: usize) {
        let mut kept = 0;
        for part in &mut self.parts {
            part.to = part.to.min(part.from + octets);
            octets -= part.to - part.from;
            kept += usize::from(part.to > part.from);
        }
        while self.parts.len() > kept
            && let Some(part) = self.parts.pop_back()
        {
            self.give_back(part.record);
        }
    }

    fn give_back(&mut self, mut record: Vec<u8>) {
        if self.free.len() < RECORDS {
            record.resize(MAX_RECORD, 0);
            self.free.push(record);
        }
    }

    /// The stream is over.
    pub(super) fn forget(&mut self, stream: u64) {
        if self.stream == stream {
            self.parts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::frame::RecordWriter;

    use super::*;

    /// A record into which `take` puts the payload of a frame behind `before` octets of others; what was put.
    fn record(before: usize, take: impl FnOnce(&mut Space<'_>) -> Option<usize>) -> (Option<usize>, Vec<u8>) {
        let mut record = RecordWriter::new(MAX_RECORD);
        if before > 0 {
            record.push_payload(0x40, &[], before, |into| {
                into.fill(1);
                true
            });
        }
        let octets = record.octets();
        let count = record.push_read(0x41, &[9; 3], usize::MAX, take);
        let all = record.finish();
        assert!(before == 0 || all[octets - before..octets].iter().all(|octet| *octet == 1));
        (count, all[all.len() - count.unwrap_or(0)..].to_vec())
    }

    /// A service that has so many octets, counted from 0.
    fn service(octets: usize) -> impl FnOnce(&mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        move |slices| {
            let mut at = 0;
            for octet in slices.iter_mut().flat_map(|slice| slice.iter_mut()).take(octets) {
                *octet = (at % 251) as u8;
                at += 1;
            }
            Poll::Ready(Ok(at))
        }
    }

    fn read(ahead: &mut Ahead, credit: usize, has: usize) -> (Option<usize>, Vec<u8>) {
        record(0, |into| match ahead.fill(1, into, credit, service(has)) {
            Poll::Ready(Ok(count)) => Some(count),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_burst_leaves_in_records_whatever_stands_before_it_and_belongs_to_one_stream() {
        let mut ahead = Ahead::default();
        assert!(!ahead.takes(MAX_BURST - 1) && ahead.takes(MAX_BURST));
        let (_, mut all) = read(&mut ahead, usize::MAX, 100_000);
        assert!(!ahead.takes(MAX_BURST), "the rest goes first");
        assert_eq!(record(0, |into| ahead.take(5, into)).0, None, "another stream's");
        let mut records = 1;
        // The second record has another frame in front, and the fourth, too.
        while let (Some(_), octets) = record(if records % 2 == 1 { 700 } else { 0 }, |into| ahead.take(1, into)) {
            all.extend(octets);
            records += 1;
        }
        let expected: Vec<u8> = (0..100_000).map(|at| (at % 251) as u8).collect();
        assert!(all == expected, "{} octets in {records} records", all.len());
        assert!(ahead.takes(MAX_BURST) && !ahead.free.is_empty());
        assert!(!ahead.takes(1) && ahead.free.is_empty(), "bursts are small again");
    }

    #[test]
    fn what_stands_where_it_belongs_is_not_copied() {
        let mut ahead = Ahead::default();
        read(&mut ahead, usize::MAX, usize::MAX);
        let (mut chosen, mut records) = (0, 1);
        while let Some(memory) = ahead.parts.front().map(|part| part.record.as_ptr()) {
            // The rest of a burst, as the driver gives it out.
            let mut record = RecordWriter::aiming_at(MAX_RECORD, MAX_BURST - chosen - MAX_RECORD);
            record.push_read(0x41, &[9; 3], usize::MAX, |into| ahead.take(1, into));
            chosen += record.octets();
            records += 1;
            assert_eq!(record.finish().as_ptr(), memory, "record {records}");
        }
        assert_eq!(records, RECORDS);
    }

    #[test]
    fn no_more_is_read_than_may_leave_and_nothing_of_a_stream_that_is_over() {
        let mut ahead = Ahead::default();
        for credit in [1, 7, MAX_RECORD, MAX_RECORD + 1, 50_000, MAX_BURST, 2 * MAX_BURST] {
            let (_, mut all) = read(&mut ahead, credit, usize::MAX);
            while let (Some(_), octets) = record(0, |into| ahead.take(1, into)) {
                all.extend(octets);
            }
            assert!(
                all.len() == credit || credit >= MAX_BURST && all.len() > MAX_BURST - 100,
                "{} of {credit}",
                all.len()
            );
        }
        read(&mut ahead, usize::MAX, usize::MAX);
        ahead.forget(5);
        assert!(!ahead.takes(MAX_BURST));
        ahead.forget(1);
        assert!(ahead.takes(MAX_BURST));
        let waits = record(0, |into| match ahead.fill(1, into, usize::MAX, |_| Poll::Pending) {
            Poll::Pending => None,
            other => panic!("{other:?}"),
        });
        assert!(waits.0.is_none() && ahead.takes(MAX_BURST));
    }
}
