//! The body of the fuzz target `journal_segment` (feature `fuzz`): whatever stands in a file, opening and reading end, nothing panics, and no
//! octet that is not understood is deleted.

use camagent_proto::message::BootId;

use super::{
    backlog::{Cursor, Look},
    crc::Crc,
    segment,
    sim::SimDisk,
    store::{Flash, FlashConfig, name, thin_name},
};

/// The first octet says what the rest is: a file (even), or records `length u16, kind, body` that get right sums and a head (odd); sealed (2); thinned (4), with a whole
/// one beside it (8).
pub fn journal_segment(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let file = if how % 2 == 0 { rest.to_vec() } else { wrapped(rest, how & 2 != 0) };
    let card = SimDisk::new(1, u64::MAX);
    if how & 4 != 0 {
        card.plant(&thin_name(1), &file);
    }
    if how & 12 != 4 {
        card.plant(&name(1), &file);
    }
    let config = |boot| FlashConfig { agent_id: "gate".into(), boot: BootId([boot; 16]), max_bytes: 1 << 20 };
    let mut disk = card.clone();
    let (mut flash, _) = Flash::open(&mut disk, config(1), None).expect("the card is well");
    let first = read_all(&mut flash, &card);
    let names = card.names();
    assert!(
        file.is_empty() || names.iter().any(|name| name.ends_with(".camj") || name.contains(".camj.")),
        "{names:?}"
    );
    // What an opening has sealed or cut, the next one understands.
    let (mut again, findings) = Flash::open(&mut disk, config(2), None).expect("the card is well");
    if names.iter().all(|name| name.ends_with(".camj")) && flash.take_damages().is_empty() {
        assert!(findings.iter().all(|finding| !matches!(finding, super::open::Finding::Cut { .. })), "{findings:?}");
        assert_eq!(read_all(&mut again, &card), first);
    }
    // What it says of itself is believed as far as room can be made by it.
    again.make_room(&mut disk, 1 << 19).expect("the card is well");
    again.rewind();
    again.make_room(&mut disk, 1 << 20).expect("the card is well");
}

fn read_all(flash: &mut Flash, card: &SimDisk) -> usize {
    let mut cursor = Cursor::new();
    let mut frames = 0;
    loop {
        match cursor.look(flash, &mut card.clone(), |_| u64::MAX).expect("the card is well") {
            Look::Frame(_) => frames += 1,
            Look::Later => {}
            Look::End => return frames,
        }
    }
}

fn wrapped(mut data: &[u8], is_sealed: bool) -> Vec<u8> {
    let mut file = segment::head().to_vec();
    let mut last = 0;
    while let Some((&[a, b, kind], rest)) = data.split_first_chunk::<3>() {
        let (body, rest) = rest.split_at(usize::from(u16::from_le_bytes([a, b])).min(rest.len()));
        data = rest;
        last = file.len() as u64;
        let length = (body.len() as u32).to_le_bytes();
        let sum = Crc::new().add(&1_u64.to_le_bytes()).add(&last.to_le_bytes()).add(&length).add(&[kind]).add(body);
        file.extend_from_slice(&length);
        file.push(kind);
        file.extend_from_slice(body);
        file.extend_from_slice(&sum.sum().to_le_bytes());
    }
    if is_sealed {
        file.extend_from_slice(&segment::tail(last));
    }
    file
}
